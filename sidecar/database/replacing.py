"""One journal in place of another, by one rename: killed at any step, the old one is there or the new one.

The new one first gets the name `<journal>.restored`: that is the step. Who opens the journal next finishes the work, if
the process that began it did not: the old files are kept under another name, then the new one takes its place. With the
old file in its place, the new one would get the old write-ahead log; with the old mark, it would be refused.
"""

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from sidecar.database.schema import sync

_FILES = ("", "-wal", "-shm", "-journal", ".hwm")


def prepared_path(path: Path) -> Path:
    """Where the new journal is made; what is there when nobody makes one was given up halfway."""
    return path.with_name(f"{path.name}.restoring")


def replacement_path(path: Path) -> Path:
    """Where the new journal waits for its place."""
    return path.with_name(f"{path.name}.restored")


def replace(path: Path) -> list[Path]:
    """Put what is prepared in place of the journal at `path`. Returns the names under which the old files are kept."""
    os.rename(prepared_path(path), replacement_path(path))
    sync(path.parent)
    return finish_replacing(path)


def finish_replacing(path: Path) -> list[Path]:
    """Finish what was begun, if it was; throw away what did not get that far. For whoever holds the journal."""
    give_up_replacing(path)
    new = replacement_path(path)
    if not new.exists():
        return []
    kept = set_aside(path, "replaced", new.stat().st_mtime, _FILES)
    os.rename(new, path)
    sync(path.parent)
    return kept


def give_up_replacing(path: Path) -> None:
    """Throw away what was prepared and not put in place."""
    for suffix in _FILES:
        Path(f"{prepared_path(path)}{suffix}").unlink(missing_ok=True)


def set_aside(path: Path, word: str, at: float, suffixes: Iterable[str]) -> list[Path]:
    """Keep the journal's files under another name, durably: somebody may still get something out of them."""
    kept = []
    stamp = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(at))}.{int(at * 1000) % 1000:03}Z"
    for suffix in suffixes:
        name = Path(f"{path}.{word}-{stamp}{suffix}")
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", name)
            kept.append(name)
    sync(path.parent)
    return kept
