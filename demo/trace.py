"""The flight: what a PX4 autopilot's commander published, message for message."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PATH = Path(__file__).with_name("px4-takeoff-loiter-rtl.jsonl")


class Message(NamedTuple):
    """One message. `seconds` since the flight log began; `changed` names what differs from the message before."""

    seconds: float
    topic: str
    nav_state: str
    arming_state: str
    landed: bool
    failsafe: bool
    changed: list[str]


def read_trace(path: Path = PATH) -> list[Message]:
    """The messages in time order, from the first one on that knows the navigation state."""
    return list(_messages(path))


def _messages(path: Path) -> Iterator[Message]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            fields = json.loads(line)
            if "nav_state" in fields:
                yield Message(seconds=fields.pop("t"), **fields)
