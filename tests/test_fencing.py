"""Fencing: one writer has the newest token, and whoever was replaced cannot write any more, whatever time and storage do."""

import asyncio
import contextlib
import random
import threading

import pytest
from held_journal import HeldJournal
from sidecar_process import eventually, on_disk, problem_of, running, written

from sidecar.api import heartbeat, state, writer
from sidecar.api.routing import Scope
from sidecar.client.problems import error_of, problem_in
from sidecar.conflicts import Reason
from sidecar.database import Database
from sidecar.errors import FencedError, OverloadedError, StorageFullError, StorageSlowError, WriterHeldError
from sidecar.fencing import Claim, Fence, Token
from sidecar.journal.sqlite import SqliteJournal
from sidecar.snapshot import FsmState
from sidecar.store import AsyncStateStore

NOBODY = Claim(None)
EXCLUSIVE = {"writes": {"writers": "exclusive"}}


class Clock:
    """Stands still until a test moves it."""

    now = 5.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def fence(journal, clock):
    """An exclusive fence in front of each kind of journal."""
    return Fence(journal, exclusive=True, clock=clock)


async def granted(fence, name, ttl=10.0, **options):
    """The token that `name` gets."""
    token, holder = await fence.grant(name, ttl, NOBODY, **options)
    assert name == holder.name
    return token


# --- the lease ---


async def test_each_new_writer_gets_a_larger_token_of_this_journal(journal, fence):
    """1, 2, 3: also when the one before comes back."""
    tokens = [await granted(fence, name, takeover=True) for name in ("old", "new", "old")]

    assert [Token(journal.epoch, number) for number in (1, 2, 3)] == tokens
    assert f"{journal.epoch}-3" == str(tokens[-1])
    assert 3 == fence.number


async def test_the_holder_renews_and_keeps_its_token(clock, fence):
    """By its name; the time begins anew, and may be another one."""
    first = await granted(fence, "old", 10.0)
    clock.now += 9
    assert first == await granted(fence, "old", 20.0)
    clock.now += 19

    with pytest.raises(WriterHeldError):
        await granted(fence, "new")
    clock.now += 1
    assert 2 == (await granted(fence, "new")).number


async def test_a_lease_is_held_against_others_until_it_is_over_or_taken_over(clock, fence):
    """The refusal names its holder; a takeover asks nobody."""
    await granted(fence, "old")
    with pytest.raises(WriterHeldError) as refused:
        await granted(fence, "new")

    assert "old" == refused.value.holder.name
    assert 2 == (await granted(fence, "new", takeover=True)).number
    assert "new" == fence.holder.name


async def test_the_newest_token_is_valid_until_somebody_else_takes_the_lease(clock, fence):
    """Its time being over takes nothing from it; the next one takes everything."""
    claim = Claim(await granted(fence, "old"))
    clock.now += 1e6
    assert fence.broken_by(claim) is None

    await granted(fence, "new")
    assert Reason.STALE is fence.broken_by(claim)


async def test_what_is_not_the_newest_token_is_told_apart(journal, clock):
    """Older, never given out, of another journal, none at all; the last only where writes are exclusive."""
    for exclusive, without in ((True, Reason.MISSING), (False, None)):
        fence = Fence(journal, exclusive=exclusive, clock=clock)
        for name in ("old", "new"):
            await granted(fence, name, takeover=True)
        claims = [Claim(token and Token(*token)) for token in (None, (journal.epoch, 1), (journal.epoch, 3), ("other", 2))]

        assert [without, Reason.STALE, Reason.AHEAD, Reason.EPOCH] == [fence.broken_by(claim) for claim in claims]


async def test_whoever_lost_the_lease_learns_it_when_it_renews_with_its_token(fence):
    """And does not get it back by its name, although the new holder's time is over."""
    old = Claim(await granted(fence, "old"))
    await granted(fence, "new", takeover=True)

    with pytest.raises(FencedError) as refused:
        await fence.grant("old", 10.0, old, takeover=True)
    assert "new" == refused.value.holder.name


async def test_a_takeover_that_is_repeated_takes_nothing_back(tmp_path, clock):
    """Whoever lost its answer sends it again, with its key: it has the lease still, or learns who has. After a restart too."""
    for _ in range(2):
        async with Database(tmp_path / "journal.db") as database:
            fence = Fence(SqliteJournal(database), clock=clock)
            await fence.recover()
            if not fence.number:
                first = await fence.grant("old", 10.0, NOBODY, takeover=True, key="old")
                assert first == await fence.grant("old", 10.0, NOBODY, takeover=True, key="old")
                newer, _ = await fence.grant("new", 10.0, NOBODY, takeover=True, key="new")
            for _ in range(2):
                with pytest.raises(FencedError) as refused:
                    await fence.grant("old", 10.0, NOBODY, takeover=True, key="old")
                assert "new" == refused.value.holder.name
            assert newer == (await fence.grant("new", 10.0, NOBODY, takeover=True, key="new"))[0]


async def test_the_holders_own_takeover_is_known_again_too(fence):
    """Its container starts again and takes over from itself, with the same token; sent again later, that takes nothing back."""
    first, _ = await fence.grant("old", 10.0, NOBODY, takeover=True, key="k1")
    assert first == (await fence.grant("old", 10.0, NOBODY, takeover=True, key="k2"))[0]
    newer, _ = await fence.grant("new", 10.0, NOBODY, takeover=True, key="k3")

    for key in ("k1", "k2"):
        with pytest.raises(FencedError):
            await fence.grant("old", 10.0, NOBODY, takeover=True, key=key)
    assert newer.number == fence.number


async def test_a_key_is_its_holders_own(fence):
    """Instances that all use the same one do not meet: whoever has not asked before is answered."""
    tokens = [(await fence.grant(name, 10.0, NOBODY, takeover=True, key="takeover"))[0] for name in "abc"]
    assert [1, 2, 3] == [token.number for token in tokens]


def test_a_repeated_takeover_over_http_takes_nothing_back(start):
    """A client whose connection was cut sends it again: fenced, the newer one writes on. Another key is another takeover."""
    api = start(**EXCLUSIVE).api

    def take(name, key):
        return api.post("/v1/writer", {"name": name, "takeover": True}, idempotency_key=key)

    take("old", "k1")
    newer = take("new", "k2").json["token"]
    problem_of(take("old", "k1"), 409, "fenced")
    assert 200 == api.put("/v1/state", {"state": "IDLE"}, writer_token=newer).status
    assert 200 == take("old", "k3").status
    problem_of(api.put("/v1/state", {"state": "IDLE"}, writer_token=newer), 409, "fenced")


async def test_the_newest_token_is_known_after_a_restart(tmp_path, clock):
    """With its whole time, for nobody could renew meanwhile; and the next one is larger."""
    async with Database(tmp_path / "journal.db") as database:
        first = await granted(Fence(SqliteJournal(database), clock=clock), "old", 10.0)
    clock.now += 1e6
    async with Database(tmp_path / "journal.db") as database:
        fence = Fence(SqliteJournal(database), clock=clock)
        await fence.recover()

        assert fence.broken_by(Claim(first)) is None
        with pytest.raises(WriterHeldError):
            await granted(fence, "new")
        clock.now += 10
        assert Token(first.epoch, 2) == await granted(fence, "new")


async def test_the_newest_time_to_live_is_known_after_a_restart(tmp_path, clock):
    """Not that with which the lease was taken."""
    async with Database(tmp_path / "journal.db") as database:
        fence = Fence(SqliteJournal(database), clock=clock)
        assert await granted(fence, "old", 2.0) == await granted(fence, "old", 100.0)
    async with Database(tmp_path / "journal.db") as database:
        fence = Fence(SqliteJournal(database), clock=clock)
        await fence.recover()
        clock.now += 99
        with pytest.raises(WriterHeldError):
            await granted(fence, "new")


# --- on its way to the disk ---


async def write(store, state, reason, claim):
    """Go to the state, as a writer that shows this."""
    return await store.write(lambda tail: store.moved(tail, state, reason, "pilot"), claim=claim)


async def turn():
    """One turn of the event loop: every task that was just made or answered has run up to where it waits."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_a_takeover_is_answered_when_no_older_write_is_on_its_way(clock):
    """It fences out at once, and becomes durable behind what was accepted before; nobody is told of it earlier."""
    journal = HeldJournal()
    fence = Fence(journal, clock=clock)
    store = AsyncStateStore(journal=journal, fence=fence)
    first = asyncio.ensure_future(granted(fence, "old"))
    await turn()
    journal.settle()
    old = Claim(await first)

    before = asyncio.ensure_future(write(store, FsmState.IDLE, "before", old))
    await turn()
    takeover = asyncio.ensure_future(granted(fence, "new", takeover=True))
    await turn()
    after = asyncio.ensure_future(write(store, FsmState.ACTIVE, "after", old))
    await turn()
    assert ("old", 1, False, False) == (fence.holder.name, fence.number, takeover.done(), after.done())

    journal.settle()
    await turn()
    assert ("before", False) == ((await before).document.reason, takeover.done())
    journal.settle()
    assert 2 == (await takeover).number
    await turn()
    assert after.done()
    with pytest.raises(FencedError):
        await after


async def test_a_disk_that_hangs_keeps_no_writer_waiting_for_ever(clock):
    """Who takes the lease, renews it or writes without it is answered; no further lease piles up; and the last one counts."""
    journal = HeldJournal()
    fence = Fence(journal, clock=clock)
    store = AsyncStateStore(journal=journal, fence=fence)
    wishes = [
        *(granted(fence, name, takeover=True) for name in ("old", "new")),
        granted(fence, "new"),
        write(store, FsmState.IDLE, "", Claim(Token("held", 1))),
    ]
    waiting = [asyncio.ensure_future(wish) for wish in wishes]
    await turn()
    patience = asyncio.create_task(store.answer_overdue(0.001))

    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [StorageSlowError] * 4 == [type(outcome) for outcome in outcomes]
    with pytest.raises(OverloadedError):
        await granted(fence, "third", takeover=True)
    patience.cancel()
    while journal.waiting:
        journal.settle()
    assert ("new", 2) == (fence.holder.name, fence.number)
    assert 2 == (await granted(fence, "new")).number


class Model:
    """What fencing has to be: the leases in their order, of which so many are durable, each with the requests known so far."""

    def __init__(self):
        self.leases = []
        self.durable = 0

    def newest(self):
        return self.leases[-1]["number"] if self.leases else 0

    def asked(self, name, key, takeover, now):
        """What must become of the wish: the number, or the error."""
        last = self.leases[-1] if self.leases else {"number": 0, "name": None, "known": frozenset()}
        own, again = last["name"] == name, (name, key) in last["known"]
        if own and (again or not takeover):
            last["expires"] = now + 3.0
        elif again:
            return FencedError
        elif self.leases and not own and now < last["expires"] and not takeover:
            return WriterHeldError
        else:
            known = last["known"] | {(name, key)}
            number = last["number"] + (not own)
            self.leases.append({"number": number, "name": name, "known": known, "expires": now + 3.0})
        return self.newest()


@pytest.mark.parametrize("seed", range(60))
async def test_the_old_writer_never_wins(seed):
    """Seeded walks of writers that write, renew, take over, send that again and come back, of failing storage, of time, and of
    restarts, beside a model. Each write is let in exactly if it shows the newest number at that moment."""
    chance, clock, journal, model = random.Random(seed), Clock(), HeldJournal(), Model()
    fence = Fence(journal, exclusive=True, clock=clock)
    store = AsyncStateStore(journal=journal, fence=fence)
    shown, waiting, won, lost, sent = dict.fromkeys("abc"), [], 0, 0, []

    async def written_with(number):
        await write(store, chance.choice(list(FsmState)), "", Claim(number and Token("held", number)))

    async def ask(name, key, takeover):
        shown[name] = (await fence.grant(name, 3.0, NOBODY, takeover=takeover, key=key))[0].number
        return shown[name]

    async def finish():
        """Everything that waits has become what the model says, or has failed with the storage."""
        nonlocal won, lost
        await turn()
        for task, expected in waiting:
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
            if not isinstance(outcome, StorageFullError):
                assert expected == (type(outcome) if isinstance(outcome, Exception) else outcome)
            won, lost = won + (outcome is None), lost + isinstance(outcome, FencedError)
        waiting.clear()

    for _ in range(60):
        match chance.choices(["write", "ask", "time", "settle", "fail", "restart"], [6, 3, 2, 4, 1, 1])[0]:
            case "write":
                number = shown[chance.choice("abc")]
                expected = None if number and number == model.newest() else FencedError
                waiting.append((asyncio.ensure_future(written_with(number)), expected))
            case "ask":
                wish = chance.choice("abc"), str(len(sent)), chance.random() < 0.3
                if sent and chance.random() < 0.4:
                    wish = chance.choice(sent[-5:])
                sent.append(wish)
                waiting.append((asyncio.ensure_future(ask(*wish)), model.asked(*wish, clock.now)))
            case "time":
                clock.now += chance.choice([1.0, 3.0])
            case "settle":
                while journal.waiting:
                    journal.settle()
                model.durable = len(model.leases)
                await finish()
            case "fail":
                journal.fail(StorageFullError("full"))
                del model.leases[model.durable :]
                await finish()
            case "restart" if not journal.waiting:
                await finish()
                fence = Fence(journal, exclusive=True, clock=clock)
                store = AsyncStateStore(journal=journal, fence=fence)
                await fence.recover()
                if model.leases:
                    model.leases[-1]["expires"] = clock.now + 3.0
        await turn()
        assert (model.leases[model.durable - 1]["number"] if model.durable else 0) == fence.number
    while journal.waiting:
        journal.settle()
    await finish()
    assert won + lost


# --- over HTTP ---


def put(api, state="IDLE", **headers):
    return api.put("/v1/state", {"state": state, "source_module": "pilot"}, **headers)


def lease(api, name, **wish):
    """The token that `name` gets."""
    answer = api.post("/v1/writer", {"name": name} | wish)
    assert 200 == answer.status, answer
    return answer.json["token"]


def test_exclusive_writes_take_the_newest_token(start):
    """Every way of writing; the refusal names the holder and not its token, and is a conflict that can be seen."""
    sidecar = start(**EXCLUSIVE, metrics={"writers": ["pilot"]})
    api = sidecar.api
    assert {"holder": None} == {"holder": problem_of(put(api), 409, "fenced")["holder"]}
    old = lease(api, "old", ttl="1m")
    assert 200 == put(api, writer_token=old).status
    held = problem_of(api.post("/v1/writer", {"name": "new"}), 409, "writer-held")
    new = lease(api, "new", takeover=True)

    refused = [put(api, "ACTIVE", writer_token=old), api.post("/v1/transitions", {"to": "ACTIVE"}, writer_token=old)]
    problems = [problem_of(answer, 409, "fenced") for answer in refused]
    assert ["old", "new", "new"] == [problem["holder"]["name"] for problem in (held, *problems)]
    assert all(new not in answer.body.decode() for answer in (*refused, api.get("/v1/writer")))
    assert 200 == put(api, "ACTIVE", writer_token=new).status
    assert ("exclusive", "new") == ((told := api.get("/v1/writer").json)["writers"], told["holder"]["name"])

    assert 3 == api.get("/v1/conflicts").json["counts"]["fenced"]
    counted = sidecar.ops.get("/metrics").body.decode()
    assert 'fsm_version_conflicts_total{kind="fenced",reason="stale",writer="pilot"} 1.0' in counted
    assert "fsm_writer_token 2.0" in counted
    assert ["fenced"] * 3 == [line["kind"] for line in sidecar.log if line["event"] == "write_rejected"]


BODIES = {
    "/v1/state PUT": {"state": "IDLE"},
    "/v1/state PATCH": {"context_data": {}},
    "/v1/transitions POST": {"to": "IDLE"},
    "/v1/heartbeat POST": {},
    "/v1/writer POST": {"name": "old", "takeover": True},
}


def test_every_route_that_writes_asks_for_the_newest_token(start):
    """Made from the routes: one that is new cannot be missed. Nothing changes, nor does a dry run tell what would be."""
    api = start(**EXCLUSIVE).api
    old = lease(api, "old")
    lease(api, "new", takeover=True)
    before = api.get("/v1/state").body
    for route in [route for module in (state, heartbeat, writer) for route in module.routes if route.scope is Scope.WRITE]:
        body = BODIES[f"{route.template} {route.method}"]
        kind = "application/merge-patch+json" if route.method == "PATCH" else "application/json"
        for query in ("", "?dry_run=true") if route in state.routes else ("",):
            answer = api.ask(route.method, route.template + query, body, writer_token=old, content_type=kind)
            assert "new" == problem_of(answer, 409, "fenced")["holder"]["name"]
    assert (before, "new") == (api.get("/v1/state").body, api.get("/v1/writer").json["holder"]["name"])


def test_a_client_in_python_gets_the_error_with_its_holder(start):
    """Made again from the answer."""
    api = start(**EXCLUSIVE).api
    lease(api, "new")
    answer = put(api)
    error = error_of(answer.status, problem_in(answer.status, answer.body))

    assert (FencedError, "new") == (type(error), error.holder.name)


def test_where_anybody_may_write_a_token_is_held_against_the_newest_all_the_same(start):
    """A writer that shows one wants to be stopped."""
    api = start().api
    old = lease(api, "old")
    lease(api, "new", takeover=True)

    problem_of(put(api, writer_token=old), 409, "fenced")
    assert 200 == put(api).status


@pytest.mark.parametrize("text", ["7", "k3f9-0", "k3f9-07", '"k3f9-7"', "k3f9-99999999999999999", "k3f9-٧", ""])
def test_what_is_no_token_is_malformed(start, text):
    """400, which is not the answer to an old one."""
    problem_of(put(start().api, writer_token=text.encode()), 400, "malformed")


@pytest.mark.parametrize("wish", [{}, {"name": ""}, {"name": "x" * 129}, {"name": "a", "ttl": "2h"}, {"name": "a", "ttl": 5}])
def test_a_lease_has_a_name_and_a_time_within_bounds(start, wish):
    """422 otherwise; `writes.lease.max_ttl` is the longest."""
    problem_of(start().api.post("/v1/writer", wish), 422, "invalid")


def test_a_first_answer_is_repeated_to_a_writer_that_was_replaced_since(start):
    """Its write did count: a repetition tells what was, and writes nothing."""
    api = start(**EXCLUSIVE).api
    old = lease(api, "old")
    first = put(api, writer_token=old, idempotency_key="k")
    lease(api, "new", takeover=True)

    again = put(api, writer_token=old, idempotency_key="k")
    assert (200, first.body, "true") == (again.status, again.body, again.headers["Idempotency-Replayed"])
    problem_of(put(api, writer_token=old, idempotency_key="other"), 409, "fenced")


@contextlib.contextmanager
def busy(api, token):
    """The answers to a writer that writes as fast as it can while the block runs."""
    answers, stopped = [], threading.Event()

    def write():
        while not stopped.is_set():
            answers.append(put(api, writer_token=token))

    thread = threading.Thread(target=write, name="old writer")
    thread.start()
    try:
        yield answers
    finally:
        stopped.set()
        thread.join()


def test_in_a_rollout_the_old_pod_never_wins_after_the_takeover(tmp_path):
    """It writes as fast as it can through the takeover; then the sidecar is killed, and it comes back. Three times."""
    config = written(tmp_path, journal=on_disk(tmp_path), **EXCLUSIVE)
    with running(config) as sidecar:
        token = lease(sidecar.api, "pod-0")
        sidecar.kill()
    for n in range(1, 4):
        with running(config) as sidecar:
            api = sidecar.api
            assert 200 == put(api, writer_token=token).status
            with busy(api, token) as answers:
                eventually(lambda answers=answers: len(answers) > 5)
                new = lease(api, f"pod-{n}", takeover=True)
                behind = api.get("/v1/state").json["revision"]
                answered = len(answers)
                eventually(lambda answers=answers, answered=answered: len(answers) > answered + 5)
            old = [answer.json["revision"] for answer in answers if answer.status == 200]
            assert old
            assert max(old) <= behind
            assert 409 == answers[-1].status
            assert 200 == put(api, "ACTIVE", writer_token=new).status
            sidecar.kill()
        with running(config) as sidecar:
            problem_of(put(sidecar.api, writer_token=token), 409, "fenced")
            assert f"pod-{n}" == sidecar.api.get("/v1/writer").json["holder"]["name"]
            token = new


def test_the_token_of_a_lost_journal_is_worth_nothing(tmp_path):
    """A journal in memory begins anew with the process, and so do its numbers; its epoch tells them apart."""
    config = written(tmp_path, **EXCLUSIVE)
    with running(config) as sidecar:
        lost = lease(sidecar.api, "old")
    with running(config) as sidecar:
        token = lease(sidecar.api, "new")

        assert lost.split("-")[1] == token.split("-")[1]
        problem_of(put(sidecar.api, writer_token=lost), 409, "fenced")
