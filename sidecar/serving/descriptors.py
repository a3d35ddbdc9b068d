"""File descriptors: how many there may be, how many there are."""

import asyncio
import errno
import math
import os
import resource
import time
from typing import Any

import structlog

MOST = 0.9
"""With this share of them in use, no more requests should be sent here."""

_FOLDER = "/dev/fd"
_KEPT_SECONDS = 1.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE)

_log = structlog.get_logger("serving")


def connections_within(wanted: int, reserved: int) -> int:
    """How many connections the descriptors allow, besides `reserved` for everything else at its largest.

    That is `wanted`; or with a warning fewer, but a quarter of all descriptors at least. Raises the soft limit to the hard one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + reserved
    if soft == resource.RLIM_INFINITY:
        return wanted
    limit = max(soft, needed) if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    if limit >= needed:
        return wanted
    allowed = min(wanted, max(limit // 4, limit - reserved))
    _log.warning("few_descriptors", limit=limit, needed=needed, connections=allowed, note="raise `ulimit -n` to allow more")
    return allowed


class Descriptors:
    """What is in use, looked at once a second at most. That few are left, and that it is over, is a line in the log."""

    def __init__(self) -> None:
        self._looked_at = -math.inf
        self._share = 0.0

    def share(self) -> float:
        """The share of the limit that is in use, 0 to 1."""
        now = time.monotonic()
        if now - self._looked_at >= _KEPT_SECONDS:
            before, self._looked_at, self._share = self._share, now, _share()
            if (before >= MOST) != (self._share >= MOST):
                event = "descriptors_scarce" if self._share >= MOST else "descriptors_free_again"
                _log.warning(event, used=f"{self._share:.0%}")
        return self._share


def pass_over_exhaustion(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A loop's exception handler, without what asyncio tells each second while it cannot accept for want of descriptors."""
    error = context.get("exception")
    if not (isinstance(error, OSError) and error.errno in _EXHAUSTED and "socket" in context):
        loop.default_exception_handler(context)


def _share() -> float:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return 0.0
    try:
        return len(os.listdir(_FOLDER)) / limit
    except OSError:  # not even this one could be opened
        return 1.0
