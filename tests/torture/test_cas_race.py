"""Of many who write with one expectation, exactly one wins, and the others are told who: every time, by every kind of it."""

import asyncio
import json
import time

import pytest
from racers import racers
from restarted import Restarted
from sidecar_process import on_disk, served, written
from torture import report, scale
from wire import request

RACERS = 64


# --- one expectation, by each of its kinds: the path, the header and the body of a racer, from the current state ---


def by_etag(current, me):
    tag = f'"{current["epoch"]}-{current["snapshot"]["version"]}"'
    return request("PUT", "/v1/state", {"state": "IDLE", "source_module": me}, If_Match=tag)


def by_version(current, me):
    body = {"state": "IDLE", "version": current["snapshot"]["version"] + 1, "source_module": me}
    return request("PUT", "/v1/state?enforce_version=true", body)


def by_state(current, me):
    here = current["snapshot"]["state"]
    there = "ACTIVE" if here == "IDLE" else "IDLE"
    return request("POST", "/v1/transitions", {"from": here, "to": there, "source_module": me})


def by_absence(_, me):
    return request("PUT", "/v1/state", {"state": "IDLE", "source_module": me}, If_None_Match="*")


async def winner_of(racing, ask, current, name):
    """One round: who won, if it was exactly one; and every loser was told so."""
    answers = await racing.race([ask(current, f"{name}-{n}") for n in range(RACERS)])
    winners = [told for status, told in answers if status in (200, 201)]
    losers = [told["current"] for status, told in answers if status == 412]
    assert (1, RACERS - 1) == (len(winners), len(losers)), f"round {name}: {sorted(status for status, _ in answers)}"
    (winner,) = winners
    assert {place(winner["epoch"], winner["snapshot"])} == {place(loser["epoch"], loser) for loser in losers}
    return winner


def place(epoch, snapshot):
    return epoch, snapshot["version"], snapshot["state"], snapshot["source_module"]


async def rounds(address, ask, count):
    """So many races, each for what the one before it has left. The journal has one more revision for each."""
    async with racers(address, RACERS) as racing:
        ((_, current), *_) = await racing.race([request("GET", "/v1/state")] * RACERS)
        for number in range(count):
            winner = await winner_of(racing, ask, current, number)
            assert current["revision"] + 1 == winner["revision"]
            current = winner
        assert {json.dumps(current)} == {
            json.dumps(told) for _, told in await racing.race([request("GET", "/v1/state")] * RACERS)
        }


@pytest.mark.parametrize("ask", [by_etag, by_version, by_state])
def test_one_of_64_wins(tmp_path, ask):
    """Exactly one 2xx in each round; the other 63 get 412 with the winner as the current state."""
    count, started = scale(200, 5000), time.monotonic()
    with Restarted(tmp_path, fsm={"history_limit": 2}) as sidecar:
        asyncio.run(rounds(sidecar.api.address, ask, count))
    report(f"CAS race {ask.__name__}: {count} rounds of {RACERS}, one winner each, {time.monotonic() - started:.0f} s")


def test_one_of_64_creates_the_state(tmp_path):
    """In an empty store, with `If-None-Match: *`: one 201, and the other 63 are told who was first."""
    count, started = scale(15, 200), time.monotonic()

    async def create(address):
        async with racers(address, RACERS) as racing:
            return await winner_of(racing, by_absence, None, "first")

    for number in range(count):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        with served(written(folder, journal=on_disk(folder), fsm={"initial": None})) as sidecar:
            assert 1 == asyncio.run(create(sidecar.api.address))["revision"]
    report(f"CAS race by_absence: {count} rounds of {RACERS}, one winner each, {time.monotonic() - started:.0f} s")


@pytest.mark.parametrize("mutant", ["expectations are skipped", "decisions are late"])
@pytest.mark.parametrize("ask", [by_etag, by_version, by_state])
def test_the_proof_catches(tmp_path, mutant, ask):
    """A sidecar with this mistake does not have one winner each time."""
    with Restarted(tmp_path, mutant) as sidecar, pytest.raises(AssertionError, match="round"):
        asyncio.run(rounds(sidecar.api.address, ask, 20))
