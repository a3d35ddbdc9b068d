"""The hash chain over the journal's rows: each row's link covers its content and, through the link before it, all before."""

import hashlib
import sqlite3
import struct
from collections.abc import Iterator
from typing import NamedTuple

START = bytes(32)
"""What the first row of a new journal is linked to."""

_place = struct.Struct(">Qd").pack
_sha256 = hashlib.sha256
_PAGE_ROWS = 1000


def link(before: bytes, revision: int, appended_at: float, document: bytes) -> bytes:
    """The link of a row: SHA-256 over the link before it, revision and time (big-endian u64 and double), document."""
    return _sha256(before + _place(revision, appended_at) + document).digest()


class Row(NamedTuple):
    """One row as it was found. `whole`: its link is what its content says."""

    revision: int
    chain: bytes
    length: int
    whole: bool


def walk(connection: sqlite3.Connection, anchor: bytes) -> Iterator[Row]:
    """Every row, oldest first, each checked against the link that the row before it has. Raises what SQLite finds damaged."""
    before = anchor
    rows = connection.execute("SELECT revision, appended_at, document, chain FROM journal ORDER BY revision")
    for revision, appended_at, document, chain in rows:
        whole = link(before, revision, appended_at, document) == chain
        yield Row(revision, chain, len(document), whole)
        before = chain


def relink(connection: sqlite3.Connection, anchor: bytes) -> None:
    """Give every row the link that follows from the rows before it."""
    before, after = anchor, 0
    page = "SELECT revision, appended_at, document FROM journal WHERE revision > ? ORDER BY revision LIMIT ?"
    while rows := connection.execute(page, (after, _PAGE_ROWS)).fetchall():
        links = []
        for revision, appended_at, document in rows:
            before = link(before, revision, appended_at, document)
            links.append((before, revision))
        connection.executemany("UPDATE journal SET chain = ? WHERE revision = ?", links)
        after = rows[-1][0]
