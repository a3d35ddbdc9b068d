"""Fixtures that several test files share."""

import contextlib

import pytest
from sidecar_process import receiving, served, written

from sidecar.database import Database
from sidecar.journal.memory import MemoryJournal
from sidecar.journal.sqlite import SqliteJournal


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
def hook():
    """A webhook receiver for tests that block."""
    with receiving() as hook:
        yield hook
