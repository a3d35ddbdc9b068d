"""A loss that somebody accepted: the journal goes on under a new epoch, and everybody is told."""

import re

import pytest
from damage import (
    FIRST,
    LAST,
    all_but_the_log_missing,
    cut,
    each_loss,
    file_emptied,
    file_missing,
    files,
    found,
    log_deleted,
    one_log,
    overwritten,
    put,
    sql,
)
from sidecar_process import process, receiving, running, written

from sidecar.errors import ForeignFileError


@each_loss
async def test_an_accepted_loss_is_the_end_of_it(journal_of, damage, kind, told):
    """What survived stays, under a new epoch; its newest state is stated again beyond all that was lost. Then all is well."""
    intact, whole = await found(journal_of(kind))
    path = journal_of(kind)
    damage(path)
    seen, history = await found(path, accept_data_loss=True)

    assert intact.epoch != seen.epoch
    assert re.search(told, "; ".join(seen.given_up))
    if history:
        *kept, restated = history
        assert (LAST + 1, kept[-1][2]) == (restated[0], restated[2])
        assert set(kept) <= set(whole)
    else:
        assert (LAST if damage is not all_but_the_log_missing else 0) == seen.head
    again, same = await found(path)
    assert (seen.epoch, seen.head, (), history) == (again.epoch, again.head, again.given_up, same)


@pytest.mark.parametrize("damage", [cut, overwritten, file_missing, file_emptied, all_but_the_log_missing])
async def test_what_cannot_be_read_is_kept(journal_of, damage):
    """Under another name, byte by byte, for whoever can still get something out of it. Revisions go on beyond all lost ones."""
    path = journal_of("ended" if damage in (cut, overwritten) else "crashed")
    damage(path)
    before = {name: content for name, content in files(path).items() if name in ("journal.db", "journal.db-wal")}
    seen, _ = await found(path, accept_data_loss=True)
    kept = {re.sub(r"\.damaged-[0-9TZ.]+", "", file): content for file, content in files(path).items() if ".damaged-" in file}

    assert before == kept
    assert (LAST if damage is not all_but_the_log_missing else 0) == seen.head


@pytest.mark.parametrize("kind", ["crashed", "ended"])
async def test_accepting_a_loss_where_there_is_none_changes_nothing(journal_of, kind):
    """The flag may stay in a deployment by mistake: the epoch, the history and the files are as without it."""
    path = journal_of(kind)
    plain, names = await found(path), set(files(path))
    accepting = await found(journal_of(kind), accept_data_loss=True)

    assert plain == accepting
    assert ((), names) == (accepting[0].given_up, set(files(path)))


NEWER = "PRAGMA user_version = 1000"
FOREIGN = {"of a newer version": NEWER, "of somebody else": "PRAGMA application_id = 7; PRAGMA user_version = 3"}


@pytest.mark.parametrize("script", FOREIGN.values(), ids=FOREIGN)
async def test_what_is_not_ours_is_not_ours_to_give_up(journal_of, script):
    """It is refused as without the flag, and neither moved nor changed."""
    path = journal_of("ended")
    sql(script)(path)
    before = files(path)
    with pytest.raises(ForeignFileError):
        await found(path, accept_data_loss=True)

    assert before == files(path)


def test_everybody_is_told_of_an_accepted_loss(tmp_path):
    """Subscribers by a gap, writers by a conflict, the log's readers by what is lost; and the history can still be read."""
    config = written(tmp_path, journal=one_log(tmp_path))
    with receiving() as hook:
        with running(config) as sidecar:
            sidecar.api.put("/v1/subscribers/console", {"url": hook.url})
            put(sidecar, FIRST - 1)
            hook.wait_for_revision(FIRST)
            assert 0 == sidecar.stop()
        with running(config) as sidecar:
            put(sidecar, LAST - FIRST)
            old = sidecar.api.get("/v1/state")
            sidecar.kill()
        log_deleted(tmp_path / "journal.db")
        with process("run", "--config", config, "--accept-data-loss") as sidecar:
            (loss,) = sidecar.wait_for("data_loss_accepted")
            got = hook.wait_for_revision(LAST + 1)
            now, history = sidecar.api.get("/v1/state"), sidecar.api.get("/v1/history").json["entries"]
            stale = sidecar.api.put("/v1/state", {"state": "ACTIVE"}, if_match=old.etag)
            repeated = sidecar.api.put("/v1/state", {"state": "ACTIVE"}, if_match=f'"{old.json["epoch"]}-{FIRST - 1}"')
            assert 0 == sidecar.stop()
        with running(config) as sidecar:
            assert now.json == sidecar.api.get("/v1/state").json
            assert 200 == sidecar.api.put("/v1/state", {"state": "ACTIVE"}, if_match=now.etag).status
            assert [] == sidecar.events("data_loss_accepted")
            following = hook.wait_for_revision(LAST + 2)

    assert ("error", True) == (loss["level"], "revisions 11 to 20 are missing" in loss["loss"])
    assert old.json["epoch"] != now.json["epoch"] == got.data["epoch"] == loss["epoch"]
    assert (FIRST, LAST - FIRST) == (got.data["previous_revision"], got.data["skipped"])
    assert (LAST + 1, 0) == (following.data["previous_revision"], following.data["skipped"])
    assert [412, 412] == [stale.status, repeated.status]
    assert [*range(1, FIRST + 1), LAST + 1] == [entry["revision"] for entry in history]
    assert f"needle-{FIRST}." == now.json["snapshot"]["context_data"]["place"] == got.data["snapshot"]["context_data"]["place"]
