"""The high-water mark: how far the journal had got, in a small file beside it.

A write-ahead log that is cut or lost leaves a database that is whole, and short: only somebody outside of it can tell. The
mark is written in place after each commit and synced only at checkpoints: so it may lag behind the journal, and never leads it.
"""

import contextlib
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

_RECORD = struct.Struct(">8s16sQ32s?")
_CHECKSUM = struct.Struct(">I")
_MAGIC = b"fsm-hwm1"


class Mark(NamedTuple):
    """The newest durable revision of the journal `epoch`, with its link. `in_use`: a process has the journal open, or died."""

    epoch: str
    head: int
    chain: bytes
    in_use: bool = True


def mark_path(path: Path) -> Path:
    """Where the mark of the journal at `path` is."""
    return path.with_name(f"{path.name}.hwm")


def read_mark(path: Path) -> Mark | None:
    """The mark of the journal at `path`, or None where there is none that can be read: one torn by a power cut says nothing."""
    with contextlib.suppress(FileNotFoundError, struct.error):
        content = mark_path(path).read_bytes()
        record, (checksum,) = content[: _RECORD.size], _CHECKSUM.unpack(content[_RECORD.size :])
        magic, epoch, head, chain, in_use = _RECORD.unpack(record)
        if magic == _MAGIC and checksum == zlib.crc32(record):
            return Mark(epoch.rstrip(b"\0").decode("ascii"), head, chain, in_use)
    return None


class MarkFile:
    """The open file of a mark; for the writer thread alone."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(mark_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, mark: Mark) -> None:
        """Replace the mark, in one small write: what tears it is at most the end of a power supply."""
        record = _RECORD.pack(_MAGIC, mark.epoch.encode(), mark.head, mark.chain, mark.in_use)
        os.pwrite(self._file, record + _CHECKSUM.pack(zlib.crc32(record)), 0)

    def sync(self) -> None:
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)
