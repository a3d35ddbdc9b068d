"""`fsm-sidecar journal`: what it finds, that looking changes nothing, and that a restore is done or not done."""

import asyncio
import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys

import pytest
from sidecar_process import on_disk, running, written

from sidecar.database import Database
from sidecar.database.schema import APPLICATION_ID, MIGRATIONS
from sidecar.errors import JournalDamagedError
from sidecar.journal.sqlite import SqliteJournal


def run(*arguments, **options):
    """The exit code, and what went to standard output and to standard error, of `fsm-sidecar journal …`."""
    program = [sys.executable, "-m", "sidecar", "journal", *map(str, arguments)]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=30, **options)
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stdout, ended.stderr


def journal(path, count, *, crashed=False):
    """A journal with so many revisions: closed in order, or as a crash leaves it, its write-ahead log beside it."""

    async def fill():
        async with Database(path) as database:
            await written_to(database, count)
            if crashed:
                for suffix in ("", "-wal", ".hwm"):
                    shutil.copy(f"{path}{suffix}", f"{path}{suffix}.kept")
        if crashed:
            for suffix in ("", "-wal", ".hwm"):
                shutil.move(f"{path}{suffix}.kept", f"{path}{suffix}")

    asyncio.run(fill())
    return path


async def written_to(database, count):
    log, settled = SqliteJournal(database), asyncio.get_running_loop().create_future()
    for number in range(1, count + 1):
        document = json.dumps({"version": number, "state": f"S{log.head + number}"}).encode()
        log.append(document, lambda entry, error, number=number: number == count and settled.set_result(error))
    assert await settled is None


@contextlib.contextmanager
def edited(path):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def contents(folder):
    """Every file there, byte by byte, but for the lock, which says who looked last."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


def found(path):
    """How the journal opens: what it is, and its newest state."""

    async def look():
        async with Database(path) as database:
            [(newest,)] = await database.read("SELECT document FROM journal ORDER BY revision DESC LIMIT 1")
            return database.found, json.loads(newest)["state"]

    return asyncio.run(look())


# --- verify and info ---


@pytest.mark.parametrize("crashed", [False, True], ids=["closed", "crashed"])
def test_a_whole_journal_is_proven(tmp_path, crashed):
    """Exit 0, with what was found; and not a byte has changed, the unclean starts included."""
    path = journal(tmp_path / "journal.db", 20, crashed=crashed)
    before = contents(tmp_path)
    code, out, err = run("verify", "--path", path, "--json")
    told = json.loads(out)

    assert (0, "") == (code, err)
    names = ("schema", "oldest", "head", "revisions", "unclean_starts")
    assert (len(MIGRATIONS), 1, 20, 20, 0) == tuple(told[name] for name in names)
    assert ("ok", "ok", []) == (told["chain"], told["sqlite"], told["problems"])
    assert told["mark"].startswith("ok, up to revision 20")
    assert before == contents(tmp_path)


CHANGE = "UPDATE journal SET document = x'7b7d' WHERE revision IN (5, 9)"
DAMAGES = {
    "rows changed": (CHANGE, ["revision 5 is not what was written", "revision 9 is not what was written"]),
    "rows lost": ("DELETE FROM journal WHERE revision BETWEEN 7 AND 8", ["revisions 7 to 8 are missing"]),
    "end lost": ("DELETE FROM journal WHERE revision > 18", ["revisions 19 to 20 are missing, and had been acknowledged"]),
    "another one": ("UPDATE identity SET epoch = 'other'", ["is of journal"]),
    "no identity": ("DELETE FROM identity", ["lost its identity"]),
}


@pytest.mark.parametrize(("damage", "problems"), DAMAGES.values(), ids=DAMAGES)
def test_every_problem_is_told_and_nothing_mended(tmp_path, damage, problems):
    """Exit 65, a line for each, what to do; and not a byte has changed."""
    path = journal(tmp_path / "journal.db", 20)
    with edited(path) as connection:
        connection.execute(damage)
    before = contents(tmp_path)
    code, out, err = run("verify", "--path", path)
    told = [line for line in out.splitlines() if line.startswith("problem")]

    assert (65, len(problems)) == (code, len(told))
    assert all(problem in line for problem, line in zip(problems, told, strict=True))
    assert "journal restore" in err
    assert before == contents(tmp_path)


def test_damaged_pages_are_told(tmp_path):
    """By SQLite's own check; whose journal it is can still be said."""
    path = journal(tmp_path / "journal.db", 2000)
    with path.open("r+b") as file:
        file.seek(20 * 4096)
        file.write(b"\xff" * 4096)
    code, out, _ = run("verify", "--path", path)

    assert (65, True, True) == (code, "malformed" in out, "epoch" in out)


FILES = {
    "garbage": (b"not a database, but long enough to be taken for one" * 100, 65, "not a database"),
    "empty": (b"", 65, "is empty"),
    "missing": (None, 64, "there is no journal"),
}


@pytest.mark.parametrize("command", ["verify", "info"])
@pytest.mark.parametrize(("content", "expected", "told"), FILES.values(), ids=FILES)
def test_what_is_no_journal_is_told(tmp_path, command, content, expected, told):
    """By the exit code and in a line."""
    path = tmp_path / "journal.db"
    if content is not None:
        path.write_bytes(content)
    code, out, err = run(command, "--path", path)

    assert (expected, True) == (code, told in out + err)
    assert content is None or content == path.read_bytes()


def test_a_file_of_another_program_is_told(tmp_path):
    """Exit 65: it is not a journal."""
    with edited(tmp_path / "notes.db") as connection:
        connection.execute("CREATE TABLE notes (text)")

    code, _, err = run("verify", "--path", tmp_path / "notes.db")
    assert (65, True) == (code, "not a journal of fsm-sidecar" in err)


def test_a_journal_of_the_first_schema_has_no_chain(tmp_path):
    """Which is told, and no problem; it is not brought up to date by looking."""
    path = tmp_path / "journal.db"
    with edited(path) as connection:
        MIGRATIONS[0](connection)
        connection.execute("INSERT INTO identity VALUES ('olden')")
        connection.execute("INSERT INTO journal VALUES (1, 0, x'7b7d')")
        connection.execute("PRAGMA user_version = 1")
    before = contents(tmp_path)
    code, out, _ = run("verify", "--path", path)

    assert (0, True, True) == (code, "none in schema 1" in out, "olden" in out)
    assert before == contents(tmp_path)


def test_a_missing_journal_with_a_mark_is_a_lost_one(tmp_path):
    """Exit 65: the mark knows better."""
    path = journal(tmp_path / "journal.db", 2)
    path.unlink()

    code, _, err = run("verify", "--path", path)
    assert (65, True) == (code, "there was a journal" in err)


def test_info_tells_what_is_there(tmp_path):
    """The newest state, subscribers, sizes: as lines, and as JSON."""
    path = journal(tmp_path / "journal.db", 3)
    with edited(path) as connection:
        connection.execute("INSERT INTO subscribers VALUES ('s', x'00')")
    code, out, _ = run("info", "--path", path)
    told = json.loads(run("info", "--path", path, "--json")[1])

    assert (0, True) == (code, "state S3, version 3" in out)
    assert (1, 0, "S3", 3) == (told["subscribers"], told["answers"], told["newest"]["state"], told["newest"]["version"])
    assert path.stat().st_size == told["files"]["journal.db"]
    assert 0 < told["bytes"] < path.stat().st_size


@pytest.mark.parametrize("command", ["verify", "info", "backup", "restore"])
def test_a_running_sidecar_is_not_disturbed(tmp_path, command):
    """Exit 69, naming it, and what to do instead."""
    backup = journal(tmp_path / "b.db", 3)
    config = written(tmp_path, journal=on_disk(tmp_path))
    with running(config) as sidecar:
        sidecar.wait_for("ready")
        files = {"backup": [tmp_path / "new.db"], "restore": [backup]}.get(command, [])
        code, _, err = run(command, *files, "--config", config)

        assert (69, True) == (code, f"process {sidecar.pid}" in err)
        assert "GET /v1/journal/backup" in err or command != "backup"
        assert not (tmp_path / "new.db").exists()
        assert 200 == sidecar.api.put("/v1/state", {"state": "IDLE"}).status


@pytest.mark.parametrize(
    "arguments",
    [[], ["verify", "x"], ["backup"], ["restore"], ["verify", "--path", "a", "--config", "b"], ["backup", "--json", "x"]],
    ids=" ".join,
)
def test_wrong_usage_is_told(arguments):
    """Exit 64, nothing on standard output."""
    code, out, err = run(*arguments)

    assert (64, "") == (code, out)
    assert err.startswith("usage: fsm-sidecar")


def test_a_journal_in_memory_has_no_file(tmp_path):
    """Exit 64, with the key."""
    code, _, err = run("verify", "--config", written(tmp_path))

    assert (64, True) == (code, "journal.backend" in err)


# --- backup ---


def test_a_backup_of_a_journal_at_rest_is_a_journal(tmp_path):
    """Also of one that was left by a crash; nothing is overwritten."""
    path = journal(tmp_path / "journal.db", 20, crashed=True)
    (tmp_path / "backups").mkdir()
    file = tmp_path / "backups" / "b.db"

    assert (0, "") == run("backup", file, "--path", path)[::2]
    assert 0 == run("verify", "--path", file)[0]
    assert [file] == list(file.parent.iterdir())
    before = file.read_bytes()
    code, _, err = run("backup", file, "--path", path)
    assert (64, True, before) == (code, "not overwritten" in err, file.read_bytes())


def test_a_backup_creates_no_journal(tmp_path):
    """A wrong path would look like a healthy, empty one."""
    assert 64 == run("backup", tmp_path / "b.db", "--path", tmp_path / "journal.db")[0]
    assert [] == list(tmp_path.iterdir())


def test_a_damaged_journal_gives_no_backup(tmp_path):
    """Exit 65, and no file."""
    path = journal(tmp_path / "journal.db", 20)
    with edited(path) as connection:
        connection.execute(CHANGE)

    assert 65 == run("backup", tmp_path / "b.db", "--path", path)[0]
    assert not (tmp_path / "b.db").exists()


# --- restore ---


@pytest.fixture
def backup(tmp_path):
    """A backup with five revisions, in a folder of its own; the journal has nine, left by a crash."""
    (tmp_path / "backups").mkdir()
    file = journal(tmp_path / "backups" / "b.db", 5)
    for path in file.parent.iterdir():
        if path != file:
            path.unlink()
    (tmp_path / "data").mkdir()
    shutil.copy(file, tmp_path / "data" / "journal.db")
    journal(tmp_path / "data" / "journal.db", 4, crashed=True)
    return file


def test_a_restored_journal_goes_beyond_the_old_one(tmp_path, backup):
    """A new epoch; the backup's newest state again, after all that the old one had; the old one is kept, and whole."""
    path = tmp_path / "data" / "journal.db"
    old = contents(path.parent)
    code, out, err = run("restore", backup, "--path", path)
    journal, state = found(path)

    assert (0, "") == (code, err)
    assert "6 to 9" in out
    assert (10, "S5") == (journal.head, state)
    assert f"{journal.epoch} (new)" in out
    assert not journal.unmarked
    assert 0 == journal.unclean_starts
    (kept,) = path.parent.glob("journal.db.replaced-*Z")
    assert old == {f"journal.db{suffix}": kept.with_name(kept.name + suffix).read_bytes() for suffix in ("", "-wal", ".hwm")}
    assert 9 == json.loads(run("verify", "--path", kept, "--json")[1])["head"]
    assert [backup] == list(backup.parent.iterdir())


def test_a_restore_can_be_taken_back(tmp_path, backup):
    """By restoring what was kept: nothing of the old journal is lost, and revisions go on rising."""
    path = tmp_path / "data" / "journal.db"
    run("restore", backup, "--path", path)
    (kept,) = path.parent.glob("journal.db.replaced-*Z")

    assert 0 == run("restore", kept, "--path", path)[0]
    journal, state = found(path)
    assert (11, "S9") == (journal.head, state)


def test_a_restore_where_nothing_is(tmp_path, backup):
    """On a new volume: what the backup has, under a new epoch."""
    (tmp_path / "new").mkdir()
    path = tmp_path / "new" / "journal.db"
    code, out, _ = run("restore", backup, "--path", path)

    assert (0, False) == (code, "lost" in out)
    assert (6, "S5") == (found(path)[0].head, found(path)[1])


@pytest.mark.parametrize("garbage", [True, False], ids=["garbage", "missing"])
def test_a_lost_journal_is_restored_beyond_its_mark(tmp_path, backup, garbage):
    """Whatever became of the file, the mark knows what had been acknowledged."""
    path = tmp_path / "data" / "journal.db"
    (tmp_path / "data" / "journal.db-wal").unlink()
    path.write_bytes(b"\xff" * 10_000) if garbage else path.unlink()

    assert 0 == run("restore", backup, "--path", path)[0]
    assert (10, "S5") == (found(path)[0].head, found(path)[1])


SPOILED = {
    "changed": lambda file: edit(file, CHANGE),
    "garbage": lambda file: file.write_bytes(b"garbage" * 1000),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:8192]),
    "empty": lambda file: file.write_bytes(b""),
    "newer": lambda file: edit(file, f"PRAGMA user_version = {len(MIGRATIONS) + 1}"),
    "foreign": lambda file: edit(file, f"PRAGMA application_id = {APPLICATION_ID + 1}"),
}


def edit(file, sql):
    with edited(file) as connection:
        connection.execute(sql)


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_damaged_backup_is_refused(tmp_path, backup, spoil):
    """Exit 65, and everything is as it was."""
    spoil(backup)
    before = contents(tmp_path / "data")
    code, out, err = run("restore", backup, "--path", tmp_path / "data" / "journal.db")

    assert (65, "") == (code, out)
    assert str(backup) in err
    assert before == contents(tmp_path / "data")


def test_a_restore_takes_no_file_of_somebody_else_away(tmp_path, backup):
    """A wrong path is not a journal to be replaced; nor is a journal a backup of itself."""
    notes = tmp_path / "notes.db"
    edit(notes, "CREATE TABLE notes (text)")
    before = notes.read_bytes()

    assert (65, before) == (run("restore", backup, "--path", notes)[0], notes.read_bytes())
    assert 64 == run("restore", backup, "--path", backup)[0]
    assert 64 == run("restore", tmp_path / "missing.db", "--path", tmp_path / "data" / "journal.db")[0]


KILLED = """
import os, pathlib, shutil, signal, sys
from sidecar.database.restoring import restore

folder, step = pathlib.Path(sys.argv[1]), 0

def die_at(last):
    count = 0
    def count_steps(event, arguments):
        nonlocal count
        count += event == "open" or event.startswith(("os.", "sqlite3.", "fcntl."))
        if count == last:
            count += 1
            signal.raise_signal(signal.SIGKILL)
    sys.addaudithook(count_steps)

while True:
    step += 1
    shutil.copytree(folder / "data", folder / "killed" / str(step))
    child = os.fork()
    if not child:
        die_at(step)
        restore(folder / "killed" / str(step) / "journal.db", folder / "backups" / "b.db")
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def killed_at_each_step(folder):
    """The journal's path after a restore was killed: before its first touch of a file, the second, … and not at all."""
    subprocess.run([sys.executable, "-c", KILLED, folder], check=True, timeout=120)
    return [folder / "killed" / str(step + 1) / "journal.db" for step in range(len(list((folder / "killed").iterdir())))]


def test_a_restore_killed_at_any_step_is_done_or_not(tmp_path, backup):
    """The old journal with all it had, or the new one: it opens, and the next restore works. Nothing half is left."""
    outcomes = []
    for path in killed_at_each_step(tmp_path):
        journal, state = found(path)
        outcomes.append((journal.head, state))
        assert ["journal.db"] == [each.name for each in path.parent.glob("journal.db*") if is_a_journal(each)]

    first = outcomes.index((10, "S5"))
    assert {(9, "S9")} == set(outcomes[:first])
    assert {(10, "S5")} == set(outcomes[first:])
    assert 10 < first < len(outcomes) - 5  # it was killed before and after


def is_a_journal(path):
    """Neither what belongs to the journal, nor what is kept of the old one."""
    return (
        path.name not in {"journal.db-wal", "journal.db-shm", "journal.db.hwm", "journal.db.lock"}
        and ".replaced-" not in path.name
    )


def test_a_refused_journal_stays_refused_until_it_is_replaced(tmp_path, backup):
    """A restore that is killed never lets a journal that lost its end pass for a whole one."""
    (tmp_path / "data" / "journal.db-wal").unlink()
    outcomes = []
    for path in killed_at_each_step(tmp_path):
        try:
            outcomes.append(found(path)[0].head)
        except JournalDamagedError:
            outcomes.append("refused")

    first = outcomes.index(10)
    assert {"refused"} == set(outcomes[:first])
    assert {10} == set(outcomes[first:])


def test_a_restore_that_was_cut_short_is_told(tmp_path, backup):
    """Looking does not finish it: who opens the journal next does."""
    for path in killed_at_each_step(tmp_path):
        pending = path.with_name("journal.db.restored").exists()
        code, _, err = run("verify", "--path", path) if pending else (74, "", "cut short")
        assert (74, True) == (code, "cut short" in err)
        assert pending == path.with_name("journal.db.restored").exists()
