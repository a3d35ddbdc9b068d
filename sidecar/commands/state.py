"""`fsm-sidecar state get | set | patch | transition | watch | history | conflicts`."""

import argparse
from typing import TYPE_CHECKING, Any

from sidecar.commands import watch
from sidecar.commands.connected import Commands, add, add_writer_token, claim, given, json_object, leaves, number, print_json
from sidecar.commands.outcomes import EX_NO
from sidecar.commands.terminal import Cell, ago, brief, clean, clock, moment, shown, table
from sidecar.errors import ConfigError

if TYPE_CHECKING:
    from sidecar.asking import Answer
    from sidecar.commands.asking import Api

MAX_PAGE = 1000
_DONE = {"complete": True}


def add_commands(parser: argparse.ArgumentParser) -> None:
    """The commands below `state`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    get = add(commands, "get", "print the current state", _get)
    get.add_argument("--field", metavar="PATH", help="only this, such as state, version or context_data.battery")
    _add_writing(commands)
    watch.add_command(commands)
    history = add(commands, "history", "print the newest revisions, oldest first", _history)
    history.add_argument("--limit", metavar="N", type=number(1), default=20, help="how many, 20 by default, up to 1000")
    history.add_argument("--after", metavar="REVISION", type=number(0), help="those behind this one, instead of the newest")
    conflicts = add(
        commands, "conflicts", "print who lost against whom, and who overwrote whom unseen, newest first", _conflicts
    )
    conflicts.add_argument("--limit", metavar="N", type=number(1), default=20, help="how many, 20 by default")


def _add_writing(commands: Commands) -> None:
    change = add(commands, "set", "write the state; what the state is about is replaced as a whole", _set, writes=True)
    change.add_argument("state", metavar="STATE")
    change.add_argument(
        "--version", metavar="N", type=number(1), help="the number it gets, unless it is used; the next one by default"
    )
    patch = add(commands, "patch", "change some of the data, and keep all the rest; null removes a member", _patch, writes=True)
    for with_data in (change, patch):
        with_data.add_argument(
            "--context-data", metavar="JSON", type=json_object, help="an object, or @file, or @- for standard input"
        )
        with_data.add_argument("--state-metadata", metavar="JSON", type=json_object, help="likewise")
    move = add(commands, "transition", "go to a state, and keep all the rest", _transition, writes=True)
    move.add_argument("state", metavar="STATE")
    move.add_argument("--from", metavar="STATE", dest="source_state", help="only if the agent is in that state")
    for writing in (change, patch, move):
        writing.add_argument("--reason", metavar="TEXT", help="why")
        writing.add_argument("--source", metavar="NAME", default="cli", help="who writes; cli by default")
        only = writing.add_mutually_exclusive_group()
        only.add_argument("--if-version", metavar="N", type=number(0), help="only if this is the current version")
        only.add_argument("--if-match", metavar="ETAG", help="only if this is the current ETag: epoch and version, k3f9-17")
        only.add_argument("--if-none", action="store_true", help="only if there is no state yet")
        writing.add_argument("--key", metavar="KEY", help="an Idempotency-Key: sent again with the same one, it counts once")
        writing.add_argument("--dry-run", action="store_true", help="only tell what would be written, or why not")
        writing.add_argument(
            "--wait-acks", metavar="N|all", help="until so many subscribers have acknowledged it; 1 if not in time"
        )
        writing.add_argument("--acks-timeout", metavar="TIME", default="2s", help="how long for, at most 30s; 2s by default")
        add_writer_token(writing)


# --- reading ---


def _get(api: "Api", options: argparse.Namespace) -> int:
    answer = api.get("/v1/state")
    if options.field is not None:
        try:
            value = leaves(options.field.removeprefix("snapshot.").split("."), {**answer, **answer["snapshot"]})
        except (LookupError, TypeError):
            return EX_NO
        print_json(value) if options.json else print(shown(brief(value)))
    elif options.json:
        print_json(answer)
    else:
        _tell(answer)
    return 0


def _tell(answer: dict[str, Any]) -> None:
    import time

    snapshot = answer["snapshot"]
    rows: list[tuple[Cell, Cell]] = [
        (("state", "dim"), (snapshot["state"], "bold")),
        (("version", "dim"), f"{snapshot['version']}, revision {answer['revision']} of epoch {answer['epoch']}"),
        (("written", "dim"), f"{moment(snapshot['ts_wall'])} ({ago(time.time() - snapshot['ts_wall'])})"),
        (("by", "dim"), snapshot["source_module"]),
    ]
    names = {"reason": "reason", "prev_state": "before", "context_data": "context", "state_metadata": "metadata"}
    rows += [((name, "dim"), brief(snapshot[key])) for key, name in names.items() if snapshot[key]]
    table(rows)


def _history(api: "Api", options: argparse.Namespace) -> None:
    page = _revisions(api, options.after, min(options.limit, MAX_PAGE))
    if options.json:
        print_json(page)
        return
    rows: list[tuple[Cell, ...]] = []
    for entry in page["entries"]:
        snapshot = entry["snapshot"]
        state: Cell = (snapshot["state"], "bold")
        numbers = str(entry["revision"]), str(snapshot["version"])
        rows.append((*numbers, moment(snapshot["ts_wall"]), state, snapshot["source_module"], snapshot["reason"]))
    table(rows, ("revision", "version", "written", "state", "by", "reason"), none="no revision is there")


def _revisions(api: "Api", after: int | None, limit: int) -> dict[str, Any]:
    """Those after a revision, or the newest, as one page: large ones come on several."""
    if after is None:
        newest = api.get("/v1/history", newest=1)
        after = max(newest["head"] - limit, newest["oldest"] - 1)
    page: dict[str, Any] = api.get("/v1/history", after=after, limit=limit)
    entries = more = page["entries"]
    while more and len(entries) < limit and entries[-1]["revision"] < page["head"]:
        more = api.get("/v1/history", after=entries[-1]["revision"], limit=limit - len(entries))["entries"]
        entries = entries + more
    return page | {"entries": entries}


def _conflicts(api: "Api", options: argparse.Namespace) -> None:
    told = api.get("/v1/conflicts")
    told["conflicts"] = told["conflicts"][: options.limit]
    if options.json:
        print_json(told)
        return
    rows: list[tuple[Cell, ...]] = []
    for each in told["conflicts"]:
        tried, against = each["attempted"], each["against"]
        standing = f"{against['state']} {against['version']}" if against.get("state") else "no state"
        kind: Cell = (f"{each['kind']} ({each['reason']})", "yellow" if each["kind"] == "masked" else "red")
        who = tried["source_module"], against.get("source_module") or ""
        rows.append(
            (clock(each["at"]), kind, who[0], f"{tried['state']} {tried['version']}", who[1], standing, tried["reason"])
        )
    table(rows, ("at", "conflict", "who", "tried", "against", "current", "reason"), none="no write has met another one")


# --- writing ---


def _set(api: "Api", options: argparse.Namespace) -> int:
    body = {"state": options.state, "reason": options.reason or ""}
    body |= given(version=options.version, context_data=options.context_data, state_metadata=options.state_metadata)
    return _write(api, "PUT", "/v1/state", body, options)


def _patch(api: "Api", options: argparse.Namespace) -> int:
    changes = given(context_data=options.context_data, state_metadata=options.state_metadata, reason=options.reason)
    if not changes:
        raise ConfigError(["nothing to change: give --context-data, --state-metadata or --reason"])
    return _write(api, "PATCH", "/v1/state", changes, options)


def _transition(api: "Api", options: argparse.Namespace) -> int:
    body = {"to": options.state, "reason": options.reason or ""}
    return _write(api, "POST", "/v1/transitions", body | given(**{"from": options.source_state}), options)


def _write(api: "Api", method: str, path: str, body: dict[str, Any], options: argparse.Namespace) -> int:
    headers = _conditions(api, options) | claim(options)
    if method == "PATCH":
        headers["Content-Type"] = "application/merge-patch+json"
    query = {"dry_run": "true"} if options.dry_run else {}
    if options.wait_acks:
        query |= {"wait_acks": options.wait_acks, "timeout": options.acks_timeout}
    answer = api.ask(method, path, query=query, headers=headers, body=body | {"source_module": options.source})
    _tell_written(answer, options)
    return 0 if answer.json.get("acks", _DONE)["complete"] else EX_NO


def _conditions(api: "Api", options: argparse.Namespace) -> dict[str, str]:
    headers = {} if options.key is None else {"Idempotency-Key": options.key}
    if options.if_none:
        headers["If-None-Match"] = "*"
    elif options.if_match is not None:
        text = options.if_match
        headers["If-Match"] = text if text == "*" or text.startswith('"') else f'"{text}"'
    elif options.if_version is not None:
        epoch = api.get("/v1/state/meta")["epoch"]
        headers["If-Match"] = f'"{epoch}-{options.if_version}"'
    return headers


def _tell_written(answer: "Answer", options: argparse.Namespace) -> None:
    written = answer.json
    if options.json:
        print_json(written)
        return
    snapshot = written["snapshot"]
    again = " (as the first time: this key was used before)" if "idempotency-replayed" in answer.headers else ""
    place = "not written: a dry run" if options.dry_run else f"revision {written['revision']}{again}"
    print(f"{clean(snapshot['state'])}, version {snapshot['version']}, {place}")
    if acks := written.get("acks"):
        missing = f"; not by {clean(', '.join(acks['waiting_for']))}" if acks["waiting_for"] else ""
        print(f"acknowledged by {acks['acknowledged']} of {acks['wanted']}{missing}")
