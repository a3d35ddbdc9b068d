"""Room on the disk, as the writer thread sees it: when it looks, what it refuses, and where the ballast is."""

import asyncio

import pytest
from receiver import busy

from sidecar.database import Database
from sidecar.database.space import Space
from sidecar.errors import StorageFullError

KIB, MIB = 1 << 10, 1 << 20
INSERT = "INSERT INTO subscribers (id, record) VALUES (?, ?)"


class Disk(Space):
    """A disk with as much room as a test says."""

    room = 0
    looks = 0

    def free(self):
        self.looks += 1
        return self.room


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path / "journal.db", reserve_bytes=MIB, ballast_bytes=64 * KIB)
    disk.room = 10 * MIB
    return disk


@pytest.fixture
def ballast(tmp_path):
    return tmp_path / "journal.db.ballast"


def test_a_write_must_leave_the_reserve(disk):
    """To the byte."""
    disk.room = MIB + 1000
    disk.check(1000)
    with pytest.raises(StorageFullError, match=r"1MiB.*free some space"):
        disk.check(1001)


def test_without_a_reserve_the_disk_itself_says_that_it_is_full(tmp_path):
    """Nothing is refused before."""
    disk = Disk(tmp_path / "journal.db")
    disk.check(10 * MIB)
    assert not disk.low


def test_small_writes_look_rarely_and_large_ones_often(disk):
    """A look costs little, and not nothing: the reserve must not be used up between two."""
    disk.check(1)
    assert not any(disk.due(KIB) for _ in range(100))
    assert disk.due(200 * KIB)
    disk.check(1)
    assert not disk.due(KIB)


def test_after_a_refusal_every_write_looks(disk):
    """So that none slips through."""
    disk.check(1)
    disk.room = 0
    assert disk.due(256 * KIB)
    with pytest.raises(StorageFullError):
        disk.check(256 * KIB)
    assert disk.due(1)


def test_it_is_low_for_as_much_as_was_refused(disk):
    """And for some more, so that the next write is not refused as well."""
    disk.room = MIB + 50 * KIB
    assert not disk.low
    with pytest.raises(StorageFullError):
        disk.check(100 * KIB)
    assert disk.low
    assert (False, True) == (disk.attainable(50 * KIB), disk.attainable(400 * KIB))
    disk.room = 2 * MIB
    assert not disk.low


def test_the_ballast_goes_overboard_and_comes_back(disk, ballast):
    """Its bytes are really taken; it is back once there is room for it twice."""
    disk.load_ballast()
    assert (64 * KIB, True) == (ballast.stat().st_size, ballast.stat().st_blocks * 512 >= 64 * KIB)
    disk.drop_ballast()
    disk.drop_ballast()
    disk.room = MIB + 127 * KIB
    disk.check(1)
    assert not ballast.exists()
    disk.room = MIB + 128 * KIB
    disk.check(1)
    assert ballast.exists()


async def test_of_writes_that_do_not_fit_together_as_many_are_committed_as_do(tmp_path):
    """A large group is no reason to refuse what each of it may have."""
    async with Database(tmp_path / "journal.db", reserve_bytes=1) as database:
        database.space.reserve_bytes = MIB
        database.space.free = lambda: MIB + 100 * KIB
        async with busy(database):
            writes = [asyncio.create_task(database.execute(INSERT, (f"{n}", bytes(20 * KIB)))) for n in range(8)]
            await asyncio.sleep(0)
        await asyncio.gather(*writes)
        with pytest.raises(StorageFullError):
            await database.execute(INSERT, ("too large", bytes(200 * KIB)))
        assert [(8,)] == await database.read("SELECT count(*) FROM subscribers")
