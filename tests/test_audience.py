"""The audience: one limit and one count for everybody who listens."""

import asyncio

import pytest

from sidecar.audience import Audience
from sidecar.errors import StateStoreError, SubscriberLimitError
from sidecar.store import AsyncStateStore


def test_there_are_as_many_places_as_the_limit_says():
    """One more is refused, and told the limit; nobody else is touched."""
    audience = Audience(2)
    audience.join("a")
    audience.join("b")
    with pytest.raises(SubscriberLimitError) as refused:
        audience.join("c")

    assert 2 == refused.value.limit
    assert isinstance(refused.value, StateStoreError)
    assert ["a", "b"] == audience.subscriber_ids
    assert 2 == len(audience)


def test_a_limit_of_zero_lets_nobody_in():
    """A store without listeners."""
    with pytest.raises(SubscriberLimitError):
        Audience(0).join("a")


async def test_many_who_join_at_once_do_not_exceed_the_limit():
    """The limit is checked and the place taken in one step, whoever asks."""
    store = AsyncStateStore(max_subscribers=10)
    answers = await asyncio.gather(*(store.subscribe(f"r{n}") for n in range(100)), return_exceptions=True)

    assert 10 == sum(isinstance(each, asyncio.Queue) for each in answers)
    assert 90 == sum(isinstance(each, SubscriberLimitError) for each in answers)


def test_a_place_is_given_back_by_leaving():
    """The next one gets it."""
    audience = Audience(1)
    audience.join("a").leave()
    audience.join("b")

    assert ["b"] == audience.subscriber_ids


def test_leaving_twice_gives_back_one_place():
    """Not that of somebody else."""
    audience = Audience(2)
    seat = audience.join("a")
    audience.join("a")
    seat.leave()
    seat.leave()

    assert 1 == len(audience)
    assert ["a"] == audience.subscriber_ids


def test_one_id_may_have_several_places():
    """Readers in the process choose their ids themselves."""
    audience = Audience(3)
    for _ in range(3):
        audience.join("unknown")

    assert ["unknown"] * 3 == audience.subscriber_ids


def test_who_had_a_place_before_a_restart_is_admitted_beyond_the_limit():
    """A lowered limit takes nobody's place away; it only lets no new one in."""
    audience = Audience(1)
    for each in "abc":
        audience.admit(each)

    assert 3 == len(audience)
    with pytest.raises(SubscriberLimitError):
        audience.join("d")


def test_the_suspended_are_not_active():
    """Their places stay taken."""
    audience = Audience(3)
    seats = [audience.join(each) for each in "abc"]
    seats[1].active = False

    assert (2, 3) == (audience.active, len(audience))


async def test_readers_and_subscribers_share_the_limit():
    """Whoever comes first, of whichever kind."""
    audience = Audience(2)
    store = AsyncStateStore(audience=audience)
    webhook = audience.join("webhook")
    await store.subscribe("reader")
    with pytest.raises(SubscriberLimitError):
        await store.subscribe("one more")
    webhook.leave()
    await store.subscribe("one more")

    assert ["reader", "one more"] == audience.subscriber_ids
    assert 2 == (await store.get_subscriber_info())["max_subscribers"]
