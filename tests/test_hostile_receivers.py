"""Hostile receivers: each has its outcome and its reason, ends at its own time, and harms nobody beside it.

What one attempt makes of TLS faults, names, redirects and Retry-After is proven in test_webhook.py, the schedule in
test_delivery.py, 410 in test_eviction.py, bounds on the places in test_dispatcher.py.
"""

import asyncio
import os
import ssl
import subprocess
from pathlib import Path

import pytest
from hostile import ACKNOWLEDGE, NEVER_ACKNOWLEDGE, OK, without_reading
from msgspec.structs import replace
from receiver import QUICK, Receiver, Sender, answer, held, raw
from sidecar_process import eventually, free_port, running, written

from sidecar.dispatch.roster import Status
from sidecar.dispatch.webhook import Outcome

IMPATIENT = replace(QUICK, timeout_seconds=0.3, connect_timeout_seconds=0.2, max_retry_after_seconds=0.05)
COUNT = 20


@pytest.fixture
async def sender(opened, tmp_path):
    """A sender that gives an attempt 0.3 seconds."""
    return await opened(Sender(tmp_path / "journal.db", policy=IMPATIENT))


async def beside(sender, opened, url):
    """The subscriber at this URL and what a healthy one got beside it, of which it is told all."""
    healthy = await opened(Receiver())
    hostile = await sender.register("hostile", url)
    await sender.register("healthy", healthy.url)
    await sender.write()
    await sender.delivered("healthy")
    await sender.write(COUNT)
    await sender.delivered("healthy")
    assert list(range(1, COUNT + 2)) == healthy.revisions
    return hostile


async def assert_fails(sender, hostile, outcome):
    """It is tried again and again, always with this outcome, and keeps its place."""
    await sender.until(lambda: hostile.failures >= 3)
    counted = {str(name): sender.count("fsm_webhook_attempts_total", outcome=name) for name in Outcome}
    assert {outcome, "delivered"} == {name for name, count in counted.items() if count}
    assert counted[outcome] >= 3
    assert (outcome, None) == (hostile.last_outcome, hostile.cursor)
    assert hostile.status in (Status.DEGRADED, Status.SUSPENDED)


@pytest.mark.parametrize(("give", "outcome"), NEVER_ACKNOWLEDGE.values(), ids=NEVER_ACKNOWLEDGE)
async def test_who_never_acknowledges_fails_with_its_reason_and_harms_nobody(sender, opened, give, outcome):
    """A healthy one gets every revision while it is still tried."""
    receiver = await opened(Receiver(give))
    hostile = await beside(sender, opened, receiver.url)

    await assert_fails(sender, hostile, outcome)


@pytest.mark.parametrize("give", ACKNOWLEDGE.values(), ids=ACKNOWLEDGE)
async def test_who_spoils_the_rest_of_its_200_has_acknowledged(sender, opened, give):
    """Whatever follows costs at most the timeout of its own attempt."""
    receiver = await opened(Receiver(give))
    hostile = await beside(sender, opened, receiver.url)
    await sender.until(lambda: (hostile.cursor or 0) >= 2)

    assert (Status.ACTIVE, 0, "delivered") == (hostile.status, hostile.failures, hostile.last_outcome)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_where_a_redirect_leads_nobody_comes(sender, opened, status):
    """Not with the first attempt, and with no retry."""
    canary = await opened(Receiver())
    receiver = await opened(Receiver(answer(status, Location=canary.url)))
    hostile = await beside(sender, opened, receiver.url)

    await assert_fails(sender, hostile, "redirect")
    assert 0 == canary.connections


@pytest.mark.parametrize(("url", "outcome"), [("http://127.0.0.1:{port}/", "connect"), ("http://console.invalid/", "dns")])
async def test_who_is_not_there_harms_nobody(sender, opened, url, outcome):
    """Nobody listens, or the name is unknown."""
    hostile = await beside(sender, opened, url.format(port=free_port()))

    await assert_fails(sender, hostile, outcome)


async def test_who_answers_before_it_has_read_is_no_reason_to_stop(sender, opened):
    """The healthy one beside it gets all; what it says is taken or the connection is found closed, and nothing is raised."""
    async with await asyncio.start_server(without_reading, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        hostile = await beside(sender, opened, f"http://127.0.0.1:{port}/")
        await sender.until(lambda: hostile.last_outcome is not None)

    assert hostile.last_outcome in ("delivered", "disconnected")


async def test_a_kept_connection_that_was_closed_is_no_failure(sender, opened):
    """The message goes out again over a new one at once."""
    silently = raw(OK + b"Content-Length: 0\r\n\r\n")  # keeps it, as it says, and then closes
    receiver = await opened(Receiver(answer(200), answer(200), raw(b""), answer(200), silently, answer(200)))
    subscriber = await sender.register("console", receiver.url)
    for _ in range(5):  # the first one is over a connection of its own: nobody knows this receiver yet
        await sender.write()
        await sender.delivered("console")

    assert [1, 2, 3, 3, 4, 5] == receiver.revisions
    assert 0 == sender.count("fsm_webhook_attempts_total", outcome="disconnected")
    assert 0 == sender.count("fsm_subscriber_status_changes_total", status="degraded")
    assert (Status.ACTIVE, 0) == (subscriber.status, subscriber.failures)


async def test_a_backlog_drains_in_order_and_holds_nobody_up(sender, opened):
    """Each revision once it is back; meanwhile another is as far as the writes are."""
    gate = asyncio.Semaphore(0)
    late, healthy = await opened(Receiver(200, 500, held(gate))), await opened(Receiver())
    await sender.register("late", late.url, timeout_seconds=20.0)
    await sender.register("healthy", healthy.url)
    await sender.write()
    await sender.delivered("late", "healthy")
    await sender.write(50)
    for _ in range(50):
        gate.release()
        await sender.write()
        await sender.delivered("healthy")
        assert sender.roster.get("late").cursor < sender.journal.head
    for _ in range(51):
        gate.release()
    await sender.delivered("late")

    assert [1, 2, *range(2, 102)] == late.revisions
    assert list(range(1, 102)) == healthy.revisions


# --- TLS, and memory: in a process of its own, which trusts the tests' authority ---


def signed(folder, name, *, names, days):
    """A server's TLS context with a certificate for these names, signed by the authority in the folder."""

    def openssl(command):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)

    if not (folder / "ca.pem").exists():
        openssl(f"req -x509 {KEY} -days 9 -subj /CN=authority -keyout ca.key -out ca.pem")
    (folder / "names").write_text(f"subjectAltName={names}\n")
    openssl(f"req {KEY} -subj /CN={name} -keyout {name}.key -out {name}.csr")
    openssl(f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -days {days} -extfile names -out {name}.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
HASTY = {"timeout": "2s", "connect_timeout": "1s", "retry": ["10ms"], "probe_interval": "50ms"}


async def test_a_certificate_that_is_expired_or_for_another_host_is_refused(opened, tmp_path):
    """One that is right is taken, by the same process from the same authority."""
    ours = "IP:127.0.0.1"
    contexts = {
        "right": signed(tmp_path, "right", names=ours, days=2),
        "expired": signed(tmp_path, "expired", names=ours, days=-1),
        "foreign": signed(tmp_path, "foreign", names="DNS:elsewhere.example", days=2),
    }
    receivers = {name: await opened(Receiver(tls=context)) for name, context in contexts.items()}
    outcomes = await asyncio.to_thread(outcomes_at, tmp_path, {name: each.url for name, each in receivers.items()})

    assert {"right": "delivered", "expired": "tls", "foreign": "tls"} == outcomes
    assert [1, 0, 0] == [min(1, len(each.requests)) for each in receivers.values()]


def outcomes_at(folder, urls):
    """What the first attempts of a process at these URLs come to."""
    env = {"SSL_CERT_FILE": str(folder / "ca.pem")}
    with running(written(folder, webhooks=HASTY), env=env) as sidecar:
        for name, url in urls.items():
            assert 201 == sidecar.api.put(f"/v1/subscribers/{name}", {"url": url}).status
        return {name: eventually(lambda name=name: last_outcome(sidecar, name)) for name in urls}


def last_outcome(sidecar, name):
    return sidecar.api.get(f"/v1/subscribers/{name}").json["last_outcome"]


async def test_bombs_and_endless_bodies_take_no_memory(opened, tmp_path):
    """Fifty messages to each: the process has not grown by the size of one of them."""
    receivers = [await opened(Receiver(ACKNOWLEDGE[kind])) for kind in ("endless body", "gzip bomb")]
    grown = await asyncio.to_thread(growth, tmp_path, receivers, 50)

    assert grown < 32 << 20


def growth(folder, receivers, count):
    """How many bytes a process grows while these get so many revisions."""
    with running(written(folder, webhooks=HASTY)) as sidecar:
        sidecar.wait_for("ready")
        before = resident(sidecar.pid)
        for n, receiver in enumerate(receivers):
            assert 201 == sidecar.api.put(f"/v1/subscribers/r{n}", {"url": receiver.url}).status
        for n in range(count):
            assert sidecar.api.put("/v1/state", {"state": "IDLE" if n % 2 else "ACTIVE"}).status < 300
        eventually(lambda: all(len(receiver.requests) >= count for receiver in receivers))
        return resident(sidecar.pid) - before


def resident(pid):
    """The memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
