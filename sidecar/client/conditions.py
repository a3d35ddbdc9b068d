"""What a write expects of the current state, as a header of HTTP."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from sidecar.client.states import MetaAnswer
from sidecar.conflicts import NO_VERSION, Expectation, tag
from sidecar.errors import Standing, StateStoreError, StateVersionError

Look = Callable[[], Awaitable[MetaAnswer]]


class Condition(NamedTuple):
    """The headers; and, where these only stand for what is expected, the current state that they name."""

    headers: dict[str, str]
    stands_on: Standing | None = None

    def fails_by_chance(self, lost: StateVersionError) -> bool:
        """Whether somebody only wrote between the look and the write: that says nothing about what is expected."""
        seen = self.stands_on
        return seen is not None and (seen.epoch, seen.version) != (lost.current.epoch, lost.current.version)


ANYTHING = Condition({})


async def condition_of(expected: Expectation | None, epoch: str | None, look: Look) -> Condition:
    """The condition for an expectation. `epoch`: of the journal that was read last. Raises `StateVersionError`.

    What no header can say (a state, an older version, an epoch alone) is compared with what `look` gives.
    """
    if expected is None:
        return ANYTHING
    if expected == Expectation():
        return Condition({"If-Match": "*"})
    if expected == Expectation(NO_VERSION):
        return Condition({"If-None-Match": "*"})
    version = expected.version
    if version is None or version < 0 or expected.below is not None or expected.state is not None:
        return _compared(expected, await look())
    return _matching(expected.epoch or epoch or (await look()).epoch, version)


def split_state(expected: Sequence[Expectation]) -> tuple[str | None, Expectation | None]:
    """The state that a transition is to leave, and what else is expected. Raises `StateStoreError` for more than that."""
    states = [each.state for each in expected if each.state is not None and each == Expectation(state=each.state)]
    others = [each for each in expected if each.state is None or each != Expectation(state=each.state)]
    if len(states) > 1 or len(others) > 1:
        raise StateStoreError("a transition takes one expectation of a state and another one; put what you expect into these")
    return next(iter(states), None), next(iter(others), None)


def _matching(epoch: str, version: int) -> Condition:
    return Condition({"If-Match": f'"{epoch}-{version}"'})


def _compared(expected: Expectation, found: MetaAnswer) -> Condition:
    document = found.snapshot
    if document is None:
        current, headers = Standing(found.epoch), {"If-None-Match": "*"}
    else:
        current = Standing(found.epoch, document.version, document.state, document.source_module, document.ts_wall)
        headers = _matching(found.epoch, document.version).headers
    if expected.broken_by(found.epoch, document):
        stands = (
            f"the current version is {tag(current.epoch, current.version)}: {current.state}"
            if document
            else "there is no state yet"
        )
        raise StateVersionError(f"expected {expected}, but {stands}", expected=expected, current=current)
    return Condition(headers, current)
