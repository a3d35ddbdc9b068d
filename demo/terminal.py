"""Lines that flow: columns that stay in place, colour where somebody looks, none where a file or a pipe does."""

import os
import shutil
import signal
import textwrap
from io import TextIOWrapper
from typing import TextIO

BOLD, DIM, RED, GREEN, YELLOW, MAGENTA, CYAN = "1", "2", "31", "32", "33", "35", "36"

WIDEST = 110
NARROWEST = 80
INDENT = 33
"""Where the text of an event begins, after its time, its kind and its subject."""
FIGURES = 25
"""So wide are the numbers at the end of an event."""


class Terminal:
    """Writes to `out`, with ? for what its encoding lacks. Colours follow https://no-color.org."""

    def __init__(self, out: TextIO) -> None:
        if isinstance(out, TextIOWrapper):
            out.reconfigure(errors="replace")
        self._out = out
        self._colour = out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._width = max(NARROWEST, min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST))
        self._text_width = min(28, self._width - INDENT - FIGURES)

    def paint(self, text: str, *styles: str) -> str:
        return f"\x1b[{';'.join(styles)}m{text}\x1b[0m" if self._colour and styles else text

    def write(self, text: str = "") -> None:
        """One line, at once. When nobody reads any more, ask this process to stop."""
        try:
            print(text, file=self._out, flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
            signal.raise_signal(signal.SIGTERM)

    def heading(self, text: str) -> None:
        self.write(f"\n{self.paint(text, BOLD)}\n")

    def term(self, name: str, text: str, *, width: int = 12) -> None:
        """A name and what it is, wrapped beside it."""
        first, *rest = self._wrap(text, width + 3)
        self.write(f"  {self.paint(f'{name:<{width}}', CYAN)} {first}")
        for line in rest:
            self.write(line)

    def header(self) -> None:
        """The heads of the columns that `figures` and `event` fill."""
        left = self._left("seconds", "event", "state or who") + " " * self._text_width
        self.write(self.paint(f"{left}{'version':>7} {'revision':>8} {'delay':>8}", DIM))

    def figures(
        self, seconds: float, kind: str, subject: str, text: str, version: int, revision: int, delay: float, *styles: str
    ) -> None:
        """An event with its numbers on the right. `delay` in seconds."""
        left = self._left(f"{seconds:.2f}", kind, subject) + f"{text:<{self._text_width}}"
        self.write(self.paint(f"{left}{version:>7} {revision:>8} {delay * 1000:>5.1f} ms", *styles))

    def event(self, seconds: float, kind: str, subject: str, text: str, *styles: str) -> None:
        """An event in words, as many lines as it takes."""
        first, *rest = self._wrap(text, INDENT)
        self.write(self.paint(self._left(f"{seconds:.2f}", kind, subject) + first, *styles))
        for line in rest:
            self.write(self.paint(line, *styles))

    def _left(self, seconds: str, kind: str, subject: str) -> str:
        return f"{seconds:>7} {kind:<10} {subject:<13} "

    def _wrap(self, text: str, indent: int) -> list[str]:
        """The text in lines. All but the first are indented."""
        first, *rest = textwrap.wrap(text, self._width - indent, break_on_hyphens=False) or [""]
        return [first, *(" " * indent + line for line in rest)]
