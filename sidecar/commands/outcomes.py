"""How a command ends: exit codes by outcome, and what a refusal looks like."""

import os
import sys
from typing import Any

from sidecar.asking import NoAnswerError
from sidecar.commands.terminal import clean, moment, style

EX_NO = 1
"""The answer is no: unhealthy, not found, not delivered, not reached or acknowledged in time."""
EX_CONFLICT = 3
"""Another write came first."""
EX_REFUSED = 4
"""The request is refused: an illegal transition, a wrong value, another one is the writer, no permission, no room."""
EX_UNREACHABLE = os.EX_UNAVAILABLE
"""Nobody answers, or the sidecar cannot serve now."""

_CONFLICTS = frozenset(("version-conflict", "already-exists"))
_NOT_FOUND = frozenset(("no-state", "unknown-subscriber", "no-journal-file"))
_HINTS = {
    "version-conflict": "read it again with `fsm-sidecar state get`, and decide anew",
    "already-exists": "leave out --if-none to replace it",
    "precondition-required": "add --if-version, --if-match or --if-none",
    "unauthorized": "name a file with a token: --token-file, or FSM_SIDECAR_TOKEN_FILE",
    "fenced": "leave writing to the holder; or take the lease with `fsm-sidecar writer take`, and show its --writer-token",
    "writer-held": "wait until its lease is over, or take it over with --takeover",
    "forbidden": "use a token that has this scope",
    "subscriber-limit": "remove one with `fsm-sidecar subscribers remove`, or raise store.max_subscribers",
    "unknown-subscriber": "`fsm-sidecar subscribers list` has those that are known",
    "no-state": "write one with `fsm-sidecar state set`",
}


class ProblemError(Exception):
    """The sidecar answers with a problem (RFC 9457)."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail") or f"answered {status}")
        self.status = status
        self.problem = problem

    @property
    def exit_code(self) -> int:
        kind = str(self.problem.get("type"))
        if kind in _CONFLICTS:
            return EX_CONFLICT
        if kind in _NOT_FOUND:
            return EX_NO
        return EX_UNREACHABLE if self.status == 429 or (self.status >= 500 and self.status != 507) else EX_REFUSED


def tell_problem(error: ProblemError) -> int:
    """Say on standard error what is wrong and what to do. Gives the exit code."""
    problem = error.problem
    title = clean(str(problem.get("title") or "The sidecar refuses"))
    where = f"{problem['path']}: " if "path" in problem else ""
    lines = [f"fsm-sidecar: {style(title, 'red', sys.stderr)}", f"  {clean(f'{where}{error}')}"]
    if holder := problem.get("holder"):
        lines.append(f"  the writer is {clean(str(holder['name']))}, until {moment(holder['expires_at'])}")
    hint = _HINTS.get(str(problem.get("type")))
    if problem.get("outcome") == "unknown":
        hint = "it may count or not: look with `fsm-sidecar state get`, or send it again with the same --key"
    if hint:
        lines.append(f"  {hint}")
    print(*lines, sep="\n", file=sys.stderr)
    return error.exit_code


def tell_stranger(error: Exception) -> int:
    """Say on standard error that the answer was none of a sidecar. Gives the exit code."""
    print("fsm-sidecar: it answers, but not as a sidecar of this version does", file=sys.stderr)
    print(f"  {clean(repr(error))[:200]}", file=sys.stderr)
    return EX_REFUSED


def tell_no_answer(url: str, error: NoAnswerError, *, writes: bool) -> int:
    """Say on standard error that there is no answer. Gives the exit code."""
    print(f"fsm-sidecar: {clean(f'{url} {error}')}", file=sys.stderr)
    if writes and error.sent:
        print("  it may count or not: look with `fsm-sidecar state get`, or send it again with the same --key", file=sys.stderr)
    elif not error.reached:
        print("  is it running? --url, FSM_SIDECAR_URL or --config says where", file=sys.stderr)
    return EX_UNREACHABLE
