"""`StateClient` for tools: the end of the history, who met whom, what a write would do, and the webhook subscribers."""

import json

import pytest
from receiver import Receiver, answer, reset

from sidecar import Expectation, FsmState, IllegalTransitionError, StateVersionError, SubscriberLimitError
from sidecar.client import StateClient
from sidecar.errors import EndpointRefusedError, InvalidSnapshotError, UnknownSubscriberError

MOVES = {"BOOTING": ["IDLE"], "IDLE": ["ACTIVE"], "ACTIVE": ["IDLE"]}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LIMIT = 2


@pytest.fixture
async def sidecar(start):
    """A real one."""
    return start(fsm={"transitions": MOVES}, store={"max_subscribers": LIMIT})


@pytest.fixture
async def store(sidecar):
    async with StateClient(f"http://{sidecar.api.address}") as client:
        yield client


# --- the history and the conflicts ---


async def test_the_end_of_the_history_is_read_without_the_rest(store):
    """The newest so many, oldest first, also more than a page has; all of it where there are not so many."""
    for n in range(5):
        await store.patch(context_data={"n": n, "x": "x" * 200_000})

    assert [5, 6] == [state.revision async for state in store.history(newest=2)]
    assert [1, 2, 3, 4, 5, 6] == [state.revision async for state in store.history(newest=6)]
    assert [1, 2, 3, 4, 5, 6] == [state.revision async for state in store.history(newest=1000)]


@pytest.mark.parametrize("wrong", [{"newest": 0}, {"newest": -1}, {"newest": 2, "after": 1}], ids=str)
async def test_an_end_that_is_none_is_refused(store, wrong):
    """Before the sidecar is asked."""
    with pytest.raises(ValueError, match="give after, or newest"):
        await anext(store.history(**wrong))


async def test_conflicts_tell_who_met_whom(store):
    """The newest first, with what was tried and what stood against it."""
    await store.transition(FsmState.IDLE, "ready", source_module="planner")
    for expected in (Expectation(0), Expectation(state="BOOTING")):
        with pytest.raises(StateVersionError):
            await store.transition(FsmState.ACTIVE, "too late", expected, source_module="late")
    newest, oldest = await store.conflicts()

    assert ("wrong_expectation", "wrong_expectation") == (newest.kind, oldest.kind)
    assert ("late", "ACTIVE", "too late") == (
        newest.attempted.source_module,
        newest.attempted.state,
        newest.attempted.reason,
    )
    assert ("planner", "IDLE", 1) == (newest.against.source_module, newest.against.state, newest.against.version)
    assert Expectation(0).version == oldest.attempted.expected.version


async def test_a_word_of_a_later_version_is_no_failure():
    """A kind of conflict, a status or an outcome that this client does not know yet is shown as it is."""
    conflict = {
        "at": 1.0,
        "kind": "new",
        "reason": "new",
        "attempted": {"version": 1, "expected": None, "state": "IDLE", "source_module": "a", "reason": "b"},
        "against": {"epoch": "k3f9"},
    }
    body = json.dumps({"counts": {"new": 1}, "conflicts": [conflict]}).encode()
    async with Receiver(answer(200, body)) as remote, StateClient(f"http://127.0.0.1:{remote.port}") as store:
        (told,) = await store.conflicts()

    assert ("new", "new") == (told.kind, told.reason)


# --- trying first ---


async def test_a_dry_run_tells_what_would_be_stored(store):
    """And leaves no trace: no revision, no conflict."""
    would = await store.dry_run(FsmState.IDLE, "ready", Expectation(state="BOOTING"), source_module="planner")

    assert (FsmState.IDLE, "ready", "planner", FsmState.BOOTING) == (
        would.state,
        would.reason,
        would.source_module,
        would.prev_state,
    )
    assert FsmState.BOOTING == (await store.get()).state
    with pytest.raises(IllegalTransitionError) as refused:
        await store.dry_run(FsmState.ACTIVE, "too early")
    assert ["IDLE"] == list(refused.value.allowed)
    with pytest.raises(StateVersionError):
        await store.dry_run(FsmState.IDLE, "ready", Expectation(17))
    assert [] == await store.conflicts()


# --- subscribers ---


async def test_a_subscriber_lives_from_add_to_remove(store, hook):
    """Registered, told, pinged, changed by what is said now, removed; a second time nothing is there."""
    added = await store.subscribers.add("console", hook.url, on=["transition"], timeout=2.5, max_lag=9, begin="latest")
    assert ("console", hook.url, ("transition",), 2.5, 9) == (
        added.id,
        added.url,
        added.on,
        added.timeout,
        added.max_lag,
    )
    assert added.secret.startswith("whsec_")
    await store.transition(FsmState.IDLE, "ready")
    hook.wait_for_revision(2)
    ping = await store.subscribers.ping("console")
    assert ("delivered", 200) == (ping.outcome, ping.status)
    changed = await store.subscribers.add("console", hook.url)

    assert (("transition", "update"), None, None, None) == (changed.on, changed.timeout, changed.max_lag, changed.secret)
    assert ["console"] == [each.id for each in await store.subscribers.all()]
    assert await store.subscribers.remove("console") is True
    assert await store.subscribers.remove("console") is False
    assert [] == await store.subscribers.all()


async def test_a_ping_that_is_not_taken_is_told(store, hook):
    """As an outcome: the call itself went well."""
    await store.subscribers.add("console", hook.url)
    hook.wait_for_revision(1)
    hook.answers(answer(500))
    ping = await store.subscribers.ping("console")

    assert 500 == ping.status
    assert ping.outcome != "delivered"


async def test_secrets_are_rotated_and_not_shown_by_accident(store, hook):
    """A new one each time, with an end for the one before; a program that prints what it got prints none of them."""
    added = await store.subscribers.add("console", hook.url, secret=SECRET)
    first, second = await store.subscribers.rotate("console"), await store.subscribers.rotate("console")

    assert added.secret is None
    assert 3 == len({SECRET, first.secret, second.secret})
    assert first.previous_valid_until
    assert "whsec_" not in f"{added} {first} {second} {await store.subscribers.add('other', hook.url)}"


REFUSED = [
    (lambda all, url: all.get("nobody"), UnknownSubscriberError),
    (lambda all, url: all.ping("nobody"), UnknownSubscriberError),
    (lambda all, url: all.rotate("nobody"), UnknownSubscriberError),
    (lambda all, url: all.add("console", "ftp://x"), EndpointRefusedError),
    (lambda all, url: all.add("console", url, states=["NONE"]), InvalidSnapshotError),
    (lambda all, url: all.add("console", url, begin=99), InvalidSnapshotError),
    (lambda all, url: all.get("a/../b"), InvalidSnapshotError),
]


@pytest.mark.parametrize(("call", "error"), REFUSED)
async def test_a_refusal_is_the_error_that_it_is_elsewhere(store, hook, call, error):
    """Nobody is registered by it."""
    with pytest.raises(error):
        await call(store.subscribers, hook.url)

    assert [] == await store.subscribers.all()


async def test_one_subscriber_too_many_is_refused(store, hook):
    """With the limit; those who are there are changed all the same."""
    for name in ("a", "b"):
        await store.subscribers.add(name, hook.url)
    with pytest.raises(SubscriberLimitError) as refused:
        await store.subscribers.add("c", hook.url)

    assert LIMIT == refused.value.limit
    assert 9 == (await store.subscribers.add("a", hook.url, max_lag=9)).max_lag


async def test_a_removal_whose_answer_is_lost_is_asked_for_again():
    """And does not fail because the first one counted."""
    gone = answer(404, json.dumps({"type": "unknown-subscriber", "title": "gone", "status": 404, "detail": "gone"}).encode())
    async with Receiver(reset, gone) as remote, StateClient(f"http://127.0.0.1:{remote.port}") as store:
        assert await store.subscribers.remove("console") is False

    assert ["/v1/subscribers/console"] * 2 == [each.target for each in remote.requests]
