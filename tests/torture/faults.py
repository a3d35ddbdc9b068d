"""Runs in which a system call on the journal's files fails: which there are, and what became of each."""

import collections
import itertools
import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import NamedTuple

import launcher
import ledger
from strace_log import calls, injecting

CALLS = ("pwrite64", "fdatasync", "fsync", "ftruncate", "openat")
ERRORS = ("EIO", "ENOSPC", "EROFS")
SUFFIXES = ("", "-wal", "-journal", ".hwm", ".lock", ".ballast")
TIMEOUT_SECONDS = 20


class Fault(NamedTuple):
    """The `number`th of these calls on the journal's files fails, and with `sticky` all after it.

    `file`: the one on which it is likely to be made.
    """

    start: str
    call: str
    file: str
    error: str
    number: int
    sticky: bool

    def __str__(self):
        return f"{self.call} {self.number}{'+' if self.sticky else ''} {self.error} on {self.start}"

    @property
    def words(self):
        """As strace wants it."""
        return f"error={self.error}:when={self.number}{'+' if self.sticky else ''}"


class Ending(NamedTuple):
    """How a run ended: its exit code, what it said, what it had promised, and the files on which a call was made to fail."""

    code: int | None
    stderr: str
    promises: ledger.Promises
    hit: tuple

    @property
    def kind(self):
        if self.code is None:
            return "did not end"
        if not self.hit:
            return "not met"
        if self.promises.unknown:
            return "stopped"
        if self.code:
            return "stopped while closing" if self.promises.phase == "closing" else "did not start"
        return "full, went on" if self.promises.full else "unnoticed"


def journal_files(folder):
    """The journal's files, and their folder."""
    return [folder, *(folder / f"journal.db{suffix}" for suffix in SUFFIXES)]


# --- the storage alone ---

STARTS = {
    "a new journal": None,
    "a journal after a crash": {"end": "kill", "writes": 12},
}
PLAN = {"session": 1, "writers": 3, "writes": 5, "keep": 4, "checkpoint_bytes": 24 << 10, "longest_log": 40 << 10}
"""Small, with everything in it: commits, checkpoints of both kinds, compaction, and a clean end."""


def begin(folder, start):
    """A folder with the journal that the run starts with, and its ledger beside it."""
    journal = folder / "journal"
    journal.mkdir(parents=True)
    if STARTS[start]:
        launched(folder, [], STARTS[start])
    return journal


def launched(folder, before, plan):
    """Exit code and standard error of the launcher, with this command in front of it. One that does not end has no code."""
    command = [*before, sys.executable, launcher.__file__, folder / "journal/journal.db", folder / "ledger", json.dumps(plan)]
    try:
        ran = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None, ""
    return ran.returncode, ran.stderr


def run(folder, begun, fault):
    """One run of the storage with this fault, from a copy of what was begun."""
    shutil.copytree(begun, folder)
    files, log = journal_files(folder / "journal"), folder / "log"
    code, stderr = launched(folder, injecting(log, files, fault.call, fault.words), PLAN)
    promises = ledger.Promises.of((folder / "ledger").read_text().splitlines())
    return Ending(code, stderr, promises, hit_in(log, files))


def hit_in(log, files):
    """On which files a call was made to fail."""
    return tuple(sorted({call.file for call in calls(log, files) if call.injected}))


def census(folder, begun):
    """The calls that a run makes, when none fails."""
    shutil.copytree(begun, folder)
    files, log = journal_files(folder / "journal"), folder / "log"
    code, stderr = launched(folder, injecting(log, files, ",".join(CALLS), None), PLAN)
    assert (0, "") == (code, stderr), stderr
    return list(calls(log, files))


def all_faults(start, made):
    """Each of these calls, failing in each way."""
    numbers = collections.Counter()
    for call, file, _ in made:
        numbers[call] += 1
        for error, sticky in itertools.product(ERRORS, (False, True)):
            yield Fault(start, call, file, error, numbers[call], sticky)


def unsound(path):
    """What SQLite's own check finds wrong in the file, or None. The product has closed it."""
    with closing(sqlite3.connect(path)) as connection:
        found = [line for (line,) in connection.execute("PRAGMA integrity_check")]
    return None if found == ["ok"] else f"integrity: {'; '.join(found)}"
