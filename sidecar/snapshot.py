"""The agent's state as values: states, transitions, snapshots, and how the next snapshot follows from the current one."""

import dataclasses
import os
import time
from enum import IntEnum
from typing import Any, Self

from sidecar.frozen import EMPTY, freeze


class FsmState(IntEnum):
    """The states of the default machine."""

    UNSPECIFIED = 0
    BOOTING = 1
    IDLE = 2
    ACTIVE = 3
    ERROR_STATE = 4
    SHUTDOWN = 5


class TransitionStatus(IntEnum):
    """How a transition ended."""

    UNSPECIFIED = 0
    SUCCESS = 1
    FAILED = 2
    PENDING = 3


@dataclasses.dataclass(frozen=True, slots=True)
class FsmTransition:
    """One move between two states. Times are seconds: `ts_mono` monotonic, `ts_wall` since the Unix epoch."""

    from_state: IntEnum
    to_state: IntEnum
    trigger_event: str
    status: TransitionStatus = TransitionStatus.SUCCESS
    error_message: str = ""
    ts_mono: float = 0.0
    ts_wall: float = 0.0

    def __post_init__(self) -> None:
        _fill_times(self)


@dataclasses.dataclass(frozen=True, slots=True)
class FsmSnapshot:
    """The agent's whole state document. Deeply read-only.

    `version` is the number writers compare. Times of 0 and empty ids are filled in: times in seconds, ids as UUIDs.
    `context_data` and `state_metadata` are JSON objects.
    """

    version: int
    state: IntEnum
    reason: str = ""
    ts_mono: float = 0.0
    ts_wall: float = 0.0
    snapshot_id: str = ""
    fsm_instance_id: str = ""
    prev_state: IntEnum | None = None
    source_module: str = "fsm_handler"
    attempt_count: int = 0
    history: tuple[FsmTransition, ...] = ()
    context_data: dict[str, Any] = EMPTY
    state_metadata: dict[str, Any] = EMPTY

    def __post_init__(self) -> None:
        fill = object.__setattr__
        _fill_times(self)
        if not self.snapshot_id:
            fill(self, "snapshot_id", new_uuid())
        if not self.fsm_instance_id:
            fill(self, "fsm_instance_id", new_uuid())
        fill(self, "history", tuple(self.history))
        fill(self, "context_data", freeze(self.context_data))
        fill(self, "state_metadata", freeze(self.state_metadata))

    def add_transition(self, transition: FsmTransition, max_history: int | None = None) -> Self:
        """This snapshot with one more transition; only the newest `max_history` are kept (default: all)."""
        history = (*self.history, transition)
        if max_history is not None:
            history = history[max(0, len(history) - max_history) :]
        return dataclasses.replace(self, history=history)


def _fill_times(value: FsmTransition | FsmSnapshot) -> None:
    if not value.ts_mono:
        object.__setattr__(value, "ts_mono", time.monotonic())
    if not value.ts_wall:
        object.__setattr__(value, "ts_wall", time.time())


def new_uuid() -> str:
    """A random UUID (RFC 9562, version 4). Its random bytes are fetched for many at once: every write pays for one."""
    try:
        digits = _random_digits.pop()
    except IndexError:
        fetched = os.urandom(16 * 64).hex()
        _random_digits.extend(fetched[place : place + 32] for place in range(32, len(fetched), 32))
        digits = fetched[:32]
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


_random_digits: list[str] = []
os.register_at_fork(after_in_child=_random_digits.clear)  # or parent and child would give out the same ones


def initial_snapshot(state: IntEnum = FsmState.BOOTING) -> FsmSnapshot:
    """The snapshot of an agent that has just been started: version 0."""
    return FsmSnapshot(version=0, state=state, reason="COLD_START", source_module="initial_boot")


def create_transition(
    from_state: IntEnum,
    to_state: IntEnum,
    trigger: str,
    status: TransitionStatus = TransitionStatus.SUCCESS,
    error_msg: str = "",
) -> FsmTransition:
    """A transition that happens now."""
    return FsmTransition(from_state, to_state, trigger, status, error_msg)


def next_snapshot(
    current: FsmSnapshot, new_state: IntEnum, reason: str, transition: FsmTransition | None = None
) -> FsmSnapshot:
    """The snapshot that follows `current`, made now.

    `version` and `attempt_count` grow by one, and `prev_state` becomes the state left behind, only when the state really
    changes. The instance stays the same; the snapshot's id is new. A given transition joins the history.
    """
    changed = new_state != current.state
    successor = dataclasses.replace(
        current,
        version=current.version + changed,
        attempt_count=current.attempt_count + changed,
        state=new_state,
        prev_state=current.state if changed else current.prev_state,
        reason=reason,
        snapshot_id="",
        ts_mono=0.0,
        ts_wall=0.0,
    )
    return successor.add_transition(transition) if transition else successor
