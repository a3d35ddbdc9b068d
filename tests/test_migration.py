"""A journal of every released schema opens, with everything in it, whatever happens to the process or the disk meanwhile.

`tests/journals/make.py` says how the fixtures were made.
"""

import contextlib
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sidecar_process import on_disk, receiving, running, written

from sidecar.database import Database
from sidecar.database.schema import MIGRATIONS
from sidecar.errors import JournalDamagedError, StorageFullError
from sidecar.journal.sqlite import SqliteJournal

FIXTURES = sorted((Path(__file__).parent / "journals").glob("schema-*.db"))
each_fixture = pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)

HISTORY = "SELECT revision, appended_at, document FROM journal ORDER BY revision"
SUBSCRIBERS = "SELECT id, record FROM subscribers ORDER BY id"


@contextlib.contextmanager
def sqlite(path):
    """The file, looked at from outside."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def stored(path):
    """Schema, epoch, history and subscribers, as any SQLite reads them."""
    with sqlite(path) as file:
        (schema,) = file.execute("PRAGMA user_version").fetchone()
        (epoch,) = file.execute("SELECT epoch FROM identity").fetchone()
        return schema, epoch, file.execute(HISTORY).fetchall(), file.execute(SUBSCRIBERS).fetchall()


async def found(path):
    """The same, as the code of today finds it; each row's link in the chain is checked when it is opened."""
    async with Database(path) as database:
        journal = SqliteJournal(database)
        entries = await journal.read(0, 1000)
        assert (journal.head, journal.size) == (entries[-1].revision, sum(len(entry.document) for entry in entries))
        [(schema,)] = await database.read("PRAGMA user_version")
        history = [(entry.revision, entry.appended_at, entry.document) for entry in entries]
        return schema, journal.epoch, history, await database.read(SUBSCRIBERS)


def migrated(fixture):
    """What there has to be once the fixture is brought up to date."""
    return len(MIGRATIONS), *stored(fixture)[1:]


@pytest.fixture
def copied(tmp_path):
    """Copies a fixture to where a journal is."""
    return lambda fixture: Path(shutil.copyfile(fixture, tmp_path / "journal.db"))


def test_every_step_has_a_journal_to_start_from():
    """Whoever adds a step to `MIGRATIONS` adds a journal of the schema before it."""
    names = [f"schema-{schema}" for schema in range(1, len(MIGRATIONS))]

    assert sorted(names) == [path.stem for path in FIXTURES]
    assert names == [f"schema-{stored(path)[0]}" for path in sorted(FIXTURES, key=lambda path: stored(path)[0])]


@each_fixture
async def test_a_journal_of_an_older_schema_opens(copied, fixture):
    """The same epoch, revisions, times, documents and subscribers; and from then on it is a journal like any other."""
    path = copied(fixture)

    assert migrated(fixture) == await found(path)
    assert migrated(fixture) == await found(path)
    with sqlite(path) as file:
        assert ("ok",) == file.execute("PRAGMA integrity_check").fetchone()
        assert (2,) == file.execute("PRAGMA auto_vacuum").fetchone()  # incremental: pages can be given back


@each_fixture
def test_the_sidecar_goes_on_with_an_older_journal(tmp_path, copied, fixture):
    """Its state and its ETag hold, its history can be read, and its subscriber goes on behind its cursor."""
    (_, epoch, history, _), path = stored(fixture), copied(fixture)
    config = written(tmp_path, journal=on_disk(tmp_path))
    with receiving() as hook:
        with running(config) as sidecar:
            current, entries = sidecar.api.get("/v1/state"), sidecar.api.get("/v1/history").json["entries"]
            sidecar.api.put("/v1/subscribers/console", {"url": hook.url})
            assert 200 == sidecar.api.put("/v1/state", {"state": "IDLE"}, if_match=current.etag).status
            got = hook.wait_for_revision(history[-1][0] + 1)
            assert 0 == sidecar.stop()
        with running(config) as sidecar:
            assert history[-1][0] + 1 == sidecar.api.get("/v1/state").json["revision"]

    assert current.etag.startswith(f'"{epoch}-')
    assert [revision for revision, _, _ in history] == [entry["revision"] for entry in entries]
    assert (history[-1][0], 0) == (got.data["previous_revision"], got.data["skipped"])
    assert stored(path)[2][:-1] == history


# A process for every place where it can be killed: forked from one that has everything loaded.
KILLED = """
import functools, itertools, os, shutil, signal, sqlite3, sys
from pathlib import Path
from sidecar.database.recovery import opened

fixture, folder = sys.argv[1:3]
connect, places = sqlite3.connect, [int(place) for place in sys.argv[3:]] or itertools.count(1)
in_a_statement = len(sys.argv) > 3

def killing(place, *arguments, **options):
    connection, passed = connect(*arguments, **options), itertools.count(1)
    def step(*_):
        if next(passed) == place:
            os.kill(os.getpid(), signal.SIGKILL)
    if in_a_statement:
        connection.set_progress_handler(step, 10)
    else:
        connection.set_trace_callback(step)
    return connection

for place in places:
    path = Path(folder) / str(place) / "journal.db"
    path.parent.mkdir()
    shutil.copyfile(fixture, path)
    child = os.fork()
    if not child:
        sqlite3.connect = functools.partial(killing, place)
        with opened(path, accept_data_loss=False):
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        shutil.rmtree(path.parent)
        sys.exit(os.WEXITSTATUS(status))
"""


def killed(fixture, folder, *places):
    """Journals in the folder whose opening was killed at these places, or before each of its statements."""
    subprocess.run([sys.executable, "-c", KILLED, fixture, folder, *map(str, places)], check=True, timeout=60)
    return sorted(folder.glob("*/journal.db"), key=lambda path: int(path.parent.name))


@each_fixture
async def test_a_kill_at_any_statement_leaves_a_journal_that_opens(tmp_path, fixture):
    """Before every single statement of the opening, those of its VACUUM included: nothing of the journal is missing."""
    journals = killed(fixture, tmp_path)

    assert 20 < len(journals)  # the first schema has far more: its VACUUM
    schemas = {stored(shutil.copytree(path.parent, Path(f"{path.parent}-seen")) / path.name)[0] for path in journals}
    assert {stored(fixture)[0], len(MIGRATIONS)} <= schemas
    for path in journals:
        assert migrated(fixture) == await found(path), path


@each_fixture
async def test_a_kill_in_the_midst_of_a_statement_leaves_a_journal_that_opens(tmp_path, fixture):
    """Also where VACUUM has written half of the file."""
    journals = killed(fixture, tmp_path, *range(1, 400, 3))

    assert 5 < len(journals)
    for path in journals:
        assert migrated(fixture) == await found(path), path


@each_fixture
async def test_a_disk_that_is_full_leaves_the_old_journal(monkeypatch, copied, fixture):
    """The opening fails with a full disk, until there is room: then everything is there."""
    path, before, connect, refused = copied(fixture), stored(fixture), sqlite3.connect, 0
    with sqlite(path) as file:
        (pages,) = file.execute("PRAGMA page_count").fetchone()

    def limited(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.execute(f"PRAGMA max_page_count = {pages + refused}")
        return connection

    while stored(path)[0] < len(MIGRATIONS):
        with monkeypatch.context() as patch, contextlib.suppress(StorageFullError):
            patch.setattr(sqlite3, "connect", limited)
            await found(path)
        with sqlite(path) as file:
            (schema,) = file.execute("PRAGMA user_version").fetchone()
        assert stored(path) == (schema, *before[1:])
        refused += 1

    assert 1 < refused < 100
    assert migrated(fixture) == await found(path)


async def test_a_newer_schema_is_refused(copied):
    """With its number, that of this version, and what to do; the file stays as it is."""
    path, newer = copied(FIXTURES[-1]), len(MIGRATIONS) + 1
    with sqlite(path) as file:
        file.execute(f"PRAGMA user_version = {newer}")
    before = path.read_bytes()

    with pytest.raises(JournalDamagedError, match=re.escape(f"schema {newer}, and this version knows up to {newer - 1}: run")):
        await found(path)
    assert before == path.read_bytes()
