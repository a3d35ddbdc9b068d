"""What the writers were told, what the journal's file holds, and what of it may not be."""

import hashlib
import json
import shutil
import sqlite3
import struct
from contextlib import closing
from itertools import pairwise
from typing import NamedTuple


class Write(NamedTuple):
    """A write as its writer knows it. `status` None: it was never answered. The version of a conflict is the winner's."""

    token: str
    etag: str | None = None
    status: int | None = None
    outcome: str | None = None
    revision: int | None = None
    version: int | None = None
    epoch: str | None = None

    @property
    def acknowledged(self):
        return self.status is not None and self.status < 300

    @property
    def unknown(self):
        """Whether it may have been applied, and may not. It may not when the answer was that it was not."""
        return self.status is None or self.outcome == "unknown"

    @property
    def rejected(self):
        return not self.acknowledged and not self.unknown

    @property
    def expected_version(self):
        return int(self.etag.strip('"').rpartition("-")[2]) if self.etag else None


class Row(NamedTuple):
    """A revision as the journal holds it. The token is the reason in its document."""

    revision: int
    version: int
    token: str


class Kept(NamedTuple):
    """What the journal's file holds."""

    epoch: str | None
    rows: list[Row]
    broken_links: list[str]


# --- reading ---


def writes_in(folder):
    """All writes of the ledgers in the folder, by their tokens. The last answer counts; those of `settled.ledger` come last."""
    writes = {}
    for path in sorted(folder.glob("*.ledger"), key=lambda path: path.stem == "settled"):
        for line in path.read_text().splitlines():
            kind, token, *rest = json.loads(line)
            if kind == "sent":
                writes.setdefault(token, Write(token, *rest))
            else:
                writes[token] = Write(token, writes[token].etag, *rest)
    return writes


def kept_in(path, folder):
    """What is in the journal at rest. A copy is read: looking at the file would do part of the sidecar's recovery for it."""
    folder.mkdir(exist_ok=True)
    copy = folder / "copy.db"
    for suffix in ("", "-wal"):
        copy.with_name(f"copy.db{suffix}").unlink(missing_ok=True)
        if (source := path.with_name(path.name + suffix)).exists():
            shutil.copyfile(source, f"{copy}{suffix}")
    with closing(sqlite3.connect(copy)) as connection:
        if not connection.execute("SELECT 1 FROM pragma_table_info('journal') WHERE name = 'chain'").fetchone():
            return Kept(None, [], [])  # it was killed before all tables of the new journal were made
        [(epoch, anchor)] = connection.execute("SELECT epoch, anchor FROM identity")
        records = connection.execute("SELECT revision, appended_at, document, chain FROM journal ORDER BY revision").fetchall()
    return Kept(epoch, [_row(*record) for record in records], list(broken_links(anchor, records)))


def _row(revision, _appended_at, document, _chain):
    snapshot = json.loads(document)
    return Row(revision, snapshot["version"], snapshot["reason"])


def broken_links(anchor, records):
    """Where the chain of hashes does not hold, computed here from nothing but what is promised about it."""
    previous = anchor
    for revision, appended_at, document, chain in records:
        if chain != hashlib.sha256(previous + struct.pack(">Qd", revision, appended_at) + document).digest():
            yield f"the chain is broken at revision {revision}"
        previous = chain


# --- judging ---


def faults(writes, kept):
    """Everything that breaks a promise, in words; nothing when the journal holds what the writers were told."""
    rows = {row.revision: row for row in kept.rows}
    return [
        *kept.broken_links,
        *_order_faults(kept.rows),
        *_row_faults(writes, kept.rows),
        *(fault for write in writes.values() if write.acknowledged for fault in _loss(write, rows, kept.epoch)),
        *_unfounded_conflicts(writes.values(), {row.version for row in kept.rows}),
    ]


def _order_faults(rows):
    for before, row in pairwise(rows):
        if row.revision != before.revision + 1:
            yield f"a hole between the revisions {before.revision} and {row.revision}"
        if row.version <= before.version:
            yield f"revision {row.revision} has version {row.version}, after {before.version}"


def _row_faults(writes, rows):
    """What is in the journal, and should not be."""
    seen = {}
    for before, row in zip([None, *rows], rows, strict=False):
        if row.revision == 1:  # the initial state, which nobody wrote
            continue
        write = writes.get(row.token)
        if write is None:
            yield f"revision {row.revision} has {row.token!r}, which nobody sent"
            continue
        if row.token in seen:
            yield f"{row.token} is there twice: revisions {seen[row.token]} and {row.revision}"
        seen[row.token] = row.revision
        if write.rejected:
            yield f"{row.token} was refused with {write.status}, and is revision {row.revision}"
        if before and write.expected_version not in (None, before.version):
            yield f"{row.token} expected version {write.expected_version}, and replaced {before.version}"


def _loss(write, rows, epoch):
    """An acknowledged write that is not where its writer was told."""
    row = rows.get(write.revision)
    if row is None or row.token != write.token:
        yield f"lost: {write.token} was acknowledged as revision {write.revision}, and {row or 'nothing'} is there"
    elif row.version != write.version:
        yield f"{write.token} was acknowledged with version {write.version}, and has {row.version}"
    if write.epoch != epoch:
        yield f"{write.token} was acknowledged in epoch {write.epoch}, and the journal has {epoch}"


def _unfounded_conflicts(writes, versions):
    """A writer was told of a winner that is not there: it was shown before it was durable."""
    for write in writes:
        if write.status == 412 and write.version not in versions:
            yield f"{write.token} was told that it lost against version {write.version}, which is not there"
