"""Watches the config file: whether the next start would succeed with it, and whether it would change something.

A file that went bad is found out here, and not by the restart at night.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable

import structlog

from sidecar.config import Config, effective
from sidecar.errors import ConfigError

LOOK_SECONDS = 15.0

_log = structlog.get_logger("config")


class ConfigWatch:
    """Compares the file with what is in force. `load` reads it again, and raises `ConfigError`; None: there is no file."""

    def __init__(self, in_force: Config, load: Callable[[], Config] | None) -> None:
        self._load = load
        self._in_force = in_force
        self._problems: tuple[str, ...] = ()
        self.changed = False
        self.loaded_at = time.time()
        self.hash = _hash(in_force)

    @property
    def valid(self) -> bool:
        """Whether the file, as it was at the last look, can be loaded."""
        return not self._problems

    async def run(self, look_seconds: float = LOOK_SECONDS) -> None:
        """The core task; runs until cancelled."""
        while True:
            await asyncio.sleep(look_seconds)
            if self._load:
                await self._look(self._load)

    async def _look(self, load: Callable[[], Config]) -> None:
        try:
            found = await asyncio.to_thread(load)
        except ConfigError as error:
            self._tell(error.problems, changed=True)
        else:
            self._tell((), changed=found != self._in_force)

    def _tell(self, problems: tuple[str, ...], *, changed: bool) -> None:
        """Note it, and write a line when it is news."""
        if problems and problems != self._problems:
            _log.warning(
                "config_file_invalid", problems=problems, note="in force stays what was loaded; the next start would fail"
            )
        elif not problems and (changed, self.valid) != (self.changed, True):
            note = "restart to bring it into force" if changed else "it is what is in force"
            _log.info("config_file_valid", changed=changed, note=note)
        self._problems, self.changed = problems, changed


def _hash(settings: Config) -> int:
    """The configuration as a number that a float keeps exactly."""
    return int.from_bytes(hashlib.sha256(effective(settings).encode()).digest()[:6])
