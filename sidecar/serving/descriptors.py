"""File descriptors: how many there may be, how many there are."""

import os
import resource
import time

import structlog

_FOLDER = "/dev/fd"
_KEPT_SECONDS = 1.0

_log = structlog.get_logger("serving")


def connections_within(wanted: int, reserved: int) -> int:
    """How many connections the descriptors allow, besides `reserved` for everything else: `wanted`, or fewer with a warning.

    Raises the soft limit to the hard one where that helps.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + reserved
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    soft = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft >= needed:
        return wanted
    allowed = max(1, soft - reserved)
    _log.warning("few_descriptors", limit=soft, needed=needed, connections=allowed, note="raise `ulimit -n` to allow more")
    return allowed


class Descriptors:
    """What is in use, looked at once a second at most."""

    def __init__(self) -> None:
        self._looked_at = -_KEPT_SECONDS
        self._share = 0.0

    def share(self) -> float:
        """The share of the limit that is in use, 0 to 1."""
        now = time.monotonic()
        if now - self._looked_at >= _KEPT_SECONDS:
            self._looked_at, self._share = now, _share()
        return self._share


def _share() -> float:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return 0.0
    try:
        return len(os.listdir(_FOLDER)) / limit
    except OSError:  # not even this one could be opened
        return 1.0
