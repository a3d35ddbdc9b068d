"""The show: everything is started, the flight is flown, its end is summed up, and everything is stopped."""

import argparse
import asyncio
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp

from demo import commander, config_file, guide, old_planner
from demo.api import Api
from demo.commander import Commander
from demo.errors import DemoError
from demo.old_planner import OldPlanner
from demo.progress import Progress
from demo.receiver import Receiver, receiving
from demo.scrape import scrape
from demo.sidecar_process import SidecarProcess, start_sidecar
from demo.story import Story
from demo.summary import Summary
from demo.terminal import BOLD, GREEN, RED, Terminal
from demo.trace import PATH, read_trace

SPEED = 4.0
SPEED_ONCE = 10.0
MAX_SPEED = 100.0
SETTLE_SECONDS = 10.0
"""After the flight, so long for the last delivery and for the dead subscriber's eviction."""

INTERRUPTED = 130
"""The exit code of what Ctrl-C has ended (128 + SIGINT)."""

CONSOLE, ATTIC = "console", "attic"


def main() -> int:
    """Run the demo; returns the exit code."""
    options = _options()
    code = asyncio.run(_until_interrupted(options))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is stopped; nothing is left to interrupt
    return code


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo", description="A real PX4 flight through a real sidecar. With make: make demo ARGS='--speed 1'."
    )
    parser.add_argument("--speed", type=_speed, metavar="N", help=f"N times as fast as flown (default: {SPEED:g})")
    parser.add_argument("--once", action="store_true", help=f"end after the flight; {SPEED_ONCE:g} times as fast by default")
    options = parser.parse_args()
    options.speed = options.speed or (SPEED_ONCE if options.once else SPEED)
    return options


def _speed(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) <= MAX_SPEED:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number above 0, at most {MAX_SPEED:g}, got {text}")


async def _until_interrupted(options: argparse.Namespace) -> int:
    """Run the show as a task that a signal cancels. A second signal cancels also the orderly stop."""
    loop = asyncio.get_running_loop()
    show = Show(Terminal(sys.stdout), speed=options.speed, once=options.once)
    task = asyncio.create_task(show.run(), name="show")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task
    return show.exit_code


class Show:
    """One run of the demo. `exit_code` is known when `run` has ended, however it ended."""

    def __init__(self, terminal: Terminal, *, speed: float, once: bool) -> None:
        self._terminal = terminal
        self._speed = speed
        self._once = once
        self._finished = False
        self._failed = False

    @property
    def exit_code(self) -> int:
        if self._failed:
            return 1
        return 0 if self._finished else INTERRUPTED

    async def run(self) -> None:
        try:
            with TemporaryDirectory(prefix="fsm-sidecar-demo-") as folder:
                await self._on_stage(Path(folder))
        except* DemoError as failed:
            for error in _leaves(failed):
                self._fail(str(error), *error.lines)

    async def _on_stage(self, folder: Path) -> None:
        """Start all, show all, and stop the sidecar while there is still somebody to deliver to."""
        story = Story(self._terminal, tells_of=(commander.NAME, old_planner.NAME))
        async with receiving(story.delivery) as receiver, aiohttp.ClientSession() as session:
            sidecar = await start_sidecar(self._config(folder), folder, story.log)
            try:
                api = Api(session, sidecar.api_url)
                with _port_without_listener() as dead_url:
                    self._introduce(sidecar, receiver, dead_url)
                    receiver.trust(await api.register(CONSOLE, receiver.url))
                    await api.register(ATTIC, dead_url)
                    await self._fly(api, story)
                    await self._conclude(api, story, receiver, session, sidecar)
            finally:
                await self._stop(sidecar)

    def _config(self, folder: Path) -> Path:
        if self._once:
            return config_file.with_free_ports(folder)
        taken = config_file.taken_ports()
        if not taken:
            return config_file.PATH
        self._terminal.write(f"Port {' and '.join(map(str, taken))} is taken: this run chooses free ones.")
        return config_file.with_free_ports(folder)

    def _introduce(self, sidecar: SidecarProcess, receiver: Receiver, dead_url: str) -> None:
        tell = self._terminal.term
        self._terminal.heading(f"A flight of a PX4 autopilot, {self._speed:g} × as fast as it was flown")
        tell("sidecar", f"process {sidecar.pid}: API at {sidecar.api_url}, probes and metrics at {sidecar.ops_url}")
        tell(commander.NAME, f"the agent: writes each message of {PATH.name} on the ETag of its last write")
        tell(old_planner.NAME, "a second writer, too slow: what it writes is based on what it read seconds ago")
        tell(CONSOLE, f"a webhook subscriber at {receiver.url}: verifies each signature")
        tell(ATTIC, f"a webhook subscriber at {dead_url}, where nobody listens any more")
        self._terminal.write()

    async def _fly(self, api: Api, story: Story) -> None:
        flight = Progress()
        story.begin()
        async with asyncio.TaskGroup() as pilots:
            pilots.create_task(Commander(api, story, flight).fly(read_trace(), self._speed), name=commander.NAME)
            pilots.create_task(OldPlanner(api, story, flight).plan(), name=old_planner.NAME)

    async def _conclude(
        self, api: Api, story: Story, receiver: Receiver, session: aiohttp.ClientSession, sidecar: SidecarProcess
    ) -> None:
        """Sum up, and unless it is to end by itself stay until Ctrl-C."""
        state = await api.get_state()
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                await receiver.revision.reach(state.revision)
                await story.evicted.wait()
        story.flush()
        summary = Summary(state, await scrape(session, sidecar.ops_url), sidecar.journal)
        self._sum_up(summary, received=receiver.revision.value)
        guide.show(self._terminal, sidecar.api_url, sidecar.ops_url, state, stays=not self._once)
        if not self._once:
            await sidecar.until_ended()

    def _sum_up(self, summary: Summary, *, received: float) -> None:
        self._terminal.heading("Landed. What the sidecar says about it, in GET /v1/state and /metrics:")
        for name, text in summary.lines():
            self._terminal.term(name, text)
        if self._once:
            for promise in summary.missing(landed_in=read_trace()[-1].nav_state, received=received):
                self._fail(f"this did not happen: {promise}")
        self._finished = True

    async def _stop(self, sidecar: SidecarProcess) -> None:
        if sidecar.exit_code is not None:
            self._fail(f"the sidecar ended by itself with exit code {sidecar.exit_code}; it said:", *sidecar.last_words)
            return
        began = time.perf_counter()
        try:
            await sidecar.stop()
        finally:
            self._tell_end(sidecar, time.perf_counter() - began)

    def _tell_end(self, sidecar: SidecarProcess, seconds: float) -> None:
        if sidecar.exit_code == 0:
            text = f"The sidecar got SIGTERM, and ended with exit code 0 after {seconds:.1f} s."
            self._terminal.write(f"\n{self._terminal.paint(text, BOLD, GREEN)}")
        elif sidecar.exit_code == -signal.SIGKILL:
            self._fail(f"the sidecar got SIGTERM, and was killed after {seconds:.1f} s, before it had ended in order")
        else:
            self._fail(f"the sidecar got SIGTERM, and ended with exit code {sidecar.exit_code}; it said:", *sidecar.last_words)

    def _fail(self, text: str, *lines: str) -> None:
        self._failed = True
        self._terminal.write(f"\n{self._terminal.paint(f'✗ {text}', BOLD, RED)}")
        for line in lines:
            self._terminal.write(f"  {line}")


@contextmanager
def _port_without_listener() -> Iterator[str]:
    """The URL of a port that is held, so that nobody else can come to listen on it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}/hook"


def _leaves(group: BaseExceptionGroup[DemoError]) -> Iterator[DemoError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
