"""Log lines: for people on a terminal, JSON elsewhere. One line for what matters, none per request."""

import asyncio
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

import structlog

LINES = dict.fromkeys(("debug", "info", "warning", "error", "critical"), 0)
"""How many lines this process has written, by level."""


def configure(*, level: str, format: str) -> None:
    """Set up logging to standard error. `format`: console, json, or auto (console on a terminal)."""
    console = format == "console" or (format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        _drop,
        _count,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _first_things_first,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(sort_keys=False) if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer],
        logger_factory=structlog.WriteLoggerFactory(_Unbreakable(sys.stderr)),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    logging.raiseExceptions = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
        )
    )
    logging.basicConfig(handlers=[handler], force=True)
    set_level(level)


def set_level(level: str) -> None:
    """From now on, write lines of this level and above. Libraries tell nothing below a warning."""
    _level.number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger().setLevel(max(logging.WARNING, _level.number))


class _Unbreakable:
    """A stream whose faults harm nobody: a log that cannot be written must not stop what it tells of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


class _Level:
    number = logging.INFO


_level = _Level()


def _drop(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if logging.getLevelNamesMapping()[event["level"].upper()] < _level.number:
        raise structlog.DropEvent
    return event


def _count(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if event["level"] in LINES:
        LINES[event["level"]] += 1
    return event


def _first_things_first(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """When, how grave and what, before the details."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return {**first, **event}


class Summarised:
    """A log line of which at most `per_second` are written a second; the rest of the second becomes one line that counts them.

    A line costs as much as the write that it tells of.
    """

    def __init__(self, write: Callable[..., Any], per_second: int = 50) -> None:
        self._write = write
        self._per_second = per_second
        self._written = 0
        self._left_out = 0
        self._event = ""
        self._last: dict[str, Any] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, event: str, **fields: Any) -> None:
        """Write the line, or count it. On the event loop only."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(1.0, self._next_second)
        if self._written < self._per_second:
            self._written += 1
            self._write(event, **fields)
        else:
            self._left_out += 1
            self._event, self._last = event, fields

    def flush(self) -> None:
        """Write the summary now: nothing more will come."""
        if self._timer:
            self._timer.cancel()
            self._next_second()

    def _next_second(self) -> None:
        if self._left_out:
            last = {f"last_{key}": value for key, value in self._last.items()}
            self._write(f"{self._event} (summary)", left_out=self._left_out, **last)
        self._written = self._left_out = 0
        self._timer = None
