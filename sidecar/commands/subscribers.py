"""`fsm-sidecar subscribers list | add | set | remove | resume | ping | rotate`."""

import argparse
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sidecar.commands.connected import add, given, number, print_json
from sidecar.commands.terminal import Cell, clean, moment, style, table
from sidecar.errors import ConfigError

if TYPE_CHECKING:
    from sidecar.asking import Answer
    from sidecar.commands.asking import Api

_SETTINGS = ("url", "timeout", "max_lag", "on", "states", "max_batch")
_COLOURS = {"active": "green", "degraded": "yellow", "suspended": "red", "evicted": "red"}
_NOT_DELIVERED = 1


def add_commands(parser: argparse.ArgumentParser) -> None:
    """The commands below `subscribers`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add(commands, "list", "list who is told, with status and lag; the evicted too", _list)
    new = add(commands, "add", "register a webhook, or register it anew with these settings alone", _add, writes=True)
    new.add_argument("id", metavar="ID")
    new.add_argument("endpoint", metavar="ENDPOINT", help="the URL that is called")
    _add_settings(new, "a file with its secret; without it one is made, and shown this once")
    new.add_argument("--from", metavar="REVISION", dest="start", help="begin there, or at `latest`")
    change = add(commands, "set", "change some of its settings, and keep the others; it is served again", _set, writes=True)
    change.add_argument("id", metavar="ID")
    change.add_argument("--endpoint", metavar="ENDPOINT", help="the URL that is called")
    _add_settings(change, "a file with its new secret; the one before signs too for a while")
    for name, help, command in (
        ("remove", "remove a subscriber, and forget how far it got", _remove),
        ("resume", "serve one again that was evicted or suspended, from where it was", _resume),
        ("ping", "send it a message without a state; ends with 1 if it does not take it", _ping),
        ("rotate", "make a new secret, shown this once; the one before signs too for a while", _rotate),
    ):
        add(commands, name, help, command, writes=True).add_argument("id", metavar="ID")


def _add_settings(command: argparse.ArgumentParser, about_secret: str) -> None:
    command.add_argument("--secret-file", metavar="FILE", help=about_secret)
    command.add_argument("--answers-within", metavar="TIME", dest="patience", help="how long it may take to answer, up to 30s")
    command.add_argument("--max-lag", metavar="N", type=number(0), help="revisions behind, beyond which some are passed over")
    command.add_argument("--on", choices=("transition", "update"), action="append", help="only these; may be given twice")
    command.add_argument("--state", metavar="STATE", action="append", dest="states", help="only these; may be given again")
    command.add_argument("--max-batch", metavar="N", type=number(1), help="so many in one delivery")


def _path(subscriber_id: str, *more: str) -> str:
    return "/".join(("/v1/subscribers", quote(subscriber_id, safe=""), *more))


def _list(api: "Api", options: argparse.Namespace) -> None:
    told = api.get("/v1/subscribers")
    if options.json:
        print_json(told)
        return
    rows: list[tuple[Cell, ...]] = []
    for each in told["subscribers"]:
        why = f" ({each['evicted']['reason']})" if each["evicted"] and each["evicted"]["reason"] else ""
        status: Cell = (each["status"] + why, _COLOURS.get(each["status"], ""))
        outcome = each["last_outcome"] or "none yet"
        if each["last_http_status"]:
            outcome += f" ({each['last_http_status']})"
        rows.append((each["id"], status, str(each["lag"]), str(each["failures"]), outcome, each["url"]))
    header = ("id", "status", "lag", "failures", "last outcome", "endpoint")
    table(rows, header, none="nobody is told; `fsm-sidecar subscribers add` registers a webhook")


def _add(api: "Api", options: argparse.Namespace) -> None:
    query = given(**{"from": options.start})
    _tell_registered(api.ask("PUT", _path(options.id), query=query, body=_settings(options)), options)


def _set(api: "Api", options: argparse.Namespace) -> None:
    wanted = _settings(options)
    if not wanted:
        raise ConfigError(["nothing to change: name a setting, such as --max-lag 100"])
    _tell_registered(api.ask("PUT", _path(options.id), body=_known_settings(api, options.id) | wanted), options)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Those that the command line names."""
    return given(
        url=options.endpoint,
        secret=_secret(options.secret_file) if options.secret_file else None,
        timeout=options.patience,
        max_lag=options.max_lag,
        on=options.on,
        states=options.states,
        max_batch=options.max_batch,
    )


def _known_settings(api: "Api", subscriber_id: str) -> dict[str, Any]:
    """Those that it has. Its secret stays when it is not named."""
    known = api.get(_path(subscriber_id))
    return given(**{name: known[name] for name in _SETTINGS})


def _tell_registered(answer: "Answer", options: argparse.Namespace) -> None:
    view = answer.json
    if options.json:
        print_json(view)
        return
    done = "registered" if answer.status == 201 else "changed"
    print(f"{view['id']} is {done}: {_status(view)}, lag {view['lag']}")
    if "secret" in view:
        print(f"its secret, shown this once: {view['secret']}")


def _secret(file: str) -> str:
    from pathlib import Path

    try:
        return Path(file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{file}: cannot be read as a secret: {getattr(error, 'strerror', 'it is not ASCII')}"]) from None


def _status(view: dict[str, Any]) -> str:
    return style(clean(view["status"]), _COLOURS.get(view["status"], ""))


def _remove(api: "Api", options: argparse.Namespace) -> None:
    api.ask("DELETE", _path(options.id))
    print_json({"id": options.id, "removed": True}) if options.json else print(f"{clean(options.id)} is removed")


def _resume(api: "Api", options: argparse.Namespace) -> None:
    view = api.ask("PUT", _path(options.id), body=_known_settings(api, options.id)).json
    print_json(view) if options.json else print(f"{view['id']} is {_status(view)}, lag {view['lag']}")


def _ping(api: "Api", options: argparse.Namespace) -> int:
    went = api.ask("POST", _path(options.id, "ping")).json
    taken = went["outcome"] == "delivered"
    if options.json:
        print_json(went)
    else:
        status = f", answered {went['status']}" if went["status"] else ""
        outcome = style(clean(went["outcome"]), "green" if taken else "red")
        print(f"{clean(options.id)}: {outcome}{status} after {went['seconds'] * 1000:.0f} ms")
    return 0 if taken else _NOT_DELIVERED


def _rotate(api: "Api", options: argparse.Namespace) -> None:
    made = api.ask("POST", _path(options.id, "rotate")).json
    if options.json:
        print_json(made)
        return
    print(f"its new secret, shown this once: {made['secret']}")
    if made["previous_valid_until"]:
        print(f"the one before signs too until {moment(made['previous_valid_until'])}")
