"""The agent's heartbeat and its last will: who goes silent is put where its owner said, and nobody else is."""

import asyncio
import random
import signal

import pytest
from held_journal import HeldJournal
from sidecar_process import eventually, on_disk, problem_of, running, written

from sidecar.database import Database
from sidecar.decision import MAX_VERSION
from sidecar.errors import StorageFullError
from sidecar.heartbeat import Heartbeat, Outcome, Will
from sidecar.journal.memory import MemoryJournal
from sidecar.journal.sqlite import SqliteJournal
from sidecar.machine import Machine
from sidecar.snapshot import FsmSnapshot, FsmState
from sidecar.store import AsyncStateStore

WILL = Will(FsmState.ERROR_STATE, "AGENT_LOST", frozenset({"SHUTDOWN"}))
LADDER = {FsmState.IDLE: [FsmState.ACTIVE, FsmState.ERROR_STATE], FsmState.ACTIVE: [FsmState.IDLE]}


class Clock:
    """Stands still until a test moves it."""

    now = 5.0

    def __call__(self):
        return self.now


class Agent:
    """A heartbeat in front of a store in IDLE, on a clock."""

    def __init__(self, journal=None, will=WILL, machine=None):
        self.clock = Clock()
        self.stopping = False
        self.store = AsyncStateStore(journal=journal, machine=machine)
        self.heartbeat = Heartbeat(self.store, will, stopping=lambda: self.stopping, clock=self.clock)

    async def look_after(self, seconds):
        self.clock.now += seconds
        await self.heartbeat.look()
        return self.where

    async def go(self, state):
        await self.store.transition(state, "by the agent")

    @property
    def where(self):
        """State, reason and writer."""
        document = self.store.current.document
        return document.state, document.reason, document.source_module

    @property
    def outcomes(self):
        return {outcome.value: count for outcome, count in self.heartbeat.outcomes.items() if count}


@pytest.fixture
async def agent():
    agent = Agent()
    await agent.go(FsmState.IDLE)
    return agent


LOST = ("ERROR_STATE", "AGENT_LOST", "sidecar")


async def test_an_agent_that_goes_silent_is_put_where_its_will_says(agent):
    """Once its time is over, not before; with the transition in its history, and once."""
    agent.heartbeat.beat(10.0)
    assert "IDLE" == (await agent.look_after(9.9))[0]
    assert LOST == await agent.look_after(0.1)
    assert ("IDLE", "ERROR_STATE") == (agent.store.current.document.history[-1].from_state, "ERROR_STATE")

    await agent.go(FsmState.IDLE)  # somebody mends it while the agent is silent still
    assert "IDLE" == (await agent.look_after(1000))[0]
    assert {"executed": 1} == agent.outcomes


async def test_an_agent_that_beats_is_never_lost_nor_is_one_that_never_did(agent):
    """Each heartbeat gives the whole time anew, also one with another time."""
    assert "IDLE" == (await agent.look_after(1e6))[0]
    for ttl in (10.0, 3.0, 20.0):
        agent.heartbeat.beat(ttl)
        assert "IDLE" == (await agent.look_after(ttl - 0.1))[0]
    assert {} == agent.outcomes


async def test_a_write_is_no_sign_of_life(agent):
    """It may come from anybody."""
    agent.heartbeat.beat(10.0)
    agent.clock.now += 9
    await agent.go(FsmState.ACTIVE)
    assert LOST == await agent.look_after(1)


async def test_an_agent_that_comes_back_can_be_lost_again(agent):
    """Its heartbeat ends the silence."""
    for _ in range(2):
        agent.heartbeat.beat(10.0)
        await agent.go(FsmState.IDLE)
        assert not agent.heartbeat.silent
        assert LOST == await agent.look_after(10)
        assert agent.heartbeat.silent
    assert {"executed": 2} == agent.outcomes


@pytest.mark.parametrize("state", [FsmState.SHUTDOWN, FsmState.ERROR_STATE])
async def test_an_orderly_end_is_not_overwritten(agent, state):
    """Nor is the state written again where the will would lead."""
    agent.heartbeat.beat(10.0)
    await agent.go(state)
    assert (state.name, "by the agent", "fsm_handler") == await agent.look_after(11)
    assert {"unneeded": 1} == agent.outcomes


async def test_the_machine_is_not_forced():
    """Counted as refused, and said once."""
    agent = Agent(machine=Machine(transitions=LADDER))
    await agent.go(FsmState.ACTIVE)
    agent.heartbeat.beat(10.0)
    for _ in range(3):
        assert "ACTIVE" == (await agent.look_after(10))[0]
    assert {"refused": 1} == agent.outcomes


async def test_a_will_that_finds_no_version_left_is_refused(agent):
    """The last version may be the agent's: the sidecar goes on without its will."""
    await agent.store.set(FsmSnapshot(MAX_VERSION, FsmState.ACTIVE))
    agent.heartbeat.beat(10.0)
    for _ in range(3):
        assert "ACTIVE" == (await agent.look_after(10))[0]
    assert {"refused": 1} == agent.outcomes


async def test_a_sidecar_that_stops_executes_nothing(agent):
    """The agent stops at the same time, and is silent for that reason."""
    agent.heartbeat.beat(10.0)
    agent.stopping = True
    assert "IDLE" == (await agent.look_after(100))[0]


async def test_without_a_will_silence_is_only_told():
    """As a warning of the health check, until the agent is heard again."""
    agent = Agent(will=None)
    await agent.go(FsmState.IDLE)
    assert agent.heartbeat.check().ok
    agent.heartbeat.beat(10.0)
    assert "IDLE" == (await agent.look_after(12))[0]
    check = agent.heartbeat.check()
    assert (False, "warning", "the agent's heartbeat is overdue for 2 s") == (check.ok, check.level, check.message)
    agent.heartbeat.beat(10.0)
    assert agent.heartbeat.check().ok


async def turn():
    """One turn of the event loop: every task that was just made or answered has run up to where it waits."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_a_write_that_is_on_its_way_wins_over_the_will():
    """The will is for the state that was judged. It is judged anew only when the silence goes on as long again."""
    journal = HeldJournal()
    agent = Agent(journal)
    first = asyncio.ensure_future(agent.go(FsmState.IDLE))
    await turn()
    journal.settle()
    await first
    agent.heartbeat.beat(10.0)
    journal.settle()

    write = asyncio.ensure_future(agent.go(FsmState.ACTIVE))
    await turn()
    agent.clock.now += 10
    look = asyncio.ensure_future(agent.heartbeat.look())
    await turn()
    journal.settle()
    await turn()
    assert (True, True) == (write.done(), look.done())
    assert ("ACTIVE", {"overtaken": 1}) == (agent.where[0], agent.outcomes)
    assert "ACTIVE" == (await agent.look_after(9.9))[0]

    agent.clock.now += 0.1
    look = asyncio.ensure_future(agent.heartbeat.look())
    await turn()
    journal.settle()
    await look
    assert LOST == agent.where


async def test_times_to_live_do_not_pile_up_before_a_slow_disk():
    """One note is on its way, however often it changes; then the newest one follows."""
    journal = HeldJournal()
    agent = Agent(journal)
    for ttl in (10.0, 20.0, 30.0):
        agent.heartbeat.beat(ttl)
    assert 1 == len(journal.waiting)
    journal.settle()
    journal.settle()

    assert ({"heartbeat": b"30.0"}, 0) == (journal.notes, len(journal.waiting))


async def test_a_full_disk_delays_the_will(caplog):
    """Nothing ends; after the same time again it is tried anew. Nor is the heartbeat itself forgotten for long."""
    journal = HeldJournal()
    agent = Agent(journal)
    first = asyncio.ensure_future(agent.go(FsmState.IDLE))
    await turn()
    journal.settle()
    await first
    agent.heartbeat.beat(10.0)
    journal.fail(StorageFullError("full"))
    for last in (False, True):
        agent.clock.now += 10
        look = asyncio.ensure_future(agent.heartbeat.look())
        await turn()
        journal.settle() if last else journal.fail(StorageFullError("full"))
        await look
    assert (LOST, {"executed": 1, "failed": 1}) == (agent.where, agent.outcomes)

    agent.heartbeat.beat(10.0)
    journal.settle()
    assert {"heartbeat": b"10.0"} == journal.notes


async def test_after_a_restart_an_agent_that_ever_beat_has_its_whole_time(tmp_path):
    """That of its last heartbeat; in an agent that never sent one nothing changes."""
    for ttl in (None, 10.0, 30.0):
        async with Database(tmp_path / "journal.db") as database:
            agent = Agent(SqliteJournal(database))
            await agent.store.recover()
            await agent.heartbeat.recover()
            await agent.go(FsmState.IDLE)
            if ttl:
                agent.heartbeat.beat(ttl)
        async with Database(tmp_path / "journal.db") as database:
            agent = Agent(SqliteJournal(database))
            await agent.store.recover()
            await agent.heartbeat.recover()
            assert "IDLE" == (await agent.look_after((ttl or 1e6) - 0.1))[0]
            assert ttl is None or LOST == await agent.look_after(0.1)


@pytest.mark.parametrize("seed", range(40))
async def test_the_will_is_what_a_model_of_it_is(seed):
    """Seeded walks of heartbeats, writes, time, drains and restarts: lost exactly when silent for its time, and once."""
    chance, journal = random.Random(seed), MemoryJournal()
    agent = Agent(journal, machine=Machine(transitions={state: list(FsmState) for state in FsmState}))
    await agent.go(FsmState.IDLE)
    state, due, ttl, executed = "IDLE", None, None, 0
    for _ in range(80):
        match chance.choices(["beat", "write", "time", "restart"], [3, 2, 6, 1])[0]:
            case "beat":
                ttl = chance.choice([2.0, 5.0])
                agent.heartbeat.beat(ttl)
                due = agent.clock.now + ttl
            case "write":
                move = chance.choice(list(FsmState))
                state = move.name
                await agent.go(move)
            case "time":
                seconds = chance.choice([0.5, 1.0, 4.0])
                now = agent.clock.now + seconds
                if due is not None and now >= due:
                    due = None
                    if state not in ("SHUTDOWN", "ERROR_STATE"):
                        state, executed = "ERROR_STATE", executed + 1
                await agent.look_after(seconds)
            case "restart":
                clock, store, counted = agent.clock, agent.store, agent.heartbeat.outcomes
                agent.heartbeat = Heartbeat(store, WILL, clock=clock)
                agent.heartbeat.outcomes = counted
                await agent.heartbeat.recover()
                due = None if ttl is None else clock.now + ttl
        assert (state, executed) == (agent.where[0], agent.heartbeat.outcomes[Outcome.EXECUTED])


# --- over HTTP ---


def test_a_heartbeat_tells_when_the_next_one_is_due(start):
    """With or without a body; the state comes with it."""
    api = start(heartbeat={"ttl": "20s"}).api
    usual, asked = api.post("/v1/heartbeat"), api.post("/v1/heartbeat", {"ttl": "1.5s"})

    assert [("20s", "BOOTING"), ("1500ms", "BOOTING")] == [(each.json["ttl"], each.json["state"]) for each in (usual, asked)]
    assert 17 < usual.json["expires_at"] - asked.json["expires_at"] < 19


@pytest.mark.parametrize("wish", [{"ttl": "2h"}, {"ttl": "0s"}, {"ttl": 5}, {"tll": "5s"}])
def test_a_heartbeat_has_a_time_within_bounds(start, wish):
    """422 otherwise, and it is none."""
    sidecar = start()
    problem_of(sidecar.api.post("/v1/heartbeat", wish), 422, "invalid")
    assert "fsm_heartbeat_expires_timestamp_seconds 0.0" in sidecar.ops.get("/metrics").body.decode()


def test_a_heartbeat_without_a_body_has_no_encoding_either(start):
    """415: what is in it would not be what it seems."""
    problem_of(start().api.post("/v1/heartbeat", content_encoding="gzip"), 415, "unsupported-media-type")


def test_where_writes_are_exclusive_only_the_writer_gives_signs_of_life(start):
    """An old pod that beats on does not hide that the new one is lost."""
    api = start(writes={"writers": "exclusive"}).api
    problem_of(api.post("/v1/heartbeat"), 409, "fenced")
    old, new = (api.post("/v1/writer", {"name": name, "takeover": True}).json["token"] for name in ("old", "new"))

    problem_of(api.post("/v1/heartbeat", writer_token=old), 409, "fenced")
    assert 200 == api.post("/v1/heartbeat", writer_token=new).status


def test_the_sidecar_writes_the_will_of_an_agent_that_is_gone(tmp_path, hook):
    """The real process: subscribers hear of it, metrics and health tell it; without a token, although writes are exclusive."""
    config = written(
        tmp_path,
        journal=on_disk(tmp_path),
        writes={"writers": "exclusive"},
        heartbeat={"last_will": {"state": "ERROR_STATE"}},
        subscribers=[{"id": "console", "url": hook.url}],
    )
    with running(config) as sidecar:
        token = sidecar.api.post("/v1/writer", {"name": "agent"}).json["token"]
        sidecar.api.put("/v1/state", {"state": "ACTIVE"}, writer_token=token)
        sidecar.api.post("/v1/heartbeat", {"ttl": "100ms"}, writer_token=token)
        got = hook.wait_for_revision(3).data["snapshot"]
        health = sidecar.api.get("/v1/health").json
        scrape = sidecar.ops.get("/metrics").body.decode()
        sidecar.send(signal.SIGTERM)

    assert LOST == (got["state"], got["reason"], got["source_module"])
    assert any("heartbeat" in warning for warning in health["warnings"])
    assert 'fsm_last_wills_total{outcome="executed"} 1.0' in scrape
    assert 'fsm_health_check_ok{check="heartbeat",level="warning"} 0.0' in scrape


def test_an_agent_that_died_with_the_sidecar_is_lost_after_the_restart(tmp_path):
    """kill -9 of both: the sidecar comes back, the agent does not."""
    config = written(tmp_path, journal=on_disk(tmp_path), heartbeat={"last_will": {"state": "ERROR_STATE"}})
    with running(config) as sidecar:
        sidecar.api.put("/v1/state", {"state": "ACTIVE"})
        sidecar.api.post("/v1/heartbeat", {"ttl": "300ms"})
        sidecar.api.put("/v1/state", {"state": "ACTIVE", "reason": "durable behind the note"})
        sidecar.kill()
    with running(config) as sidecar:
        eventually(lambda: sidecar.api.get("/v1/state").json["snapshot"]["state"] == "ERROR_STATE")
