"""Follows the config file: what can change while the process runs is taken over, the rest waits for a restart.

A file that went bad changes nothing, and is found out here, and not by the restart at night.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import NamedTuple

import structlog

from sidecar.access import Holder
from sidecar.config import Config, differences, effective
from sidecar.dispatch.subscriber import Settings
from sidecar.errors import ConfigError
from sidecar.tasks import first_of

LOOK_SECONDS = 15.0

_log = structlog.get_logger("config")


class Loaded(NamedTuple):
    """A config file as it was found, with what its secret files hold: the settings of its subscribers by id, and the tokens.

    `certificates`: a digest of the files of TLS.
    """

    config: Config
    subscribers: list[tuple[str, Settings]]
    holders: tuple[Holder, ...] = ()
    certificates: bytes = b""


class ConfigWatch:
    """Looks at the file every 15 s, and when asked. `waiting`: the keys that only a restart brings into force.

    `load` reads it and raises `ConfigError`; None: there is no file. `apply` takes over what can be, and returns the
    configuration that is in force then.
    """

    def __init__(self, found: Loaded, load: Callable[[], Loaded] | None, apply: Callable[[Loaded], Config]) -> None:
        self._found = found
        self._load = load
        self._apply = apply
        self._asked = asyncio.Event()
        self._problems: tuple[str, ...] = ()
        self.in_force = found.config
        self.waiting: tuple[str, ...] = ()
        self.loaded_at = time.time()
        self.hash = _hash(found.config)

    @property
    def valid(self) -> bool:
        """Whether the file, as it was at the last look, can be loaded."""
        return not self._problems

    def ask(self) -> None:
        """Look now, and say what came of it."""
        self._asked.set()

    async def run(self, look_seconds: float = LOOK_SECONDS) -> None:
        """The core task; runs until cancelled."""
        while True:
            await first_of(self._asked, timeout_seconds=look_seconds)
            asked = self._asked.is_set()
            self._asked.clear()
            if self._load:
                await self._look(self._load, asked)
            elif asked:
                _log.info("config_unchanged", note="there is no config file; the defaults are in force")

    async def _look(self, load: Callable[[], Loaded], asked: bool) -> None:
        try:
            found = await asyncio.to_thread(load)
        except ConfigError as error:
            if asked or error.problems != self._problems:
                _log.warning(
                    "config_file_invalid",
                    problems=error.problems,
                    note="what was loaded stays in force; the next start would fail",
                )
            self._problems = error.problems
            return
        mended, self._problems = bool(self._problems), ()
        if found != self._found:
            self._take_over(found)
        elif asked or mended:
            _log.info("config_unchanged", needs_restart=self.waiting)

    def _take_over(self, found: Loaded) -> None:
        before, old = self.in_force, self._found
        self._found, self.in_force = found, self._apply(found)
        self.waiting = differences(self.in_force, found.config)
        self.loaded_at, self.hash = time.time(), _hash(self.in_force)
        applied = set(differences(before, self.in_force))
        if found.subscribers != old.subscribers:  # perhaps only by a secret, which the file does not show
            applied.add("subscribers")
        if found.holders != old.holders and "api.tokens" not in self.waiting:
            applied.add("api.tokens")
        if found.certificates != old.certificates and found.config.api.tls == self.in_force.api.tls:
            applied.add("api.tls")
        _log.info("config_reloaded", applied=sorted(applied), needs_restart=self.waiting)


def _hash(settings: Config) -> int:
    """The configuration as a number that a float keeps exactly."""
    return int.from_bytes(hashlib.sha256(effective(settings).encode()).digest()[:6])
