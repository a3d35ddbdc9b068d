"""`fsm-sidecar state watch`: each state as it is written, over lost connections and restarts."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from sidecar.commands.connected import Commands, add, number, print_json
from sidecar.commands.terminal import clean, clock, style
from sidecar.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.commands.asking import Api

SILENCE_SECONDS = 45.0
"""A connection that is silent for this long is lost: a heartbeat comes every 15 s."""

_AGAIN_SECONDS = 1.0
_NO = 1


def add_command(commands: Commands) -> None:
    """`watch`."""
    watch = add(commands, "watch", "print the state, and then each new one, until Ctrl-C", _watch)
    watch.add_argument("--count", metavar="N", type=number(1), help="end after so many states")
    watch.add_argument("--until", metavar="STATE", help="end with 0 when the agent is in this state")
    watch.add_argument("--for", metavar="TIME", dest="lasting", help="end then: with 1 if --until or --count is not reached")
    watch.add_argument("--after", metavar="ID", help="go on behind epoch-revision, such as k3f9-17")


def _watch(api: "Api", options: argparse.Namespace) -> int:
    if options.until is not None:
        _check_state(api, options.until)
    wanted, deadline, shown = options.count, _deadline(options.lasting), None
    for kind, data in _events(api, options.after, deadline):
        if options.json:
            print_json({"event": kind, **data})
        elif kind == "gap":
            _tell_gap(data)
        else:
            _tell(data, shown)
        if kind == "state":
            shown = data["snapshot"]["state"]
            wanted = None if wanted is None else wanted - 1
            if data["snapshot"]["state"] == options.until or wanted == 0:
                return 0
    return _NO if options.until or options.count else 0


def _check_state(api: "Api", name: str) -> None:
    """Whether it can ever be reached."""
    states = api.get("/v1/machine")["states"]
    if name not in states:
        raise ConfigError([f"--until: not a state; the states are {', '.join(map(clean, states))}"])


def _deadline(lasting: str | None) -> float | None:
    import time

    from sidecar.units import Seconds

    if lasting is None:
        return None
    try:
        return time.monotonic() + Seconds.parse(lasting)
    except ValueError as wrong:
        raise ConfigError([f"--for: {wrong}"]) from None


def _events(api: "Api", last: str | None, deadline: float | None) -> "Iterator[tuple[str, dict[str, Any]]]":
    """States and gaps, until the deadline. Raises `NoAnswerError` when there was nobody from the start."""
    import json
    import math
    import time

    from sidecar.asking import NoAnswerError
    from sidecar.commands.outcomes import EX_UNREACHABLE, ProblemError
    from sidecar.sse import Parser

    def left() -> float:
        return math.inf if deadline is None else deadline - time.monotonic()

    was_there = last is not None
    while left() > 0:
        headers = {"Accept": "text/event-stream"} | ({} if last is None else {"Last-Event-ID": last})
        try:
            parser = Parser()
            for chunk in api.stream("/v1/watch", lambda: min(left(), SILENCE_SECONDS), headers):
                for event in parser.feed(chunk):
                    if event.kind in ("state", "gap"):
                        was_there, last = True, event.id or last
                        yield event.kind, json.loads(event.data)
                if left() <= 0:
                    return
            reason = "the sidecar ended it"
        except NoAnswerError as lost:
            if not was_there:
                raise
            reason = f"{api.url} {lost}"
        except ProblemError as problem:
            if not was_there or problem.exit_code != EX_UNREACHABLE:
                raise
            reason = str(problem)
        if left() > 0:
            print(style(f"fsm-sidecar: {clean(reason)}; trying again", "dim", sys.stderr), file=sys.stderr, flush=True)
            time.sleep(max(0.0, min(left(), _AGAIN_SECONDS)))


def _tell(data: dict[str, Any], shown: str | None) -> None:
    """`shown`: the state before. An update has no arrow."""
    snapshot = data["snapshot"]
    state = style(clean(snapshot["state"]), "bold")
    before = snapshot["prev_state"] if shown not in (None, snapshot["state"]) else None
    move = f"{clean(before)} → {state}" if before else state
    numbers = style(f"{clock(snapshot['ts_wall'])}  r{data['revision']} v{snapshot['version']}", "dim")
    by = style(clean(snapshot["source_module"]), "cyan")
    print(f"{numbers}  {move}  {by}  {clean(snapshot['reason'])}".rstrip(), flush=True)


def _tell_gap(data: dict[str, Any]) -> None:
    told = f"gap: {data['skipped']} revisions before r{data['revision']} are passed over ({clean(str(data['reason']))})"
    print(style(told, "yellow"), flush=True)
