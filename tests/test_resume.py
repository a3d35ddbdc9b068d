"""What a restart and a crash leave of the subscribers: everything saved, and at most a moment's deliveries repeated."""

import asyncio
import shutil
import sys
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from receiver import LONG_READ, PATIENCE_SECONDS, QUICK, SECRET, TARGETS, Receiver, Sender, busy, hang, held

from sidecar.audience import Audience
from sidecar.database import Database
from sidecar.dispatch.dispatcher import HOUSEKEEPING_SECONDS
from sidecar.dispatch.roster import Reason, Roster, Settings, Status
from sidecar.dispatch.webhook import Attempt, Outcome
from sidecar.errors import StorageFullError, SubscriberLimitError
from sidecar.meters import DispatchMetrics

URL = "http://127.0.0.1:9000/hook"

PROGRAM = """
import asyncio, sys
from pathlib import Path
from receiver import Sender

async def main(path, url):
    async with Sender(Path(path)) as sender:
        await sender.register("console", url)
        while True:
            await sender.write()
            await asyncio.sleep(0.01)

asyncio.run(main(*sys.argv[1:]))
"""


async def loaded(database, *, limit=100):
    """A roster as the next process finds it, and its audience."""
    audience = Audience(limit)
    roster = Roster(database, audience, DispatchMetrics(), TARGETS, tombstone_seconds=3600.0)
    await roster.load()
    return roster, audience


async def test_everything_about_a_subscriber_survives_a_restart(database):
    """Settings, secret, cursor, status, failures, outcome: the same as before, in the same order."""
    roster, _ = await loaded(database)
    for n, status in enumerate(Status):
        each, *_ = await roster.register(f"r{n}", Settings(URL, timeout_seconds=n + 0.5, max_lag=n))
        each.cursor, each.failures, each.failing_seconds, each.last_success_at = n or None, n, n * 10.0, n * 1e9
        roster.record(each, Attempt(Outcome.SERVER_ERROR, 503, 0.1))
        if status is Status.EVICTED:
            roster.evict(each, Reason.GONE)
        else:
            roster.set_status(each, status)
    roster.configure([("configured", Settings(URL, SECRET))])
    roster.save_changed()
    again, _ = await loaded(database)

    assert [msgspec.to_builtins(each) for each in roster] == [msgspec.to_builtins(each) for each in again]
    assert 5 == len(list(again))


async def test_places_are_as_they_were_before_a_restart(database):
    """The evicted have none, and the suspended are not active."""
    roster, audience = await loaded(database)
    for status in Status:
        each, *_ = await roster.register(f"is-{status}", Settings(URL))
        roster.set_status(each, status)
    roster.evict(roster.get("is-evicted"), Reason.GONE)
    _, again = await loaded(database)

    assert ["is-active", "is-degraded", "is-suspended"] == audience.subscriber_ids == again.subscriber_ids
    assert (2, 2) == (audience.active, again.active)


async def test_a_lower_limit_sends_nobody_away(database):
    """Who was there stays; who is new is refused."""
    roster, _ = await loaded(database)
    for n in range(5):
        await roster.register(f"r{n}", Settings(URL))
    roster, audience = await loaded(database, limit=2)
    with pytest.raises(SubscriberLimitError):
        await roster.register("new", Settings(URL))

    assert 5 == len(audience) == len(roster.served())


@pytest.mark.parametrize("before", ["nothing", "a subscriber", "a tombstone"])
async def test_a_registration_that_was_answered_survives_a_crash_at_once(database, tmp_path, before):
    """Whether it adds, changes or brings back. (A long read keeps the disk from what is written after the answer.)"""
    roster, _ = await loaded(database)
    if before != "nothing":
        await roster.register("console", Settings(f"{URL}/old", SECRET))
    if before == "a tombstone":
        roster.evict(roster.get("console"), Reason.FAILING)
    registering = asyncio.create_task(roster.register("console", Settings(URL, SECRET)))
    await asyncio.sleep(0)  # it waits for the disk
    reading = asyncio.create_task(database.read(LONG_READ))
    await registering
    (tmp_path / "crashed").mkdir()
    for file in tmp_path.glob("journal.db*"):
        shutil.copy(file, tmp_path / "crashed")
    await reading
    async with Database(tmp_path / "crashed" / "journal.db") as crashed:
        [found] = (await loaded(crashed))[0]

    assert (Settings(URL, SECRET), Status.ACTIVE, None) == (found.settings, found.status, found.evicted_reason)


async def test_a_removal_that_the_disk_refused_is_not_half_a_removal(database):
    """In the end this process and the next one agree on whether the subscriber is known."""
    roster, _ = await loaded(database)
    await roster.register("console", Settings(URL))
    await database.execute("PRAGMA max_page_count = 20", ())
    async with busy(database):
        database.write("INSERT INTO subscribers VALUES ('', zeroblob(1000000))", (), lambda error: None)
        removing = asyncio.create_task(roster.remove("console"))
        await asyncio.sleep(0)  # it waits for the disk
    with pytest.raises(StorageFullError):
        await removing
    roster.save_changed()
    again, audience = await loaded(database)

    assert [each.id for each in roster] == [each.id for each in again] == audience.subscriber_ids


async def test_what_could_not_be_saved_is_saved_once_there_is_room(database):
    """A full disk takes the cursors with what shares their commit; they are not given up."""
    (roster, _), failed = await loaded(database), asyncio.Event()
    console, *_ = await roster.register("console", Settings(URL))
    await database.execute("PRAGMA max_page_count = 20", ())
    async with busy(database):
        database.write("INSERT INTO subscribers VALUES ('', zeroblob(1000000))", (), lambda error: failed.set())
        console.cursor = 5
        roster.changed(console)
        roster.save_changed()
    await failed.wait()
    roster.save_changed()
    [found] = (await loaded(database))[0]

    assert 5 == found.cursor


async def test_the_next_process_finds_what_was_in_force_when_the_disk_was_full(database):
    """A change that was refused is in force in both or in none, and so is what was there before."""
    roster, _ = await loaded(database)
    await roster.register("console", Settings(URL))
    await roster.register("large", Settings(URL + "?" + "x" * 2000))
    await database.execute("PRAGMA max_page_count = 1", ())
    with pytest.raises(StorageFullError):
        await roster.register("console", Settings(URL + "?" + "y" * 2000))
    with pytest.raises(StorageFullError):
        await roster.register("new", Settings(URL + "?" + "z" * 2000))
    roster.save_changed()
    await database.execute("PRAGMA max_page_count = 1000000", ())
    roster.save_changed()
    again, audience = await loaded(database)

    assert [(each.id, each.settings) for each in roster] == [(each.id, each.settings) for each in again]
    assert [each.id for each in roster.served()] == audience.subscriber_ids


async def test_a_restart_goes_on_where_the_last_process_stopped(opened, tmp_path):
    """Nothing twice after an orderly end, nothing left out, and no second beginning."""
    receiver = await opened(Receiver())
    for _ in range(3):
        async with Sender(tmp_path / "journal.db") as sender:
            if not list(sender.roster):
                await sender.register("console", receiver.url)
            await sender.write(3)
            await sender.delivered("console")

    assert list(range(1, 10)) == receiver.revisions
    assert [True, *[False] * 8] == [request.data["initial"] for request in receiver.requests]


async def test_what_was_on_its_way_at_a_restart_is_sent_again(opened, tmp_path):
    """Nobody knows whether it arrived; its id tells the receiver."""
    receiver = await opened(Receiver(hang, 200))
    async with Sender(tmp_path / "journal.db") as sender:
        await sender.register("console", receiver.url)
        await sender.write()
        await receiver.arrived(1)
    sender = await opened(Sender(tmp_path / "journal.db"))
    await sender.delivered("console")
    first, second = receiver.requests

    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)


async def test_failures_and_their_time_go_on_counting_after_a_restart(opened, tmp_path):
    """Otherwise a sidecar that restarts often would never evict anybody."""
    receiver = await opened(Receiver(500, 500, 500))
    async with Sender(tmp_path / "journal.db") as sender:
        subscriber = await sender.register("console", receiver.url)
        await sender.write()
        await sender.until(lambda: subscriber.failing_seconds >= 0.1)
    policy = replace(QUICK, evict_failures=subscriber.failures + 1, evict_seconds=subscriber.failing_seconds)
    sender, before = await opened(Sender(tmp_path / "journal.db", policy=policy)), len(receiver.requests)
    await sender.until(lambda: sender.roster.get("console").status is Status.EVICTED)

    assert 1 == len(receiver.requests) - before
    assert subscriber.failures + 1 == sender.roster.get("console").failures
    assert sender.roster.get("console").failing_seconds >= subscriber.failing_seconds


async def test_the_epoch_stays_the_same(opened, tmp_path):
    """So a message id never means two things."""
    epochs = []
    for _ in range(2):
        async with Sender(tmp_path / "journal.db") as sender:
            epochs.append(sender.journal.epoch)

    assert epochs[0] == epochs[1]


async def test_a_crash_repeats_at_most_the_deliveries_that_were_not_saved(opened, tmp_path):
    """No revision is left out and none comes before an earlier one; what is repeated is of the last moment."""
    receiver = await opened(Receiver())
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "journal.db"), receiver.url]
    process = await asyncio.create_subprocess_exec(*command, cwd=Path(__file__).parent)
    try:
        [first] = await receiver.arrived(1)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while receiver.requests[-1].at - first.at < 2 * HOUSEKEEPING_SECONDS:
                await receiver.arrived(len(receiver.requests) + 1)
    finally:
        process.kill()
        await process.wait()
    before = list(receiver.requests)
    sender = await opened(Sender(tmp_path / "journal.db"))
    await sender.delivered("console")
    after = receiver.requests[len(before) :]
    repeated = [request for request in before if request.revision >= after[0].revision]

    assert list(range(1, len(before) + 1)) == [request.revision for request in before]
    assert list(range(after[0].revision, sender.journal.head + 1)) == [request.revision for request in after]
    assert after[0].revision <= before[-1].revision + 1 <= sender.journal.head + 1
    assert (after[0].revision - 1, False) == (after[0].data["previous_revision"], after[0].data["initial"])
    assert not repeated or before[-1].at - repeated[0].at <= HOUSEKEEPING_SECONDS + 0.5
    assert [request.body for request in repeated] == [request.body for request in after[: len(repeated)]]


async def test_a_crash_after_the_first_delivery_does_not_begin_again(opened, tmp_path):
    """The first cursor is on disk before the second delivery: what lies between is never passed over untold."""
    receiver = await opened(Receiver(200, hang))
    async with Sender(tmp_path / "journal.db") as sender:
        await sender.write()
        await sender.register("console", receiver.url)
        await sender.write()
        await receiver.arrived(2)
        (tmp_path / "crashed").mkdir()
        for file in tmp_path.glob("journal.db*"):
            shutil.copy(file, tmp_path / "crashed")
    async with Database(tmp_path / "crashed" / "journal.db") as crashed:
        [found] = (await loaded(crashed))[0]

    assert 1 == found.cursor


async def test_a_crash_repeats_no_more_than_a_hundred_revisions(opened, tmp_path):
    """However fast they went: the cursor is saved before more are delivered."""
    gate = asyncio.Semaphore(0)
    receiver = await opened(Receiver(*[200] * 350, held(gate)))
    async with Sender(tmp_path / "journal.db") as sender:
        await sender.write()
        await sender.register("console", receiver.url)
        await sender.delivered("console")
        await sender.write(360)
        await receiver.arrived(351)
        delivered = sender.roster.get("console").cursor
        [found] = await left_by_a_crash(tmp_path)

    assert 350 == delivered
    assert 250 <= found.cursor <= 350


async def test_a_gap_is_told_in_the_same_words_after_a_crash(opened, tmp_path):
    """The cursor that it counts from is on disk before it is told: the same message comes again."""
    receiver = await opened(Receiver(200, 200, held(gate := asyncio.Semaphore(0)), hang))
    async with Sender(tmp_path / "journal.db") as sender:
        await sender.write()
        await sender.register("console", receiver.url, max_lag=2)
        await sender.delivered("console")
        await sender.write()
        await sender.delivered("console")
        await sender.write()
        await receiver.arrived(3)
        await sender.write(5)
        gate.release()
        told = (await receiver.arrived(4))[3]
        await left_by_a_crash(tmp_path)
    receiver.answers(200)
    async with Sender(tmp_path / "crashed" / "journal.db") as sender:
        await sender.delivered("console")
        again = receiver.requests[4]

    assert (8, 3, 4) == tuple(told.data[name] for name in ("revision", "previous_revision", "skipped"))
    assert (told.headers["webhook-id"], told.body) == (again.headers["webhook-id"], again.body)


async def left_by_a_crash(folder):
    """What a crash at this moment would leave in the folder `crashed`: the subscribers."""
    (folder / "crashed").mkdir()
    for file in folder.glob("journal.db*"):
        shutil.copy(file, folder / "crashed")
    shutil.copytree(folder / "crashed", folder / "looked at")
    async with Database(folder / "looked at" / "journal.db") as crashed:
        return (await loaded(crashed))[0]


async def test_lost_revisions_are_told_whatever_the_filter(opened, tmp_path):
    """What is stated after an accepted loss reaches also who has not asked for such a state, with the number of the lost."""
    receiver, path = await opened(Receiver()), tmp_path / "journal.db"
    async with Sender(path) as sender:
        await sender.write(2)
        await sender.register("console", receiver.url, states=("ACTIVE",))
        await sender.delivered("console")
    shutil.copy(path, tmp_path / "kept")
    async with Sender(path) as sender:
        await sender.write(4)
        await sender.delivered("console")
    shutil.copy(tmp_path / "kept", path)
    async with Database(path, accept_data_loss=True):
        pass
    async with Sender(path) as sender:
        await sender.delivered("console")
        counted = sender.count("fsm_webhook_gaps_total", reason="lost")
        head = sender.journal.head
    told = receiver.requests[-1]

    assert head > 6
    assert (head, 2, head - 3) == tuple(told.data[name] for name in ("revision", "previous_revision", "skipped"))
    assert 1 == counted
