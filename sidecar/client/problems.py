"""The API's problems as the errors that the store raises, and those that only a client knows."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sidecar.api.problems import MEANINGS
from sidecar.conflicts import Expectation
from sidecar.errors import (
    Holder,
    IllegalTransitionError,
    InvalidError,
    InvalidSnapshotError,
    Standing,
    StateStoreError,
    StateVersionError,
)


class UnavailableError(StateStoreError):
    """The sidecar cannot be reached, or gave no usable answer in time. A write with `outcome` `unknown` may count or not;
    with `not-applied` it does not."""

    def __init__(self, detail: str, *, outcome: str) -> None:
        super().__init__(detail)
        self.outcome = outcome


class RefusedError(StateStoreError):
    """The sidecar, or something before it, refuses for a reason that the store does not know. Nothing is changed."""

    def __init__(self, detail: str, *, status: int, type: str) -> None:
        super().__init__(detail)
        self.status = status
        self.type = type


class Problem(msgspec.Struct, frozen=True):
    """What an error answer carries; the members depend on `type`."""

    type: str = "unknown"
    title: str = ""
    status: int = 0
    detail: str = ""
    expected: Expectation = Expectation()
    current: Standing = Standing("")
    state: str = ""
    to: str = ""
    allowed: tuple[str, ...] = ()
    limit: int = 0
    oldest: int = 1
    path: str = "$"
    rule: str = ""
    scope: str = ""
    holder: Holder | None = None


_KINDS = {meaning.type: (kind, meaning.carries) for kind, meaning in MEANINGS.items() if issubclass(kind, StateStoreError)}

_BUILDERS: dict[type[StateStoreError], Callable[[Any, Problem], StateStoreError]] = {
    StateVersionError: lambda kind, given: kind(given.detail, expected=given.expected, current=given.current),
    IllegalTransitionError: lambda kind, given: kind(state=given.state, to=given.to, allowed=given.allowed),
    InvalidError: lambda kind, given: InvalidSnapshotError(given.detail, path=given.path),
}

_decode = msgspec.json.Decoder(Problem).decode


def problem_in(status: int, body: bytes) -> Problem:
    """The problem in an answer; one that says nothing more than its status where there is none."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Problem(status=status, detail=f"answered {status}, and not as a sidecar does")


def error_of(status: int, problem: Problem) -> StateStoreError:
    """The error that the store raises for it; `RefusedError` for what it does not know."""
    if problem.type not in _KINDS:
        return RefusedError(problem.detail or problem.title, status=status, type=problem.type)
    kind, carries = _KINDS[problem.type]
    build = next((_BUILDERS[base] for base in kind.__mro__ if base in _BUILDERS), None)
    return build(kind, problem) if build else _remade(kind, carries, problem)


def _remade(kind: type[StateStoreError], carries: Sequence[str], given: Problem) -> StateStoreError:
    """The error as it was raised, but for what the API does not carry: its words are made already."""
    error = kind.__new__(kind, given.detail)
    for name in carries:
        setattr(error, name, getattr(given, name, None))
    return error
