"""A second writer that is too slow: what it writes is based on a state that it read some seconds ago."""

from enum import Enum
from typing import NamedTuple

from demo.api import Api, ConflictError, IllegalTransitionError, Stored
from demo.progress import Progress
from demo.story import Story

NAME = "old-planner"


class Check(Enum):
    """What it asks the sidecar to check before its write is applied."""

    IF_MATCH = "the ETag that it read"
    ENFORCE_VERSION = "a newer version"
    NOTHING = "nothing"


class Plan(NamedTuple):
    """What it makes of a state read at one time of the flight, and writes at another. Times in seconds of the flight."""

    read_at: float
    write_at: float
    state: str
    reason: str
    check: Check = Check.IF_MATCH


PLANS = (
    Plan(5, 9, "AUTO_MISSION", "begin the survey"),
    Plan(14, 18, "ORBIT", "look around while we wait"),
    Plan(21.4, 24, "AUTO_MISSION", "begin the survey, finally", Check.ENFORCE_VERSION),
    Plan(25, 26, "AUTO_TAKEOFF", "once more", Check.NOTHING),
)
"""The first three come too late. The last one cannot, and asks for what the machine does not allow on the way home."""


class OldPlanner:
    """Follows its plans while the flight goes on, and tells how they end."""

    def __init__(self, api: Api, story: Story, flight: Progress) -> None:
        self._api = api
        self._story = story
        self._flight = flight

    async def plan(self) -> None:
        for plan in PLANS:
            await self._flight.reach(plan.read_at)
            read = await self._api.get_state()
            await self._flight.reach(plan.write_at)
            await self._carry_out(plan, read)

    async def _carry_out(self, plan: Plan, read: Stored) -> None:
        snapshot = {"state": plan.state, "reason": plan.reason, "source_module": NAME}
        try:
            match plan.check:
                case Check.IF_MATCH:
                    await self._api.put_state(snapshot, if_match=read.etag)
                case Check.ENFORCE_VERSION:
                    await self._api.put_newer_state({**snapshot, "version": read.version + 1})
                case Check.NOTHING:
                    await self._api.post_transition(plan.state, reason=plan.reason, source_module=NAME)
        except ConflictError as conflict:
            self._story.conflict(snapshot, conflict.problem)
        except IllegalTransitionError as illegal:
            self._story.illegal(NAME, illegal.problem)
