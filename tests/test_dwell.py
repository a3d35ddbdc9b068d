"""Stalls: a stay in a state that is longer than `fsm.max_dwell` is told once, and everywhere."""

import random
import time

import pytest
from sidecar_process import eventually, on_disk, receiving, running, written

from sidecar.dwell import Dwell
from sidecar.snapshot import FsmState
from sidecar.store import AsyncStateStore


class Agent:
    """A dwell with a limit of 10 s for IDLE and of 20 s for ACTIVE, on a clock."""

    def __init__(self):
        self.now = 5.0
        self.stopping = False
        self.told = []
        self.store = AsyncStateStore()
        self.restart()

    def restart(self):
        self.dwell = Dwell(
            self.store,
            {"IDLE": 10.0, "ACTIVE": 20.0},
            lambda stall: self.told.append(stall.state),
            stopping=lambda: self.stopping,
            clock=lambda: self.now,
        )

    async def go(self, state):
        await self.store.transition(state, "")
        await self.dwell.look()

    async def look_after(self, seconds):
        """Whether it is stalled then."""
        self.now += seconds
        await self.dwell.look()
        return self.dwell.stalled


@pytest.fixture
async def agent():
    agent = Agent()
    await agent.go(FsmState.IDLE)
    return agent


async def test_a_stay_that_is_too_long_is_told_once(agent):
    """From its limit on it is a stall, until the state changes; an update is no change."""
    assert not await agent.look_after(9.9)
    assert await agent.look_after(0.1)
    await agent.go(FsmState.IDLE)
    assert await agent.look_after(100)
    assert ["IDLE"] == agent.told

    await agent.go(FsmState.ACTIVE)
    assert not await agent.look_after(19)
    assert await agent.look_after(1)
    assert ["IDLE", "ACTIVE"] == agent.told


async def test_each_stay_has_its_whole_time(agent):
    """Also one in the same state as before, however short the time between was."""
    for _ in range(3):
        assert not await agent.look_after(9)
        await agent.store.transition(FsmState.ERROR_STATE, "")
        await agent.store.transition(FsmState.IDLE, "")
        assert not agent.dwell.stalled
    assert [] == agent.told


async def test_a_state_without_a_limit_may_be_kept(agent):
    """And so may having no state."""
    await agent.go(FsmState.ERROR_STATE)
    assert not await agent.look_after(1e6)
    empty = Dwell(AsyncStateStore(), {"IDLE": 1.0}, agent.told.append, clock=lambda: agent.now)
    await empty.look()
    assert ([], True) == (agent.told, empty.check().ok)


async def test_the_health_check_warns(agent):
    """With the state and its limit."""
    assert agent.dwell.check().ok
    await agent.look_after(10)
    check = agent.dwell.check()
    assert (False, "warning", "the agent is in IDLE for longer than 10 s") == (check.ok, check.level, check.message)


async def test_a_sidecar_that_stops_tells_nobody(agent):
    """Its own end is no stall of the agent."""
    agent.stopping = True
    await agent.look_after(100)
    assert [] == agent.told


async def test_a_stay_goes_on_over_a_restart(agent, monkeypatch):
    """By the time at which the state was entered, which the journal has. A stall may be told again."""
    await agent.look_after(10)
    entered = agent.store.state_entered_ts
    for age, told in ((9.0, 1), (10.0, 2), (-1e6, 2)):
        monkeypatch.setattr(time, "time", lambda age=age: entered + age)
        agent.restart()
        await agent.look_after(0)
        assert told == len(agent.told)


@pytest.mark.parametrize("seed", range(30))
async def test_stalls_are_what_a_model_of_them_is(seed):
    """Seeded walks of transitions, updates and time: a stall exactly when a stay reaches its limit, and each told once."""
    chance, agent, limits = random.Random(seed), Agent(), {"IDLE": 10.0, "ACTIVE": 20.0}
    state, since, told = None, 0.0, []
    for _ in range(80):
        if chance.random() < 0.4:
            target = chance.choice([FsmState.IDLE, FsmState.ACTIVE, FsmState.ERROR_STATE])
            if target.name != state:
                state, since, open_ = target.name, agent.now, True
            await agent.go(target)
        else:
            await agent.look_after(chance.choice([1.0, 5.0, 12.0]))
        stalled = state in limits and agent.now - since >= limits[state]
        if stalled and open_:
            open_ = False
            told.append(state)
        assert (stalled, told) == (agent.dwell.stalled, agent.told)


# --- over HTTP ---


def test_a_stall_is_told_everywhere_and_is_no_revision(start, hook):
    """Webhook, log, metrics and health; to who takes the state, once; the cursor stays, and the next revision has no gap."""
    with receiving() as other:
        sidecar = start(fsm={"max_dwell": {"ACTIVE": "100ms"}})
        for name, url, states in (("a", hook.url, None), ("b", other.url, ["IDLE"])):
            sidecar.api.put(f"/v1/subscribers/{name}", {"url": url} | ({"states": states} if states else {}))
        hook.wait_for(1)
        other.wait_for(1)
        entered = sidecar.api.put("/v1/state", {"state": "ACTIVE"}).json
        stall = eventually(lambda: [got for got in hook.got if got.headers["ce-type"] == "fsm.state.stalled"])[0]
        scrape, health = sidecar.ops.get("/metrics").body.decode(), sidecar.api.get("/v1/health").json
        cursor = sidecar.api.get("/v1/subscribers/a").json["cursor"]
        sidecar.api.put("/v1/state", {"state": "IDLE"})
        following, theirs = hook.wait_for_revision(3), other.wait_for_revision(3)
        after = sidecar.ops.get("/metrics").body.decode()

    data = stall.data
    assert (entered["epoch"], 2, "ACTIVE", "100ms") == tuple(data[key] for key in ("epoch", "revision", "state", "max_dwell"))
    assert abs(data["since"] - entered["snapshot"]["ts_wall"]) < 1
    assert f"{entered['epoch']}_stalled-" in stall.headers["webhook-id"]
    assert stall.headers["webhook-signature"]
    assert (2, 2, 0) == (cursor, following.data["previous_revision"], following.data["skipped"])
    assert ["fsm.state.changed"] * 2 == [got.headers["ce-type"] for got in other.got[:2]]
    assert 3 == theirs.data["revision"]
    assert 1 == sum(got.headers["ce-type"] == "fsm.state.stalled" for got in hook.got)
    assert any("ACTIVE" in warning for warning in health["warnings"])
    assert ("fsm_state_stalled 1.0" in scrape, "fsm_state_stalled 0.0" in after) == (True, True)
    assert ["ACTIVE"] == [line["state"] for line in sidecar.log if line["event"] == "state_stalled"]


def test_after_a_restart_the_stall_has_the_same_id(tmp_path, hook):
    """Whoever remembers ids tells them apart from new ones."""
    config = written(
        tmp_path,
        journal=on_disk(tmp_path),
        fsm={"max_dwell": {"BOOTING": "100ms"}},
        subscribers=[{"id": "console", "url": hook.url}],
    )
    for count in (1, 2):
        with running(config):
            stalls = eventually(
                lambda count=count: (
                    len(all_ := [got for got in hook.got if got.headers["ce-type"] == "fsm.state.stalled"]) >= count and all_
                )
            )
    assert 1 == len({stall.headers["webhook-id"] for stall in stalls})
