"""What people read: colour where it can be seen, aligned columns, times. Text of others never steers the terminal."""

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}

Cell = tuple[str, str] | str
"""A text, perhaps with a style."""


def style(text: str, name: str, stream: TextIO | None = None) -> str:
    """In this style, if the stream (default: standard output) is a terminal and nobody has asked for none (NO_COLOR)."""
    stream = stream or sys.stdout
    if not name or not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_CODES[name]}m{text}\x1b[0m"


def clean(text: str) -> str:
    """Without what a terminal would take for a command."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in text)


def shown(text: str) -> str:
    """As `clean` on a terminal; a script gets it as it is."""
    return clean(text) if sys.stdout.isatty() else text


def table(rows: Sequence[Sequence[Cell]], header: Sequence[str] = (), *, none: str = "") -> None:
    """Print rows in columns as wide as their widest text; without rows, what `none` says of that."""
    if not rows:
        print(none)
        return
    lines: list[list[tuple[str, str]]] = [[(name, "dim") for name in header]] if header else []
    lines += [[(clean(cell), "") if isinstance(cell, str) else (clean(cell[0]), cell[1]) for cell in row] for row in rows]
    widths = [max(len(text) for text, _ in column) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = [style(text, name) + " " * (width - len(text)) for (text, name), width in zip(line, widths, strict=True)]
        print("  ".join(padded).rstrip())


def moment(seconds: float) -> str:
    """A time of the Unix epoch, in this machine's zone."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(sep=" ", timespec="milliseconds")


def clock(seconds: float) -> str:
    """The time of day, in this machine's zone."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]


def ago(seconds: float) -> str:
    """How long ago, roughly."""
    if seconds < 1:
        return "now"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def brief(value: Any) -> str:
    """A JSON value on one line; a text as it is."""
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
