"""Tasks that have a name, an owner and a reported death, and the signals that ask the process to stop."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any


@asynccontextmanager
async def running(coroutine: Coroutine[Any, Any, None], *, name: str, crashed: "asyncio.Future[None]") -> AsyncIterator[None]:
    """Run a core task while the block runs. It has to be cancelled to end: any other end is put into `crashed`."""

    def report(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and not crashed.done():
            crashed.set_exception(task.exception() or RuntimeError(f"task {name} ended by itself"))

    task = asyncio.create_task(coroutine, name=name)
    task.add_done_callback(report)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@contextmanager
def on_signal(number: signal.Signals, callback: Callable[[], None]) -> Iterator[None]:
    """Call it on the running loop whenever the signal comes while the block runs."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(number, callback)
    try:
        yield
    finally:
        loop.remove_signal_handler(number)


class StopSignals:
    """SIGTERM and SIGINT: the first one asks to stop, the second one not to wait for anything."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()

    def receive(self) -> None:
        if self.asked.is_set():
            self.hurried.set()
        self.asked.set()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Listen while the block runs."""
        with on_signal(signal.SIGTERM, self.receive), on_signal(signal.SIGINT, self.receive):
            yield


async def first_of(*events: "asyncio.Event | asyncio.Future[Any]", timeout_seconds: float | None = None) -> None:
    """Return once one of them is set or done, or the time is over. A future's exception stays in it."""
    waits = [asyncio.ensure_future(event.wait()) if isinstance(event, asyncio.Event) else event for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait, event in zip(waits, events, strict=True):
            if wait is not event:
                wait.cancel()
