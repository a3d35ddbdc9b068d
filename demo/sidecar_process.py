"""The sidecar as its user runs it: a process of its own, which is read, and stopped, from outside."""

import asyncio
import json
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from demo.errors import DemoError

START_SECONDS = 15.0
STOP_SECONDS = 10.0
LINE_BYTES = 1 << 20

LogEvent = dict[str, Any]


class SidecarProcess:
    """A running `python -m sidecar run`. Its log, JSON lines on standard error, is told on line by line."""

    def __init__(self, process: asyncio.subprocess.Process, tell: Callable[[LogEvent], None]) -> None:
        self.pid = process.pid
        self.api_url = self.ops_url = self.journal = ""
        self._process = process
        self._tell = tell
        self._ready = asyncio.Event()
        self._said: deque[str] = deque(maxlen=20)
        self._reading = asyncio.create_task(self._read_log(), name="sidecar log")

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.returncode

    async def until_ready(self) -> None:
        """Wait for the log line that says where it listens. Raises `DemoError` with what it said instead."""
        waiting = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({waiting, self._reading}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._ready.is_set():
            return
        if self._reading.done():
            raise DemoError(f"the sidecar ended with exit code {await self._process.wait()}; it said:", *self._said)
        raise DemoError(f"the sidecar is not ready after {START_SECONDS:.0f} s; it said:", *self._said)

    async def until_ended(self) -> None:
        """Wait for an end that nobody asked for."""
        await asyncio.wait({self._reading})
        await self._process.wait()

    @property
    def last_words(self) -> list[str]:
        """The newest lines of its log."""
        return list(self._said)

    async def stop(self) -> None:
        """SIGTERM, and wait. When that takes too long, or the wait is cancelled: SIGKILL."""
        try:
            with suppress(ProcessLookupError):
                self._process.terminate()
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            await self._reading

    async def _read_log(self) -> None:
        assert self._process.stderr
        async for line in self._process.stderr:
            text = line.decode(errors="replace").rstrip()
            self._said.append(text)
            try:
                event = json.loads(text)
            except ValueError:
                continue
            if isinstance(event, dict):
                self._take(event)

    def _take(self, event: LogEvent) -> None:
        if event.get("event") == "ready":
            self.api_url, self.ops_url = f"http://{event['api']}", f"http://{event['ops']}"
            self.journal = event["journal"]
            self._ready.set()
        self._tell(event)


async def start_sidecar(config: Path, folder: Path, tell: Callable[[LogEvent], None]) -> SidecarProcess:
    """Start it with `folder` as its working directory, and wait until it is ready. Raises `DemoError` when it is not.

    It gets a process group of its own: Ctrl-C reaches only the demo, which stops it in order.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", "run", "--config", str(config)),
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
        process_group=0,
    )
    sidecar = SidecarProcess(process, tell)
    try:
        await sidecar.until_ready()
    except BaseException:
        await sidecar.stop()
        raise
    return sidecar
