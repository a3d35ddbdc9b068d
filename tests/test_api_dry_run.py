"""Dry runs over HTTP: decided as a write is, answered with what would be stored, and without any trace."""

import pytest
from sidecar_process import problem_of

LADDER = {"transitions": {"BOOTING": ["IDLE"], "IDLE": ["ACTIVE"], "ACTIVE": ["IDLE"]}}
OF_THE_MOMENT = {"snapshot_id", "ts_mono", "ts_wall", "history"}
"""What two equal writes have each of its own."""

WRITES = {
    "PUT /v1/state": {"state": "IDLE", "reason": "go", "context_data": {"a": 1}, "version": 7},
    "POST /v1/transitions": {"to": "IDLE", "reason": "go"},
}


@pytest.fixture(params=WRITES)
def write(request):
    """Each way to write IDLE, as a function of the API and more of the query."""
    method, path = request.param.split()
    return lambda api, query="", **headers: api.ask(method, path + query, WRITES[request.param], **headers)


def settled(snapshot):
    return {name: value for name, value in snapshot.items() if name not in OF_THE_MOMENT}


def traces(sidecar):
    """All that a write, an overwritten state or a refused write would have changed."""
    names = ("fsm_sets", "fsm_version", "fsm_writer", "fsm_illegal", "fsm_unknown", "fsm_overload", "fsm_write_duration")
    metrics = [line for line in sidecar.ops.get("/metrics").body.decode().splitlines() if line.startswith(names)]
    numbers = sidecar.api.get("/v1/metrics.json").json
    counted = [numbers[name] for name in ("total_sets", "version_conflicts", "last_update_ts", "notifications_sent")]
    logged = [line for line in sidecar.log if line["event"].startswith("write_") or "illegal" in line["event"]]
    paths = ("/v1/state", "/v1/history", "/v1/conflicts")
    return [*(sidecar.api.get(path).body for path in paths), counted, metrics, logged]


def test_a_dry_run_tells_what_the_write_then_stores(start, write):
    """200 with the snapshot, no revision and no ETag; the write itself makes the same of it, but for ids and times."""
    sidecar = start(fsm=LADDER)
    before = traces(sidecar)
    dry = write(sidecar.api, "?dry_run=true")
    assert before == traces(sidecar)
    wet = write(sidecar.api, "?dry_run=false")

    assert (200, None, {"epoch", "dry_run", "snapshot"}) == (dry.status, dry.etag, set(dry.json))
    assert (wet.json["epoch"], True) == (dry.json["epoch"], dry.json["dry_run"])
    assert settled(wet.json["snapshot"]) == settled(dry.json["snapshot"])
    assert len(wet.json["snapshot"]["history"]) == len(dry.json["snapshot"]["history"])


def test_a_dry_run_creates_nothing(start, write):
    """In an empty store it tells of a first state, as 200; afterwards there is still none."""
    api = start(fsm={"initial": None}).api
    dry = write(api, "?dry_run=true", if_none_match="*")

    assert (200, "IDLE") == (dry.status, dry.json["snapshot"]["state"])
    problem_of(api.get("/v1/state"), 404, "no-state")
    assert 201 == write(api).status


REFUSED = {
    "a stale version": ("PUT", "/v1/state", {"state": "IDLE"}, {"if_match": '"{epoch}-0"'}),
    "another epoch": ("POST", "/v1/transitions", {"to": "ACTIVE"}, {"if_match": '"lost-1"'}),
    "it exists": ("PUT", "/v1/state", {"state": "IDLE"}, {"if_none_match": "*"}),
    "an enforced version": ("PUT", "/v1/state?enforce_version=true", {"state": "IDLE", "version": 1}, {}),
    "from elsewhere": ("POST", "/v1/transitions", {"to": "ACTIVE", "from": "ACTIVE"}, {}),
    "an illegal move": ("PUT", "/v1/state", {"state": "BOOTING"}, {"if_match": "*"}),
    "an illegal transition": ("POST", "/v1/transitions", {"to": "BOOTING", "from": "IDLE"}, {}),
    "no state of the machine": ("PUT", "/v1/state", {"state": "LOST"}, {"if_match": "*"}),
    "no move in the machine": ("POST", "/v1/transitions", {"to": "LOST"}, {"if_match": "*"}),
    "no start in the machine": ("POST", "/v1/transitions", {"to": "IDLE", "from": "LOST"}, {}),
    "nothing expected": ("PUT", "/v1/state", {"state": "IDLE"}, {}),
    "an unknown field": ("PUT", "/v1/state", {"state": "IDLE", "colour": 1}, {"if_match": "*"}),
    "too large": ("PUT", "/v1/state", {"state": "IDLE", "context_data": {"a": "a" * 2000}}, {"if_match": "*"}),
    "not JSON": ("POST", "/v1/transitions", b"{", {"if_match": "*"}),
}


@pytest.mark.parametrize(("method", "path", "body", "headers"), REFUSED.values(), ids=REFUSED)
def test_a_dry_run_is_refused_as_the_write_is(start, method, path, body, headers):
    """The same problem to the letter; no conflict is counted, kept or logged."""
    sidecar = start(fsm=LADDER, writes={"require_precondition": True, "max_body": "1KiB"})
    epoch = sidecar.api.post("/v1/transitions", {"to": "IDLE", "from": "BOOTING"}).json["epoch"]
    headers = {name: value.format(epoch=epoch) for name, value in headers.items()}
    before = traces(sidecar)
    dry = sidecar.api.ask(method, f"{path}{'&' if '?' in path else '?'}dry_run=true", body, **headers)
    assert before == traces(sidecar)
    wet = sidecar.api.ask(method, path, body, **headers)

    assert 400 <= dry.status < 500
    assert (wet.status, wet.headers["Content-Type"], wet.json) == (dry.status, dry.headers["Content-Type"], dry.json)


def test_a_dry_run_tells_of_a_move_that_would_only_be_warned_of(start, write):
    """As accepted, and without the warning."""
    sidecar = start(fsm={"transitions": {"IDLE": ["ACTIVE"]}, "enforcement": "warn"})
    before = traces(sidecar)

    assert 200 == write(sidecar.api, "?dry_run=true").status
    assert before == traces(sidecar)


def test_an_overwritten_state_is_not_told_of_a_dry_run(start):
    """A stale version that would get a new number masks nothing."""
    sidecar = start()
    sidecar.api.put("/v1/state", {"state": "IDLE", "version": 10})
    before = traces(sidecar)
    dry = sidecar.api.put("/v1/state?dry_run=true", {"state": "ACTIVE", "version": 3})

    assert (200, 11) == (dry.status, dry.json["snapshot"]["version"])
    assert before == traces(sidecar)


@pytest.mark.parametrize(
    ("query", "headers"),
    [("?dry_run=true", {"idempotency_key": "k"}), ("?dry_run=yes", {}), ("?dry_run=true&dry_run=true", {})],
    ids=["a key", "neither true nor false", "twice"],
)
def test_a_dry_run_has_to_be_asked_for_clearly(start, write, query, headers):
    """400: a key promises an answer that is kept, and a dry run keeps nothing. The key stays free."""
    api = start().api
    problem_of(write(api, query, **headers), 400, "malformed")

    assert 1 == api.get("/v1/state").json["revision"]
    assert 200 == write(api, **headers).status
