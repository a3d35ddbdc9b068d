"""Fixtures that several test files share."""

import pytest

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
            yield await SqliteJournal.open(database)
