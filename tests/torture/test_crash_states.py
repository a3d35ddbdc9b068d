"""The crash states themselves, on tiny records: what was synced is always there, what was not may be missing, or cut."""

import random
import sys

import pytest
from crash_states import WAYS, Disk, Fate, Keep, everything, nothing, torn
from strace_log import (
    Allocate,
    CannotReadError,
    Create,
    Note,
    Reading,
    Remove,
    Rename,
    Resize,
    Sync,
    SyncFolder,
    Unfinished,
    Write,
    needs_strace,
    record,
)

NAMED = (Create("a"), SyncFolder())
"""A file that keeps its name."""


def after(*operations):
    """A disk to which this was done."""
    disk = Disk()
    for operation in operations:
        disk.do(operation)
    return disk


def possible(*operations, tries=300):
    """All that a power cut was seen to leave after this, as sets of name and content."""
    disk, chance = after(*operations), random.Random(1)
    return {tuple(sorted(disk.left(way(disk.unsynced, chance)).items())) for _ in range(tries) for way in WAYS}


def contents(*operations):
    """What may be left of the file `a`; None: nothing."""
    return {dict(files).get("a") for files in possible(*operations)}


def test_what_was_synced_is_always_there():
    """Content and name, whatever happens to the rest."""
    assert {b"kept"} == contents(*NAMED, Write("a", 0, b"kept"), Sync("a"))
    assert all(left[:4] == b"kept" for left in contents(*NAMED, Write("a", 0, b"kept"), Sync("a"), Write("a", 4, b" more")))


def test_what_was_not_synced_may_vanish():
    """Or be there, or leave its length alone."""
    assert {b"", b"new", b"\0\0\0"} == contents(*NAMED, Write("a", 0, b"new"))


def test_writes_survive_in_any_combination():
    """The disk need not keep their order."""
    left = contents(*NAMED, Write("a", 0, b"1"), Write("a", 1, b"2"))
    assert {b"", b"1", b"12", b"\x002"} <= left


def test_a_file_may_lose_its_name():
    """A sync of the file does not keep it; one of the folder does."""
    assert {None, b"new"} == contents(Create("a"), Write("a", 0, b"new"), Sync("a"))
    assert {b"new"} == contents(Create("a"), Write("a", 0, b"new"), Sync("a"), SyncFolder())


def test_a_removed_file_may_come_back():
    """With what was stable in it, until the folder is synced."""
    removed = (*NAMED, Write("a", 0, b"old"), Sync("a"), Remove("a"))
    assert {None, b"old"} == contents(*removed)
    assert {None} == contents(*removed, SyncFolder())


def test_a_new_file_of_an_old_name_is_another_one():
    """What is written to the new one never shows in the old one."""
    again = (*NAMED, Write("a", 0, b"old"), Sync("a"), Remove("a"), Create("a"), Write("a", 0, b"new"), Sync("a"))
    assert {None, b"old", b"new"} == contents(*again)


def test_a_rename_is_made_or_not():
    """Never is a file under both names, or under none."""
    renamed = (*NAMED, Write("a", 0, b"1"), Sync("a"), Rename("a", "b"))
    assert {(("a", b"1"),), (("b", b"1"),)} == possible(*renamed)


def test_cutting_a_file_may_not_last():
    """Until it is synced, what was cut off may be there again."""
    cut = (*NAMED, Write("a", 0, b"long"), Sync("a"), Resize("a", 1))
    assert {b"long", b"l"} == contents(*cut)
    assert {b"l"} == contents(*cut, Sync("a"))


def test_room_that_is_allocated_holds_zeros():
    """And it never cuts."""
    assert {b"ab", b"ab\0\0"} == contents(*NAMED, Write("a", 0, b"ab"), Sync("a"), Allocate("a", 4))
    assert {b"ab"} == contents(*NAMED, Write("a", 0, b"ab"), Sync("a"), Allocate("a", 1))


def test_a_write_is_cut_at_the_sectors_of_the_file():
    """Where it crosses one, and nowhere else; either part may be what is left."""
    disk, chance = after(*NAMED, Write("a", 500, b"x" * 20)), random.Random(1)
    fates = [{type(change).__name__: fate for change, fate in torn(disk.unsynced, chance)} for _ in range(50)]
    assert {Keep(500, 512), Keep(512, 520)} == {fate["Write"] for fate in fates}
    assert b"\0" * 500 + b"x" * 12 == disk.left([(disk.unsynced[0], Keep(500, 512))])["a"]


def test_a_write_within_a_sector_is_whole_or_not_there():
    """No way cuts it."""
    assert {b"", b"x" * 512, bytes(512)} == contents(*NAMED, Write("a", 0, b"x" * 512))


def test_with_everything_there_it_is_the_folder_as_it_was():
    """And with nothing, as it was synced."""
    disk = after(*NAMED, Write("a", 0, b"old"), Sync("a"), Write("a", 0, b"new"), Create("b"), Note("acked 1"))
    assert {"a": b"new", "b": b""} == disk.now() == disk.left(everything(disk.unsynced, None))
    assert {"a": b"old"} == disk.left(nothing(disk.unsynced, None))
    assert {"a": b"old", "b": b""} == disk.left([(disk.unsynced[0], Fate.DONE)])


# --- reading what strace saw ---

PROGRAM = """
import os, sys
folder, ledger = sys.argv[1:]
a = os.open(folder + "/a", os.O_RDWR | os.O_CREAT)
os.write(a, b"he"); os.pwrite(a, b"y", 1); os.write(a, bytes(range(256)))
os.posix_fallocate(a, 0, 300); os.fdatasync(a); os.ftruncate(a, 3)
note = os.open(ledger, os.O_WRONLY | os.O_CREAT)
os.write(note, b"acked 1\\n")
os.rename(folder + "/a", folder + "/b")
handle = os.open(folder, os.O_RDONLY); os.fsync(handle)
os.unlink(folder + "/b")
"""


@needs_strace
def test_a_record_has_every_operation_in_its_order(tmp_path):
    """With the bytes, and the lines of the ledger among them."""
    folder, notes, log = tmp_path / "folder", tmp_path / "ledger", tmp_path / "log"
    folder.mkdir()
    assert 0 == record(log, [sys.executable, "-c", PROGRAM, folder, notes]).returncode
    expected = [
        *(Create("a"), Write("a", 0, b"he"), Write("a", 1, b"y"), Write("a", 2, bytes(range(256)))),
        *(Allocate("a", 300), Sync("a"), Resize("a", 3), Note("acked 1"), Rename("a", "b"), SyncFolder(), Remove("b")),
    ]
    assert expected == Reading(folder, notes).operations(log)


@needs_strace
def test_what_is_not_understood_is_not_passed_over(tmp_path):
    """A file in the folder that is written in a way unknown here."""
    log = tmp_path / "log"
    program = f"import os; a = os.open({str(tmp_path / 'a')!r}, os.O_RDWR | os.O_CREAT); os.writev(a, [b'x'])"
    record(log, [sys.executable, "-c", program])
    with pytest.raises(CannotReadError, match="writev"):
        Reading(tmp_path, tmp_path / "ledger").operations(log)


def test_a_sync_counts_when_it_has_returned_and_a_note_when_it_was_begun(tmp_path):
    """Between the two, another thread may be heard."""
    log, folder = tmp_path / "log", tmp_path / "f"
    lines = [
        f'1 openat(AT_FDCWD</>, "{folder}/a", O_RDWR|O_CREAT, 0600) = 3<{folder}/a>',
        f"1 fdatasync(3<{folder}/a> <unfinished ...>",
        f'2 write(4<{tmp_path}/ledger>, "\\x61\\x0a", 2 <unfinished ...>',
        "1 <... fdatasync resumed>) = 0",
        "2 <... write resumed>) = 2",
        f'1 pwrite64(3<{folder}/a>, "\\x61\\x62", 2, 7 <unfinished ...>',
        "1 <... pwrite64 resumed> <unfinished ...>) = ?",
        "1 +++ killed by SIGKILL +++",
    ]
    log.write_text("\n".join(lines))
    assert [Create("a"), Note("a"), Sync("a"), Unfinished(Write("a", 7, b"ab"))] == Reading(
        folder, tmp_path / "ledger"
    ).operations(log)


def test_a_sync_that_failed_has_synced_nothing(tmp_path):
    """Nor has a write that failed written."""
    log, folder = tmp_path / "log", tmp_path / "f"
    lines = [
        f'1 openat(AT_FDCWD</>, "{folder}/a", O_RDWR|O_CREAT, 0600) = 3<{folder}/a>',
        f"1 fdatasync(3<{folder}/a>) = -1 EIO (Input/output error) (INJECTED)",
        f'1 pwrite64(3<{folder}/a>, "\\x61", 1, 0) = -1 ENOSPC (No space left on device)',
    ]
    log.write_text("\n".join(lines))
    assert [Create("a")] == Reading(folder, tmp_path / "ledger").operations(log)
