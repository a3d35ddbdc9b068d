"""What looks from the side: probes, the scrape's form, and the views of the API that change nothing."""

import gzip
import time

import pytest
from aiohttp.test_utils import RawTestServer
from prometheus_client import CollectorRegistry
from receiver import Sender
from sidecar_process import eventually, on_disk, problem_of, served, written

from sidecar.access import Access
from sidecar.api.app import build_api
from sidecar.api.browsers import Browsers
from sidecar.api.request import About
from sidecar.backup import Backups
from sidecar.database import Database
from sidecar.errors import StorageFailedError
from sidecar.heartbeat import Heartbeat
from sidecar.meters import BackupMetrics, HttpMetrics
from sidecar.ops.app import Ops
from sidecar.ops.health import LOOP_DEADLINE_SECONDS, Health, Phase
from sidecar.watchers import Watchers

EMPTY = {"fsm": {"initial": None}}
LADDER = {"transitions": {"BOOTING": ["IDLE", "ERROR_STATE"], "IDLE": ["ACTIVE"], "ACTIVE": ["IDLE"]}}
PROBES = ["/startupz", "/livez", "/readyz", "/healthz"]


# --- probes ---


class Probed:
    """A health, and what its probes answer."""

    def __init__(self, client, health):
        self.client = client
        self.health = health

    async def statuses(self):
        return [(await self.client.get(path)).status for path in PROBES]

    async def failing(self):
        checks = (await (await self.client.get("/healthz")).json())["checks"]
        return {check["name"]: check["detail"] for check in checks if not check["ok"]}


@pytest.fixture
async def probed(aiohttp_client):
    health = Health()
    return Probed(await aiohttp_client(RawTestServer(Ops(health, CollectorRegistry()))), health)


PHASES = {
    Phase.STARTING: ([503, 200, 503, 503], {"started": "starting", "phase": "starting"}),
    Phase.READY: ([200, 200, 200, 200], {}),
    Phase.DRAINING: ([200, 200, 503, 503], {"phase": "draining"}),
}


@pytest.mark.parametrize(("phase", "statuses", "failing"), [(phase, *row) for phase, row in PHASES.items()])
async def test_the_probes_tell_the_phase(probed, phase, statuses, failing):
    """Started once, ready only in between; alive all the time: nothing here is mended by a restart."""
    probed.health.phase = phase

    assert (statuses, failing) == (await probed.statuses(), await probed.failing())


async def test_a_loop_that_does_not_turn_is_not_alive(probed):
    """Its deadline over, /livez fails and names it; readiness has nothing to do with it."""
    probed.health.phase = Phase.READY
    probed.health.watch_loop("steady", time.monotonic)
    probed.health.watch_loop("stuck", lambda: time.monotonic() - LOOP_DEADLINE_SECONDS - 1)

    assert [200, 503, 200, 503] == await probed.statuses()
    assert {"loop stuck": f"turned {LOOP_DEADLINE_SECONDS + 1:.1f} s ago"} == await probed.failing()


async def test_a_failed_storage_is_not_ready(probed, tmp_path):
    """503 with the cause. Alive all the same: what to do is decided elsewhere."""
    probed.health.phase = Phase.READY
    async with Database(tmp_path / "journal.db") as database:
        probed.health.watch_storage(lambda: database.failed.result() if database.failed.done() else None)
        assert [200, 200, 200, 200] == await probed.statuses()
        with pytest.raises(StorageFailedError):
            await database.execute("INSERT INTO nowhere VALUES (?)", (1,))

        assert [200, 200, 503, 503] == await probed.statuses()
        assert "nowhere" in (await probed.failing())["storage"]


def test_a_running_sidecar_is_well(start):
    """All probes pass, and /healthz lists every check."""
    ops = start().ops
    checks = ops.get("/healthz").json["checks"]

    assert [200] * 4 == [ops.get(path).status for path in PROBES]
    assert {"started", "phase", "storage", "loop dispatcher"} <= {check["name"] for check in checks}
    assert {True} == {check["ok"] for check in checks}


@pytest.mark.parametrize("path", ["/v1/state", "/v1/subscribers", "/v1/metrics.json", "/", "/v1"])
def test_the_ops_listener_shows_and_takes_no_state(start, path):
    """It is open to the cluster; the API is not."""
    ops = start().ops

    assert [404] * 4 == [ops.ask(method, path, {"state": "IDLE"}).status for method in ("GET", "PUT", "POST", "DELETE")]


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
TEXT, OPENMETRICS = "text/plain; version=0.0.4; charset=utf-8", "application/openmetrics-text; version=1.0.0; charset=utf-8"
FORMS = {
    None: TEXT,
    "*/*": TEXT,
    "text/plain": TEXT,
    "application/openmetrics-text; version=1.0.0": OPENMETRICS,
    PROMETHEUS: OPENMETRICS,
    "application/openmetrics-text; version=abc": TEXT,
    ";;,=": TEXT,
}


@pytest.mark.parametrize(("accept", "form"), FORMS.items())
def test_the_scrape_has_the_form_that_was_asked_for(start, accept, form):
    """And says so: Prometheus refuses a scrape without its Content-Type."""
    answer = start().ops.get("/metrics", accept=accept)

    assert (200, form) == (answer.status, answer.headers["Content-Type"].split("; escaping=")[0])
    assert (form == OPENMETRICS) == answer.body.endswith(b"# EOF\n")
    assert b"\nfsm_version 0.0\n" in answer.body


def test_the_scrape_can_be_compressed_and_restricted(start):
    """As Prometheus asks for it."""
    ops = start().ops
    packed, one = ops.get("/metrics", accept_encoding="gzip"), ops.get("/metrics?name[]=fsm_version")

    assert "gzip" == packed.headers["Content-Encoding"]
    assert b"\nfsm_version 0.0\n" in gzip.decompress(packed.body)
    assert ["fsm_version 0.0"] == [line for line in one.body.decode().splitlines() if not line.startswith("#")]


# --- when writes cannot be taken ---


async def api_over(sender, *, draining=False):
    limits = {
        "max_body_bytes": 1 << 20,
        "max_requests": 9,
        "require_precondition": False,
        "write_seconds": 10.0,
        "about": About("agent", "default", ()),
    }
    flags = {"draining": lambda: draining, "stopping": lambda: draining}
    parts = sender.store, sender.dispatcher, Backups(None, BackupMetrics())
    parts = *parts, Watchers(sender.store.journal), Heartbeat(sender.store)
    api = build_api(*parts, HttpMetrics(), Access(), Browsers(), **flags, **limits)
    server = RawTestServer(api)
    await server.start_server(request_factory=api.request)
    return server


async def test_a_full_disk_is_told_and_over_when_there_is_space(aiohttp_client, opened, tmp_path):
    """507 and Retry-After; nothing has changed, and reading works all the time."""
    sender = await opened(Sender(tmp_path / "journal.db"))
    api = await aiohttp_client(await api_over(sender))
    big = {"state": "ACTIVE", "context_data": {"x": "x" * 500_000}}
    await api.put("/v1/state", json={"state": "IDLE"})
    await sender.database.execute("PRAGMA max_page_count = 20", ())
    before = await (await api.get("/v1/state")).read()
    answer = await api.put("/v1/state", json=big)

    assert (507, "10") == (answer.status, answer.headers["Retry-After"])
    assert "storage-full" == (await answer.json(content_type="application/problem+json"))["type"]
    assert before == await (await api.get("/v1/state")).read()
    await sender.database.execute("PRAGMA max_page_count = 100000", ())
    assert 2 == (await (await api.put("/v1/state", json=big)).json())["revision"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/state"), ("PUT", "/v1/state"), ("GET", "/v1/nowhere"), ("POST", "/v1/transitions")]
)
async def test_a_sidecar_that_has_closed_sends_everybody_away(aiohttp_client, opened, tmp_path, method, path):
    """503 draining with Retry-After, whatever was asked; nothing is applied."""
    sender = await opened(Sender(tmp_path / "journal.db"))
    api = await aiohttp_client(await api_over(sender, draining=True))
    answer = await api.request(method, path, json={"state": "IDLE"})

    assert (503, "1", "draining") == (
        answer.status,
        answer.headers["Retry-After"],
        (await answer.json(content_type=None))["type"],
    )
    assert sender.store.current is None


# --- views ---


def test_the_health_is_what_the_store_says(start):
    """Always 200: it is an answer, not a probe. Unhealthy before the first state, and when too many writes conflict."""
    api = start(**EMPTY).api
    empty = api.get("/v1/health").json
    for _ in range(10):
        api.put("/v1/state", {"state": "IDLE"})
    well = api.get("/v1/health").json
    for _ in range(2):
        api.put("/v1/state", {"state": "IDLE"}, if_none_match="*")
    sick = api.get("/v1/health")

    assert {"healthy", "issues", "warnings", "metrics", "timestamp"} == set(well)
    assert [(False, 1), (True, 0), (False, 1)] == [(each["healthy"], len(each["issues"])) for each in (empty, well, sick.json)]
    assert ("not initialised" in empty["issues"][0], "conflict" in sick.json["issues"][0]) == (True, True)
    assert (200, 10, 2) == (sick.status, sick.json["metrics"]["total_sets"], sick.json["metrics"]["version_conflicts"])
    assert set(api.get("/v1/metrics.json").json) == set(well["metrics"])


def test_the_numbers_are_what_the_store_says(start):
    """`get_metrics`, before there is a state and after."""
    api = start(**EMPTY).api
    empty = api.get("/v1/metrics.json").json
    api.put("/v1/state", {"state": "IDLE", "version": 5})
    api.get("/v1/state")
    numbers = api.get("/v1/metrics.json").json

    assert (-1, "UNINITIALIZED", 0, 0) == tuple(
        empty[key] for key in ("current_version", "current_state", "total_sets", "last_update_ts")
    )
    assert (5, "IDLE", 1, 1) == tuple(numbers[key] for key in ("current_version", "current_state", "total_sets", "total_gets"))
    assert numbers["creation_ts"] <= numbers["last_update_ts"] <= time.time()


def test_the_lost_writes_are_remembered(start):
    """Newest first: of which kind, who tried what, against whom, and when."""
    api = start(fsm=LADDER).api
    epoch = api.get("/v1/state").json["epoch"]
    lost = {"state": "IDLE", "source_module": "late", "reason": "why"}
    api.put("/v1/state?enforce_version=true", lost | {"version": 0})
    api.put("/v1/state", lost, if_match=f'"{epoch}-7"')
    api.put("/v1/state", lost, if_match='"lostlost-0"')
    api.put("/v1/state", lost | {"state": "SHUTDOWN"})
    answer = api.get("/v1/conflicts").json
    kinds = ["illegal_transition", "wrong_epoch", "wrong_expectation", "stale_version"]
    expected = [None, {"version": 0, "epoch": "lostlost"}, {"version": 7, "epoch": epoch}, {"below": 0}]

    assert kinds == [each["kind"] for each in answer["conflicts"]]
    assert ["machine", "epoch", "ahead", "equal"] == [each["reason"] for each in answer["conflicts"]]
    assert expected == [each["attempted"]["expected"] for each in answer["conflicts"]]
    assert {("late", "why")} == {
        (each["attempted"]["source_module"], each["attempted"]["reason"]) for each in answer["conflicts"]
    }
    assert ["SHUTDOWN", "IDLE", "IDLE", "IDLE"] == [each["attempted"]["state"] for each in answer["conflicts"]]
    assert [(epoch, 0, "BOOTING", "initial_boot")] * 4 == [
        tuple(each["against"][key] for key in ("epoch", "version", "state", "source_module")) for each in answer["conflicts"]
    ]
    assert sorted((each["at"] for each in answer["conflicts"]), reverse=True) == [each["at"] for each in answer["conflicts"]]
    assert dict.fromkeys(kinds, 1) | {"fenced": 0, "masked": 0} == answer["counts"]


def test_the_machine_is_told(start):
    """What is configured, where the agent is and where it may go from there."""
    api = start(fsm=LADDER | {"enforcement": "warn"}).api
    machine = api.get("/v1/machine").json

    assert ["UNSPECIFIED", "BOOTING", "IDLE", "ACTIVE", "ERROR_STATE", "SHUTDOWN"] == machine["states"]
    assert ("BOOTING", "BOOTING", "warn") == tuple(machine[key] for key in ("initial", "current", "enforcement"))
    assert (["IDLE", "ERROR_STATE"], ["ACTIVE"], []) == tuple(
        machine["transitions"][key] for key in ("BOOTING", "IDLE", "SHUTDOWN")
    )
    assert ["IDLE", "ERROR_STATE"] == machine["allowed"]


def test_a_machine_without_rules_allows_every_state(start):
    """Also before there is a state."""
    machine = start(fsm={"states": ["ON", "OFF"], "initial": None}).api.get("/v1/machine").json

    assert (None, None, None, ["ON", "OFF"]) == tuple(machine[key] for key in ("transitions", "initial", "current", "allowed"))


def test_the_machine_can_be_drawn(start):
    """As a Mermaid state diagram; JSON stays the default."""
    api = start(fsm=LADDER).api
    answer = api.get("/v1/machine?format=mermaid")
    lines = [line.strip() for line in answer.body.decode().splitlines()]

    assert (200, "text/plain; charset=utf-8") == (answer.status, answer.headers["Content-Type"])
    assert ("stateDiagram-v2", "[*] --> BOOTING") == (lines[0], lines[1])
    assert {"BOOTING --> IDLE", "IDLE --> ACTIVE", "class BOOTING current"} <= set(lines)
    assert api.get("/v1/machine").body == api.get("/v1/machine?format=json").body


def test_the_state_comes_with_what_the_store_knows_about_itself(start):
    """`get_with_meta`, and the same document as /v1/state; null while there is none."""
    api = start(**EMPTY, store={"max_subscribers": 7, "queue_size": 3}).api
    empty = api.get("/v1/state/meta").json
    api.put("/v1/state", {"state": "IDLE"})
    meta, state = api.get("/v1/state/meta").json, api.get("/v1/state").json
    told = {"has_state": True, "current_version": 0, "subscriber_count": 0, "max_subscribers": 7, "queue_size": 3}

    assert (None, 0, False, -1) == (
        empty["snapshot"],
        empty["revision"],
        empty["meta"]["has_state"],
        empty["meta"]["current_version"],
    )
    assert state == {key: meta[key] for key in ("epoch", "revision", "snapshot")}
    assert told.items() <= meta["meta"].items()
    assert (1, "IDLE") == (meta["meta"]["store_metrics"]["total_sets"], meta["meta"]["store_metrics"]["current_state"])


def revisions(answer):
    return [entry["revision"] for entry in answer.json["entries"]]


def test_the_history_is_read_in_pages(start):
    """Oldest first, from the beginning or after a revision; each entry is what the write was answered."""
    api = start().api
    answers = [api.put("/v1/state", {"state": "IDLE", "reason": f"number {n}"}).json for n in range(2, 8)]
    first, rest = api.get("/v1/history?limit=3"), api.get("/v1/history?after=3")

    assert ([1, 2, 3], [4, 5, 6, 7]) == (revisions(first), revisions(rest))
    assert answers == first.json["entries"][1:] + rest.json["entries"]
    assert (1, 7, answers[0]["epoch"]) == tuple(first.json[key] for key in ("oldest", "head", "epoch"))
    assert [] == revisions(api.get("/v1/history?after=7")) == revisions(api.get("/v1/history?after=9000"))


def test_a_history_that_is_no_longer_kept_is_gone(tmp_path):
    """410 with the oldest revision there is; without `after` the page begins there. The head always stays."""
    with served(written(tmp_path, journal=on_disk(tmp_path))) as sidecar:
        for _ in range(4):
            sidecar.api.put("/v1/state", {"state": "IDLE"})
    kept = {"journal": on_disk(tmp_path) | {"retention": {"revisions": 2}}, "webhooks": {"max_lag": 2}}
    with served(written(tmp_path, **kept)) as sidecar:
        eventually(lambda: sidecar.api.get("/v1/history").json["oldest"] == 4)

        assert 4 == problem_of(sidecar.api.get("/v1/history?after=2"), 410, "compacted")["oldest"]
        assert [4, 5] == revisions(sidecar.api.get("/v1/history")) == revisions(sidecar.api.get("/v1/history?after=3"))
        assert 5 == sidecar.api.get("/v1/state").json["revision"]
