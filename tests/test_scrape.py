"""Making a scrape: it keeps nobody waiting, survives a disk that hangs, and tells its own cost and faults."""

import asyncio
import shutil
import subprocess
import threading
import time

import pytest
from aiohttp.test_utils import RawTestServer
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.registry import Collector
from scraping import of, scraped
from sidecar_process import eventually, on_disk, running, written

from sidecar import metrics
from sidecar.dispatch.feed import Jump
from sidecar.dispatch.subscriber import Reason, Status
from sidecar.dispatch.target import Rule
from sidecar.dispatch.webhook import Outcome
from sidecar.meters import DispatchMetrics, StoreMetrics
from sidecar.ops import disk, exposition
from sidecar.ops.app import Ops
from sidecar.ops.exposition import Exposition
from sidecar.ops.health import Health
from sidecar.ops.looplag import LoopLag
from sidecar.tasks import running as running_task

# --- it keeps nobody waiting ---


@pytest.fixture
def opened(monkeypatch):
    """The files that a disk hung on are looked at again when the test ends."""
    gate = threading.Event()
    yield gate
    gate.set()


def test_a_disk_that_hangs_stops_neither_scrapes_nor_probes(start, tmp_path, monkeypatch, opened):
    """What was read last stays; and when the disk is back, so are its numbers."""
    sidecar = start(journal=on_disk(tmp_path))
    before, look = of(sidecar, "fsm_journal_file_bytes", file="db"), disk.file_bytes

    def hang(path):
        opened.wait()
        return {name: size + 1 for name, size in look(path).items()}

    monkeypatch.setattr(disk, "file_bytes", hang)
    hung = [of(sidecar, "fsm_journal_file_bytes", file="db") for _ in range(2)]

    assert [before, before] == hung
    assert 200 == sidecar.ops.get("/livez").status
    opened.set()
    assert eventually(lambda: of(sidecar, "fsm_journal_file_bytes", file="db") == before + 1)


async def test_scrapers_wait_for_a_disk_that_hangs_together(aiohttp_client):
    """Not one after the other: each is delayed by one look at it."""
    waiting, gate, registry = [], asyncio.Event(), CollectorRegistry()

    async def look():
        waiting.append("for the disk")
        if len(waiting) == 3:
            gate.set()
        await gate.wait()

    scrapes = Exposition(registry)
    scrapes.prepare = [look]
    client = await aiohttp_client(RawTestServer(Ops(Health(), scrapes)))
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*(client.get("/metrics") for _ in range(3)))

    assert [200] * 3 == [answer.status for answer in answers]


class Sampled(Collector):
    """One family with the value that it is given."""

    def __init__(self, value):
        self._value = value

    def collect(self):
        return [metrics.VERSION.sample([((), self._value())])]


async def test_probes_are_answered_while_a_scrape_is_written(aiohttp_client, monkeypatch):
    """The writing is not on the event loop; a second scrape waits for its turn."""
    writers, begun, gate = [], threading.Event(), threading.Event()
    choose = exposition.choose_encoder

    def slow(accept):
        writers.append(threading.current_thread())
        begun.set()
        gate.wait(10)
        return choose(accept)

    monkeypatch.setattr(exposition, "choose_encoder", slow)
    registry = CollectorRegistry()
    registry.register(Sampled(lambda: 7))
    client = await aiohttp_client(RawTestServer(Ops(Health(), Exposition(registry))))
    scrapes = [asyncio.ensure_future(client.get("/metrics")) for _ in range(2)]
    await asyncio.to_thread(begun.wait, 10)
    told = (await client.get("/livez")).status, len(writers)
    gate.set()

    assert (200, 1) == told
    assert [7, 7] == [scraped(await (await each).text(), "fsm_version") for each in scrapes]
    assert threading.main_thread() not in writers


async def test_a_scrape_that_cannot_be_made_is_counted(aiohttp_client):
    """500, and the next one tells."""
    broken, registry = [], CollectorRegistry()
    registry.register(Sampled(lambda: 7 / (not broken)))
    client = await aiohttp_client(RawTestServer(Ops(Health(), Exposition(registry))))
    broken.append("a fault of ours")
    failed = await client.get("/metrics")
    broken.clear()
    after = await (await client.get("/metrics")).text()

    assert 500 == failed.status
    assert (1, 7) == (scraped(after, "fsm_collect_errors_total"), scraped(after, "fsm_version"))
    assert scraped(after, "fsm_collect_duration_seconds") > 0


async def test_a_busy_event_loop_is_seen():
    """For as long as it was busy."""
    lag, crashed = LoopLag(), asyncio.get_running_loop().create_future()
    async with running_task(lag.run(), name="lag", crashed=crashed), asyncio.timeout(10):
        await asyncio.sleep(0)
        time.sleep(0.7)  # noqa: ASYNC251  (the fault itself: nobody else can run)
        while lag.seconds < 0.4:  # noqa: ASYNC110  (it tells nobody)
            await asyncio.sleep(0.01)

    assert lag.seconds < 10


# --- what it says of itself ---


def test_promtool_has_nothing_to_say(start, hook, tmp_path):
    """About a scrape with everything in it: names, types, help, units."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    sidecar = start(journal=on_disk(tmp_path), metrics={"writers": ["planner"]})
    sidecar.api.put("/v1/subscribers/console", {"url": hook.url})
    sidecar.api.put("/v1/state?enforce_version=true", {"state": "IDLE", "version": 0})
    hook.wait_for(1)
    told = subprocess.run(
        ["promtool", "check", "metrics"], input=sidecar.ops.get("/metrics").body, capture_output=True, check=False
    )

    assert (0, b"", b"") == (told.returncode, told.stdout, told.stderr)


def test_log_lines_are_counted_by_level(tmp_path):
    """The warning of a rejected write among them."""
    with running(written(tmp_path)) as sidecar:
        before = of(sidecar, "fsm_log_messages_total", level="warning")
        sidecar.api.put("/v1/state", {"state": "IDLE"}, if_none_match="*")
        sidecar.wait_for("write_rejected")

        assert 1 == of(sidecar, "fsm_log_messages_total", level="warning") - before
        assert 0 == of(sidecar, "fsm_log_messages_total", level="error")
        assert of(sidecar, "fsm_log_messages_total", level="info") >= 1


@pytest.mark.parametrize(
    ("family", "sections", "bound"),
    [
        ("fsm_webhook_attempt_duration_seconds", {"webhooks": {"timeout": "7s"}}, "7.0"),
        ("fsm_write_duration_seconds", {"writes": {"timeout": "3s"}}, "3.0"),
    ],
)
def test_a_configured_timeout_is_a_bound_of_its_buckets(start, family, sections, bound):
    """Otherwise nobody could see how many came near it."""
    assert of(start(**sections), f"{family}_bucket", le=bound) >= 0


def test_the_agent_and_what_is_expected_of_it_are_named(start):
    """By the configuration: its name, its faults, whether its silence is abnormal, and the limits that dashboards draw."""
    sidecar = start(
        fsm={"name": "flight", "fault_states": ["SHUTDOWN"]},
        metrics={"agent": "drone-7"},
        health={"update_expected": True},
        webhooks={"timeout": "7s", "evict_after": {"failures": 3, "time": "10m"}},
    )
    before = of(sidecar, "fsm_fault_state")
    sidecar.api.put("/v1/state", {"state": "SHUTDOWN"})

    assert 1 == of(sidecar, "fsm_agent_info", agent="drone-7", fsm="flight")
    assert (0, 1) == (before, of(sidecar, "fsm_fault_state"))
    assert 1 == of(sidecar, "fsm_update_expected")
    assert (7, 3) == (of(sidecar, "fsm_webhook_timeout_seconds"), of(sidecar, "fsm_subscriber_evict_after_failures"))


def test_error_state_is_a_fault_where_nothing_else_is_said(start):
    """And silence is not one."""
    sidecar = start()
    sidecar.api.put("/v1/state", {"state": "ERROR_STATE"})

    assert (1, 0) == (of(sidecar, "fsm_fault_state"), of(sidecar, "fsm_update_expected"))


@pytest.mark.parametrize("limit", [0, 1])
def test_as_many_subscribers_have_series_as_is_configured(start, hook, limit):
    """The others are counted."""
    sidecar = start(metrics={"subscriber_series": limit})
    for name in ("a", "b"):
        sidecar.api.put(f"/v1/subscribers/{name}", {"url": hook.url})
    text = sidecar.ops.get("/metrics").body.decode()

    assert limit == text.count("\nfsm_subscriber_cursor{")
    assert 2 - limit == of(sidecar, "fsm_subscriber_series_suppressed")


def test_the_attempts_at_a_subscriber_are_its_own(start, hook):
    """All of them, and those that failed; the lag of the one furthest behind has no name."""
    sidecar = start(webhooks={"retry": ["1ms"], "probe_interval": "10m"})
    hook.answers(500)
    sidecar.api.put("/v1/subscribers/sick", {"url": hook.url})
    eventually(lambda: of(sidecar, "fsm_subscriber_consecutive_failures", subscriber="sick") == 2)
    sidecar.api.put("/v1/state", {"state": "IDLE"})

    assert (2, 2) == tuple(
        of(sidecar, f"fsm_subscriber_{name}_total", subscriber="sick") for name in ("attempts", "attempts_failed")
    )
    assert of(sidecar, "fsm_subscriber_lag_max_revisions") == of(sidecar, "fsm_subscriber_lag_revisions", subscriber="sick") > 0


def test_what_took_long_tells_which_one_it_was():
    """By an exemplar; what was quick has none."""
    registry = CollectorRegistry()
    deliveries, writes = DispatchMetrics(registry), StoreMetrics(registry)
    for seconds in (0.001, 0.4):
        deliveries.attempted(seconds, "x" * 63)
        deliveries.propagated(seconds, "x" * 63, 2**53 - 1)
        writes.written(seconds, 17)
    writes.written(0.4, None)
    told = {
        (sample.name, float(sample.labels["le"])): sample.exemplar.labels
        for family in parse_openmetrics(generate_openmetrics(registry).decode())
        for sample in family.samples
        if sample.exemplar
    }

    assert {
        ("fsm_webhook_attempt_duration_seconds_bucket", 0.5): {"subscriber": "x" * 63},
        ("fsm_propagation_delay_seconds_bucket", 0.5): {"subscriber": "x" * 63, "revision": str(2**53 - 1)},
        ("fsm_write_duration_seconds_bucket", 0.5): {"revision": "17"},
    } == told


# --- the catalogue is true to the code ---

CLOSED_SETS = [
    (metrics.ATTEMPTS, "outcome", Outcome),
    (metrics.SKIPPED, "reason", Jump),
    (metrics.GAPS, "reason", Jump),
    (metrics.TARGETS_REFUSED, "rule", Rule),
    (metrics.EVICTIONS, "reason", Reason),
    (metrics.STATUS_CHANGES, "status", Status),
    (metrics.SUBSCRIBERS, "status", Status),
]


@pytest.mark.parametrize(("family", "label", "values"), CLOSED_SETS, ids=lambda each: getattr(each, "name", ""))
def test_the_catalogue_has_the_values_that_the_code_has(family, label, values):
    """No outcome can be counted under a value that is not documented, and none documented is never counted."""
    (declared,) = (each.values for each in family.labels if each.name == label)

    assert list(declared) == [str(value) for value in values]
