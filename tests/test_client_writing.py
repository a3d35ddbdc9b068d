"""`StateClient` as a real sidecar's writer: who was replaced is told so, a sign of life counts, patches do not meet."""

import asyncio
import contextlib
import time

import pytest
from receiver import answer, held

from sidecar import (
    FencedError,
    FsmSnapshot,
    FsmState,
    InvalidSnapshotError,
    StateVersionError,
    WriterHeldError,
)
from sidecar.client import Acks, StateClient, Wait
from sidecar.errors import InvalidError, NoStateError

PATIENCE_SECONDS = 20


@pytest.fixture
async def clients(start):
    """Starts a sidecar; gives two clients of it."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(**sections):
            address = start(**sections).api.address
            return [await stack.enter_async_context(StateClient(f"http://{address}")) for _ in range(2)]

        yield make


async def test_a_write_waits_until_subscribers_have_acknowledged_it(start, hook):
    """For longer than a try may take otherwise, if it is to; and it tells who has not. It counts in any case."""
    api, gate = start().api, asyncio.Event()
    hook.answers(answer(200), held(gate))
    api.put("/v1/subscribers/console", {"url": hook.url})
    hook.wait_for_revision(1)
    async with StateClient(f"http://{api.address}", timeout=1.0, retry_for=0) as store:
        writing = asyncio.create_task(store.transition(FsmState.SHUTDOWN, "mission done", wait=Wait("all", 20.0)))
        await asyncio.to_thread(hook.wait_for_revision, 2)
        late = await store.patch(context_data={"a": 1}, wait=Wait(2, 1.5))
        assert not writing.done()
        hook.call(gate.set)

        assert Acks(1, 1, True, []) == (await writing).acks
        assert Acks(2, 0, False, ["console"]) == late.acks
        assert (FsmState.SHUTDOWN, 3) == (late.snapshot.state, late.revision)


WRITES = {
    "set": lambda store: store.set(FsmSnapshot(50, FsmState.ACTIVE)),
    "transition": lambda store: store.transition(FsmState.ACTIVE, "too late"),
    "patch": lambda store: store.patch(context_data={"late": True}),
    "heartbeat": lambda store: store.heartbeat(),
    "renewal": lambda store: store.become_writer("old"),
}


@pytest.mark.parametrize("writers", ["exclusive", "any"])
async def test_in_a_rollout_the_old_client_is_fenced(clients, writers):
    """Whatever it sends, it learns who replaced it; the new one reads what it wrote last, and goes on."""
    old, new = await clients(writes={"writers": writers})
    await old.become_writer("old", takeover=True)
    await old.transition(FsmState.IDLE, "from the old one")
    await new.become_writer("new", takeover=True)
    last = await new.get_state()

    for late in WRITES.values():
        with pytest.raises(FencedError) as refused:
            await late(old)
        assert "new" == refused.value.holder.name
    assert last == await old.get_state()
    for write in WRITES.values():
        if write is not WRITES["renewal"]:
            await write(new)
    assert ("from the old one", 5) == (last.snapshot.reason, (await new.get_state()).revision)


async def test_the_lease_is_renewed_by_its_name(clients):
    """The same token, for another time from then on."""
    store, _ = await clients()
    first = await store.become_writer("agent", 10)
    renewed = await store.become_writer("agent", 60.5)

    assert ("agent", first.token) == (renewed.name, renewed.token)
    assert 40 < renewed.expires_at - first.expires_at < 60
    assert abs(renewed.expires_at - time.time() - 60.5) < PATIENCE_SECONDS


async def test_who_does_not_take_over_is_told_who_has_the_lease(clients):
    """And has not become the writer: where writers are exclusive its write is refused, too."""
    first, second = await clients(writes={"writers": "exclusive"})
    await first.become_writer("first")
    with pytest.raises(WriterHeldError) as held:
        await second.become_writer("second")

    assert "first" == held.value.holder.name
    with pytest.raises(FencedError):
        await second.transition(FsmState.IDLE, "without a token")


async def test_who_was_replaced_can_take_the_lease_back(clients):
    """When it says so: by a takeover, after which it is the other one who is fenced."""
    first, second = await clients()
    holders = [await first.writer()]
    await first.become_writer("first")
    await second.become_writer("second", takeover=True)
    holders.append(await first.writer())
    lease = await first.become_writer("first", takeover=True)
    holders.append(await second.writer())

    assert [None, "second", "first"] == [holder and holder.name for holder in holders]
    assert 1 > abs(lease.expires_at - holders[-1].expires_at)
    assert 2 == (await first.transition(FsmState.IDLE, "back")).revision
    with pytest.raises(FencedError):
        await second.transition(FsmState.ACTIVE, "too late")


async def test_the_last_will_comes_when_the_heartbeats_end(clients):
    """Not before the time that the last one gave."""
    agent, observer = await clients(heartbeat={"last_will": {"state": "ERROR_STATE"}})
    async with asyncio.timeout(PATIENCE_SECONDS), contextlib.aclosing(observer.watch()) as events:
        await anext(events)
        began = time.monotonic()
        due = await agent.heartbeat(0.3)
        will = await anext(events)

    assert time.monotonic() - began >= 0.3
    assert abs(due - time.time()) < PATIENCE_SECONDS
    assert (FsmState.ERROR_STATE, "sidecar") == (will.snapshot.state, will.snapshot.source_module)


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), 1e9])
async def test_a_wrong_ttl_is_refused(clients, ttl):
    """With its path, by both that take one."""
    store, _ = await clients()
    for call in (store.heartbeat(ttl), store.become_writer("agent", ttl)):
        with pytest.raises(InvalidError) as refused:
            await call
        assert "$.ttl" == refused.value.path


async def test_patches_of_two_clients_do_not_meet(clients):
    """All members are there, the state and its reason as before; None removes one, or all."""
    first, second = await clients()
    await first.transition(FsmState.IDLE, "ready")
    patches = [store.patch(context_data={f"{n}": {"x": n}}) for n, store in enumerate([first, second] * 5)]
    await asyncio.gather(*patches)
    everything = await first.get()

    assert ({f"{n}": {"x": n} for n in range(10)}, FsmState.IDLE, "ready") == (
        everything.context_data,
        everything.state,
        everything.reason,
    )
    fewer = {f"{n}": None for n in range(9)}
    patched = await second.patch(context_data=fewer, state_metadata={"m": [1]}, reason="tidied", source_module="tidy")
    assert ({"9": {"x": 9}}, {"m": [1]}) == (patched.snapshot.context_data, patched.snapshot.state_metadata)
    assert ("tidied", "tidy") == (patched.snapshot.reason, patched.snapshot.source_module)
    emptied = await second.patch(context_data=None)
    assert ({}, {"m": [1]}) == (emptied.snapshot.context_data, emptied.snapshot.state_metadata)


async def test_a_patch_can_expect_a_version(clients):
    """The second one comes too late."""
    store, other = await clients()
    current = await store.get()
    await other.patch(context_data={"a": 1})

    with pytest.raises(StateVersionError):
        await store.patch(context_data={"a": 2}, expected=current.version)
    assert {"a": 1} == (await store.get()).context_data


async def test_a_patch_needs_a_state(clients):
    """There is nothing that could be patched."""
    store, _ = await clients(fsm={"initial": None})
    with pytest.raises(NoStateError):
        await store.patch(context_data={})


WRONG = [{"a": float("nan")}, {"a": {1, 2}}, {1: 2}, {"a": [object()]}, [1], "text", {"a": "\ud800"}]


@pytest.mark.parametrize("wrong", WRONG, ids=ascii)
async def test_a_patch_has_only_json(clients, wrong):
    """What has no JSON form is an error: written as null it would remove the member."""
    store, _ = await clients()
    await store.patch(context_data={"a": 1})
    with pytest.raises(InvalidSnapshotError):
        await store.patch(context_data=wrong)

    assert {"a": 1} == (await store.get()).context_data
