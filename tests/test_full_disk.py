"""A disk that is full, on a small file system of its own: writes are refused, nothing is lost, and it comes back by itself."""

import contextlib
import os
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from sidecar_process import eventually, on_disk, problem_of, receiving, running, written

from sidecar.database import Database

KIB, MIB = 1 << 10, 1 << 20
DISK, MIN_FREE, BALLAST = 12 * MIB, MIB, 512 * KIB


@pytest.fixture
def disk(tmp_path):
    """The folder of an empty disk of 12 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a disk of its own may not be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def configured(tmp_path, disk):
    """Writes a config for a journal on the disk."""
    journal = on_disk(disk) | {"min_free": f"{MIN_FREE >> 10}KiB", "ballast": f"{BALLAST >> 10}KiB"}
    return lambda **more: written(tmp_path, journal=journal | more, webhooks={"max_lag": 1})


@pytest.fixture
def config(configured):
    return configured()


def free(disk):
    room = os.statvfs(disk)
    return room.f_bavail * room.f_frsize


@contextlib.contextmanager
def filled(disk, leaving=0):
    """The disk, with all but so many bytes of it taken by somebody else's file."""
    other = disk / "other"
    with open(other, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while free(disk) > leaving:
            file.write(bytes(4 * KIB))
    try:
        yield
    finally:
        other.unlink()


def put(sidecar, size=60_000):
    return sidecar.api.put("/v1/state", {"state": "IDLE", "context_data": {"filler": "x" * size}})


def full(sidecar, size=60_000):
    """The first write that is refused, and the last revision before it."""
    revision = 0
    while (answer := put(sidecar, size)).status == 200:
        revision = answer.json["revision"]
    problem_of(answer, 507, "storage-full")
    return answer, revision


def state(sidecar):
    return sidecar.api.get("/v1/state").json


def oldest(sidecar):
    return sidecar.api.get("/v1/history?limit=1").json["oldest"]


def kept(sidecar):
    """Every revision from the oldest kept on, without holes. More of the oldest may go meanwhile: then once more."""
    revisions = []
    while True:
        page = sidecar.api.get("/v1/history" + (f"?after={revisions[-1]}" if revisions else ""))
        if page.status == 410:
            revisions = []
        elif page.json["entries"]:
            revisions += [entry["revision"] for entry in page.json["entries"]]
        else:
            assert list(range(revisions[0], revisions[-1] + 1)) == revisions
            return revisions


def is_ready(sidecar):
    return sidecar.ops.get("/readyz").status == 200


def metric(sidecar, name):
    return next(
        float(line.split()[-1]) for line in sidecar.ops.get("/metrics").body.decode().splitlines() if line.startswith(name)
    )


def processor_seconds(sidecar):
    return metric(sidecar, "process_cpu_seconds_total")


# --- filled by the journal itself ---


@pytest.mark.parametrize("ballast", ["512KiB", "0B"])
def test_writes_are_refused_before_the_disk_is_full_and_are_not_applied(configured, disk, ballast):
    """With 507, while some room is left; reading goes on, and the process lives."""
    with running(configured(ballast=ballast)) as sidecar:
        answer, last = full(sidecar)
        assert (True, "10") == (free(disk) > MIN_FREE // 2, answer.headers["Retry-After"])
        assert (last, last) == (state(sidecar)["revision"], kept(sidecar)[-1])
        assert metric(sidecar, 'fsm_storage_errors_total{kind="full"}') >= 1
        assert (200, 0) == (sidecar.ops.get("/livez").status, sidecar.stop())


def test_the_oldest_history_makes_room_for_new_writes(config):
    """By itself, a little of it at a time; and what was acknowledged last is there, also after a kill."""
    with running(config) as sidecar:
        _, first = full(sidecar)
        eventually(lambda: put(sidecar).status == 200 and oldest(sidecar) > 1)
        assert oldest(sidecar) < first // 2
        for _ in range(3):
            _, last = full(sidecar)
            eventually(lambda: is_ready(sidecar))
        revisions = kept(sidecar)
        assert (last, True) == (revisions[-1], len(revisions) > 50)
        sidecar.kill()
    with running(config) as sidecar:
        assert last == state(sidecar)["revision"]
        assert 0 == sidecar.stop()


def test_writers_that_hammer_a_full_disk_get_on(config):
    """Making room is not kept waiting by them; each of them has its writes done, and revisions have no holes."""
    with running(config) as sidecar:
        full(sidecar)
        before = state(sidecar)["revision"]

        def hammer(_):
            statuses = Counter()
            while statuses[200] < 5:
                statuses[put(sidecar).status] += 1
            return statuses

        with ThreadPoolExecutor(8) as pool:
            statuses = sum(pool.map(hammer, range(8)), Counter())
        assert {200, 507} >= set(statuses)
        assert before + 40 == state(sidecar)["revision"]
        assert before + 40 == kept(sidecar)[-1]
        assert 0 == sidecar.stop()


def test_a_subscriber_whose_history_went_is_told(config):
    """It gets the newest state, with how many it was passed over, since it could not keep up."""
    with receiving() as hook, running(config) as sidecar:
        sidecar.api.put("/v1/subscribers/slow", {"url": hook.url, "max_lag": 1000})
        cursor = hook.wait_for(1)[0].data["revision"]
        hook.answers(503)
        full(sidecar)
        eventually(lambda: put(sidecar).status == 200 and oldest(sidecar) > cursor + 1)
        hook.answers(200)
        sidecar.api.post("/v1/subscribers/slow/resume")
        told = eventually(lambda: [got.data for got in hook.got if got.data["skipped"]])[-1]

        assert (cursor, told["revision"] - cursor - 1) == (told["previous_revision"], told["skipped"])
        assert told["revision"] >= oldest(sidecar)


def test_a_large_write_gets_room_although_a_small_one_has_it(config, disk):
    """How much goes depends on what was refused."""
    with running(config) as sidecar:
        for _ in range(30):
            assert 200 == put(sidecar).status
        with filled(disk, leaving=MIN_FREE + 50 * KIB):
            eventually(lambda: put(sidecar, 250_000).status == 200)
            assert oldest(sidecar) > 1


# --- filled by somebody else ---


def test_a_disk_that_somebody_else_has_filled_costs_nothing_and_comes_back(config, disk):
    """To the last byte: 507, the ballast goes overboard; with their file gone all is as before, by itself."""
    ballast = disk / "journal.db.ballast"
    with running(config) as sidecar:
        for _ in range(5):
            assert 200 == put(sidecar, 1000).status
        history = kept(sidecar)
        assert BALLAST == ballast.stat().st_size
        with filled(disk):
            full(sidecar)
            eventually(lambda: not ballast.exists())
            assert (history, 200) == (kept(sidecar)[: len(history)], sidecar.ops.get("/livez").status)
            ready = sidecar.ops.get("/readyz")
            assert (503, True) == (ready.status, str(disk) in ready.body.decode())
        eventually(lambda: is_ready(sidecar))
        eventually(lambda: put(sidecar).status == 200 and ballast.exists())
        assert history == kept(sidecar)[: len(history)]
        assert 0 == sidecar.stop()


def test_a_full_disk_is_waited_for_and_not_run_against(config, disk):
    """No history goes that could not make room anyway, and the processor is left to others."""
    with running(config) as sidecar:
        assert 200 == put(sidecar, 1000).status
        with filled(disk):
            full(sidecar, 1000)
            looks, spent = metric(sidecar, 'fsm_storage_errors_total{kind="full"}'), processor_seconds(sidecar)
            eventually(lambda: metric(sidecar, 'fsm_storage_errors_total{kind="full"}') >= looks + 2)
            assert (1, True) == (oldest(sidecar), processor_seconds(sidecar) < spent + 1.0)
        eventually(lambda: is_ready(sidecar))


def spare(configured):
    """The config of a journal at rest whose file was large, and of which little is kept."""
    with running(configured()) as sidecar:
        for _ in range(80):
            assert 200 == put(sidecar).status
        assert 0 == sidecar.stop()
    config = configured(retention={"revisions": 5})
    with running(config) as sidecar:
        eventually(lambda: oldest(sidecar) > 70)
        assert 0 == sidecar.stop()
    return config


def test_room_that_the_journal_has_to_spare_is_given_back(configured, disk):
    """Pages that its file does not need go to the disk, where what is left of the history would not be enough."""
    config = spare(configured)
    with filled(disk, leaving=300 * KIB), running(config) as sidecar:
        eventually(lambda: put(sidecar, 1000).status == 200)


def test_room_that_cannot_be_given_back_yet_is_left_where_it_is(configured, disk):
    """Pages are spare, and not a byte is free to move them with: writes are refused, and wait no longer for it."""
    config = configured(retention={"revisions": 5})
    with running(config) as sidecar:
        for _ in range(40):
            assert 200 == put(sidecar).status
        eventually(lambda: oldest(sidecar) > 30)
        assert 0 == sidecar.stop()
    with filled(disk), running(config) as sidecar:
        full(sidecar)
        assert 200 == sidecar.api.get("/v1/history").status
        problem_of(put(sidecar), 507, "storage-full")
        os.truncate(disk / "other", 0)
        eventually(lambda: put(sidecar).status == 200)


def test_it_stops_cleanly_on_a_full_disk(config, disk):
    """With exit 0: nothing that was acknowledged needs any room."""
    with running(config) as sidecar:
        last = put(sidecar).json["revision"]
        with filled(disk):
            last = max(last, full(sidecar)[1])
            assert 0 == sidecar.stop()
    with running(config) as sidecar:
        assert last == state(sidecar)["revision"]


def test_it_starts_on_a_full_disk(config, disk):
    """To be read; writes wait for room. Also when the last process was killed there, its ballast gone."""
    with running(config) as sidecar:
        last = put(sidecar).json["revision"]
        with filled(disk):
            last = max(last, full(sidecar)[1])
            sidecar.kill()
            with running(config) as again:
                assert last == state(again)["revision"]
                problem_of(put(again), 507, "storage-full")
                os.truncate(disk / "other", 0)
                eventually(lambda: put(again).status == 200)


async def test_what_is_reserved_is_at_most_an_eighth_of_a_small_disk(disk):
    """So that the defaults fit every disk."""
    async with Database(disk / "journal.db", reserve_bytes=64 * MIB, ballast_bytes=8 * MIB) as database:
        assert DISK // 8 == (disk / "journal.db.ballast").stat().st_size
        await database.probe()


def test_answers_that_are_kept_for_a_repetition_do_not_keep_it_full(config):
    """They go with the history: a disk full of them would stay full until their time is over."""
    with running(config) as sidecar:
        filler = {"state": "IDLE", "context_data": {"filler": "x" * 60_000}}
        eventually(lambda: sidecar.api.put("/v1/state", filler, idempotency_key=str(uuid4())).status == 507)
        for _ in range(100):
            eventually(lambda: sidecar.api.put("/v1/state", filler, idempotency_key=str(uuid4())).status == 200)
        assert 0 == sidecar.stop()
