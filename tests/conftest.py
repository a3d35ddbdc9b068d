"""Fixtures that several test files share, and the event loop that all of a run is on."""

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

import pytest
from authority import Authority
from damage import crash, one_log
from secrecy import keeps_secrets
from sidecar_process import new_loop, receiving, served, written

from sidecar.database import Database
from sidecar.journal.memory import MemoryJournal
from sidecar.journal.sqlite import SqliteJournal


def pytest_configure(config):
    """`LOOP=asyncio`: without uvloop, in this process and in all that it starts."""
    if new_loop is asyncio.new_event_loop:
        before = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).with_name("loops")), *before])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Whatever a test or what it starts writes to its output or its log: there is no secret in it."""
    report = yield
    shown = [title for title, text in report.sections if not keeps_secrets(text)]
    if shown and report.passed:
        report.outcome, report.longrepr = "failed", f"a secret is shown: {', '.join(shown)}"
    return report


def pytest_asyncio_loop_factories():
    """What a test's own coroutines run on."""
    return {os.environ.get("LOOP", "uvloop"): new_loop}


@pytest.fixture
async def database(tmp_path):
    """An open database in a new file."""
    async with Database(tmp_path / "journal.db") as database:
        yield database


@pytest.fixture(params=["memory", "sqlite"])
async def journal(request, tmp_path):
    """An empty journal of each kind."""
    if request.param == "memory":
        yield MemoryJournal()
    else:
        async with Database(tmp_path / "journal.db") as database:
            yield SqliteJournal(database)


@pytest.fixture
async def opened():
    """Opens what it is given, and closes it when the test ends, the newest first."""
    async with contextlib.AsyncExitStack() as stack:
        yield stack.enter_async_context


@pytest.fixture
def start(tmp_path):
    """Starts the whole sidecar inside this process with these sections of the config; it stops when the test ends."""
    with contextlib.ExitStack() as stack:
        yield lambda **sections: stack.enter_context(served(written(tmp_path, **sections)))


@pytest.fixture
def ours(tmp_path):
    """A CA that is trusted."""
    return Authority(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path):
    """A CA that nobody here knows."""
    return Authority(tmp_path, "theirs")


@pytest.fixture
def hook():
    """A webhook receiver for tests that block."""
    with receiving() as hook:
        yield hook


@pytest.fixture(scope="session")
def crashed(tmp_path_factory):
    """Two folders: what a killed sidecar left, and the same after a start that ended well."""
    folder = tmp_path_factory.mktemp("crashed")
    crash(folder)
    ended = shutil.copytree(folder, tmp_path_factory.mktemp("ended"), dirs_exist_ok=True)
    with served(written(ended, journal=one_log(ended))):
        pass
    return {"crashed": folder, "ended": ended}


@pytest.fixture
def journal_of(crashed, tmp_path):
    """Copies one of the two into this test's folder, with the config for it. Gives the journal's path."""

    def copy(kind):
        for file in tmp_path.glob("journal.db*"):
            file.unlink()
        shutil.copytree(crashed[kind], tmp_path, dirs_exist_ok=True)
        written(tmp_path, journal=one_log(tmp_path))
        return tmp_path / "journal.db"

    return copy
