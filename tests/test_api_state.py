"""Reading and writing the state over HTTP: who gets which answer, and what is stored."""

import functools
import itertools
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from sidecar_process import eventually, problem_of

EMPTY = {"fsm": {"initial": None}}
LADDER = {"transitions": {"BOOTING": ["IDLE", "ERROR_STATE"], "IDLE": ["ACTIVE"], "ACTIVE": ["IDLE"]}}
LAST = 2**53 - 1


@pytest.fixture
def api(start):
    """The API of a sidecar in BOOTING, version 0."""
    return start().api


def place(answer):
    """The version and the state that the answer tells, and the revision."""
    snapshot = answer.json["snapshot"]
    return snapshot["version"], snapshot["state"], answer.json["revision"]


def moves(answer):
    return [(item["from_state"], item["to_state"]) for item in answer.json["snapshot"]["history"]]


# --- GET /v1/state ---


def test_the_state_is_told_with_its_epoch_revision_and_etag(api):
    """A fresh sidecar holds the initial state as version 0, revision 1."""
    answer = api.get("/v1/state")

    assert (200, "application/json") == (answer.status, answer.headers["Content-Type"])
    assert {"epoch", "revision", "snapshot"} == set(answer.json)
    assert (0, "BOOTING", 1) == place(answer)
    assert f'"{answer.json["epoch"]}-0"' == answer.etag
    assert ("COLD_START", "initial_boot") == tuple(answer.json["snapshot"][key] for key in ("reason", "source_module"))


@pytest.mark.parametrize("header", ["{etag}", "W/{etag}", '"other-1", {etag}', '"a,b" ,{etag}', "*"])
def test_a_reader_that_has_the_state_is_told_so_without_a_body(api, header):
    """304 with the ETag: If-None-Match compares weakly, takes lists and *."""
    etag = api.get("/v1/state").etag
    answer = api.get("/v1/state", if_none_match=header.format(etag=etag))

    assert (304, etag, b"") == (answer.status, answer.etag, answer.body)


def test_a_reader_that_has_an_older_state_gets_the_new_one(api):
    """200, also when the version is the same and only the epoch differs."""
    etag = api.get("/v1/state").etag
    api.put("/v1/state", {"state": "IDLE"})

    assert (1, "IDLE", 2) == place(api.get("/v1/state", if_none_match=etag))
    assert 200 == api.get("/v1/state", if_none_match='"otherone-1"').status


def test_without_a_state_there_is_nothing_to_read(start):
    """404 until somebody writes one."""
    api = start(**EMPTY).api

    problem_of(api.get("/v1/state"), 404, "no-state")
    assert 201 == api.put("/v1/state", {"state": "IDLE"}).status
    assert 200 == api.get("/v1/state").status


# --- PUT /v1/state ---


def test_the_first_write_creates_and_the_next_ones_replace(start):
    """201, then 200; each answers what is stored, which is what a reader gets, byte for byte."""
    api = start(**EMPTY).api
    for status, state, expected in ((201, "IDLE", (0, "IDLE", 1)), (200, "ACTIVE", (1, "ACTIVE", 2))):
        written, read = api.put("/v1/state", {"state": state}), api.get("/v1/state")

        assert (status, expected) == (written.status, place(written))
        assert (read.body, read.etag) == (written.body, written.etag)


def test_every_field_of_a_snapshot_is_kept(api):
    """As it was sent: ids, times, history and data."""
    move = {"from_state": "IDLE", "to_state": "ACTIVE", "trigger_event": "go", "status": "FAILED", "error_message": "no"}
    body = {
        "version": 7,
        "state": "ACTIVE",
        "reason": "straße ✓",
        "ts_mono": 1.5,
        "ts_wall": 2.5,
        "snapshot_id": "s-1",
        "fsm_instance_id": "agent-1",
        "prev_state": "SHUTDOWN",
        "source_module": "planner",
        "attempt_count": 3,
        "history": [move | {"ts_mono": 1.25, "ts_wall": 2.25}],
        "context_data": {"a": [1, {"b": None}], "": 2**63},
        "state_metadata": {"x": 0.1},
    }

    assert body == api.put("/v1/state", body).json["snapshot"]
    assert body == api.get("/v1/state").json["snapshot"]


def test_what_a_write_leaves_open_goes_on_where_it_stood(api):
    """Version, state left behind, attempts, history and instance; a new id and the time of now. The data is the writer's."""
    api.put("/v1/state", {"state": "BOOTING", "context_data": {"a": 1}, "reason": "why", "source_module": "planner"})
    before = api.post("/v1/transitions", {"to": "IDLE"}).json["snapshot"]
    moved = api.put("/v1/state", {"state": "ACTIVE"}).json["snapshot"]
    stayed = api.put("/v1/state", {"state": "ACTIVE", "prev_state": None}).json["snapshot"]
    counted = [(each["version"], each["prev_state"], each["attempt_count"]) for each in (before, moved, stayed)]

    assert [(2, "BOOTING", 1), (3, "IDLE", 2), (4, "IDLE", 2)] == counted
    assert 1 == len({each["fsm_instance_id"] for each in (before, moved, stayed)})
    assert 3 == len({uuid.UUID(each["snapshot_id"]) for each in (before, moved, stayed)})
    assert before["ts_wall"] < moved["ts_wall"] < stayed["ts_wall"]
    moves = [[(move["from_state"], move["to_state"]) for move in each["history"]] for each in (before, moved, stayed)]
    assert [("BOOTING", "IDLE")] == moves[0]
    assert [("BOOTING", "IDLE"), ("IDLE", "ACTIVE")] == moves[1] == moves[2]
    assert ("", "fsm_handler", {}) == tuple(moved[key] for key in ("reason", "source_module", "context_data"))


def test_an_instance_id_that_is_given_takes_over(api):
    """The agent may name itself; later writes inherit the name."""
    api.put("/v1/state", {"state": "IDLE", "fsm_instance_id": "agent-7"})

    assert "agent-7" == api.put("/v1/state", {"state": "ACTIVE"}).json["snapshot"]["fsm_instance_id"]


# the agent is at version 10; a writer sends this one
WITHOUT_A_CHECK = {"newer": (11, 11), "far ahead": (500, 500), "the last": (LAST, LAST), "equal": (10, 11), "older": (3, 11)}


@pytest.mark.parametrize(("version", "stored"), WITHOUT_A_CHECK.values(), ids=WITHOUT_A_CHECK)
def test_an_unchecked_write_is_always_stored_and_never_goes_back(api, version, stored):
    """A newer version is taken as it is, another one is renumbered to the next; revisions have no holes."""
    api.put("/v1/state", {"state": "IDLE", "version": 10})
    answer = api.put("/v1/state", {"state": "ACTIVE", "version": version})

    assert (200, (stored, "ACTIVE", 3)) == (answer.status, place(answer))
    assert answer.etag.endswith(f'-{stored}"')


@pytest.mark.parametrize("version", [LAST, 5, None])
def test_after_the_last_version_there_is_no_other(api, version):
    """422 for whatever comes: a version is never written that readers of JSON would round."""
    api.put("/v1/state", {"state": "IDLE", "version": LAST})

    assert "$.version" == problem_of(api.put("/v1/state", {"state": "ACTIVE", "version": version}), 422, "invalid")["path"]
    problem_of(api.post("/v1/transitions", {"to": "ACTIVE"}), 422, "invalid")
    assert (LAST, "IDLE", 2) == place(api.get("/v1/state"))


@pytest.mark.parametrize(("version", "status"), [(11, 200), (400, 200), (10, 412), (9, 412), (0, 412)])
def test_an_enforced_version_has_to_be_newer(api, version, status):
    """Another one is refused, and nothing is stored."""
    api.put("/v1/state", {"state": "IDLE", "version": 10})
    answer = api.put("/v1/state?enforce_version=true", {"state": "ACTIVE", "version": version})

    stored = (version, "ACTIVE", 3) if status == 200 else (10, "IDLE", 2)

    assert (status, stored) == (answer.status, place(api.get("/v1/state")))


# --- what a write expects ---


def test_a_write_with_the_current_etag_is_applied(api):
    """On both routes, and the ETag of the answer serves for the next write."""
    first = api.put("/v1/state", {"state": "IDLE"}, if_match=api.get("/v1/state").etag)
    second = api.post("/v1/transitions", {"to": "ACTIVE"}, if_match=first.etag)

    assert [(200, (1, "IDLE", 2)), (200, (2, "ACTIVE", 3))] == [(each.status, place(each)) for each in (first, second)]


STALE = {
    "an older version": ({"if_match": '"{epoch}-0"'}, {"version": 0, "epoch": "{epoch}"}),
    "a version to come": ({"if_match": '"{epoch}-2"'}, {"version": 2, "epoch": "{epoch}"}),
    "another epoch": ({"if_match": '"lostlost-1"'}, {"version": 1, "epoch": "lostlost"}),
}


@pytest.mark.parametrize("write", ["PUT", "POST"])
@pytest.mark.parametrize(("headers", "expected"), STALE.values(), ids=STALE)
def test_a_stale_write_is_told_whom_it_lost_to(api, write, headers, expected):
    """412 with what was expected and what is there; the state is untouched."""
    current = api.put("/v1/state", {"state": "IDLE", "source_module": "winner"})
    epoch = current.json["epoch"]
    headers = {name: value.format(epoch=epoch) for name, value in headers.items()}
    path, body = {"PUT": ("/v1/state", {"state": "ACTIVE"}), "POST": ("/v1/transitions", {"to": "ACTIVE"})}[write]
    problem = problem_of(api.ask(write, path, body, **headers), 412, "version-conflict")

    assert expected | {"epoch": expected["epoch"].format(epoch=epoch)} == problem["expected"]
    assert {"epoch": epoch, "version": 1, "state": "IDLE", "source_module": "winner"}.items() <= problem["current"].items()
    assert current.json["snapshot"]["ts_wall"] == problem["current"]["ts_wall"]
    assert current.body == api.get("/v1/state").body


def test_any_state_is_expected_with_a_star(start):
    """If-Match: * is met by whatever there is, and broken by nothing."""
    api = start(**EMPTY).api
    problem = problem_of(api.put("/v1/state", {"state": "IDLE"}, if_match="*"), 412, "version-conflict")
    api.put("/v1/state", {"state": "IDLE"})

    assert {"version": -1, "state": None, "source_module": None}.items() <= problem["current"].items()
    assert 200 == api.put("/v1/state", {"state": "ACTIVE"}, if_match="*").status


@pytest.mark.parametrize(("path", "body"), [("/v1/state", {"state": "IDLE"}), ("/v1/transitions", {"to": "IDLE"})])
def test_a_write_can_ask_to_create_only(start, path, body):
    """If-None-Match: * is met once; afterwards 412 already-exists with what is there."""
    api, method = start(**EMPTY).api, "PUT" if path == "/v1/state" else "POST"
    first = api.ask(method, path, body, if_none_match="*")
    problem = problem_of(api.ask(method, path, body, if_none_match="*"), 412, "already-exists")

    assert (201, (0, "IDLE", 1)) == (first.status, place(first))
    assert (0, "IDLE") == (problem["current"]["version"], problem["current"]["state"])


def test_a_write_needs_an_expectation_where_that_is_configured(start):
    """428 without, on both routes; each way to expect something will do."""
    api = start(writes={"require_precondition": True}).api

    problem_of(api.put("/v1/state", {"state": "IDLE"}), 428, "precondition-required")
    problem_of(api.post("/v1/transitions", {"to": "IDLE"}), 428, "precondition-required")
    problem_of(api.put("/v1/state", {"state": "IDLE"}, if_none_match="*"), 412, "already-exists")
    assert 200 == api.put("/v1/state?enforce_version=true", {"state": "IDLE", "version": 5}).status
    assert 200 == api.put("/v1/state", {"state": "IDLE"}, if_match="*").status
    assert 200 == api.post("/v1/transitions", {"to": "ACTIVE", "from": "IDLE"}).status


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
def test_of_many_writers_with_one_expectation_exactly_one_wins(start, tmp_path, backend):
    """Again and again; the losers name the winner, and the counts add up."""
    api = start(journal={"backend": backend, "path": str(tmp_path / "journal.db")}).api
    for race in range(1, 6):
        etag = api.get("/v1/state").etag
        put = functools.partial(api.put, "/v1/state", if_match=etag)
        with ThreadPoolExecutor(16) as writers:
            answers = list(writers.map(put, [{"state": "IDLE", "source_module": f"w{n}"} for n in range(16)]))
        winners = [answer for answer in answers if answer.status == 200]
        losers = [problem_of(answer, 412, "version-conflict") for answer in answers if answer.status != 200]

        assert [(race, "IDLE", race + 1)] == [place(winner) for winner in winners]
        assert {winners[0].json["snapshot"]["source_module"]} == {loser["current"]["source_module"] for loser in losers}
    assert (6, 75) == tuple(api.get("/v1/metrics.json").json[key] for key in ("total_sets", "version_conflicts"))


# --- POST /v1/transitions ---


def test_a_transition_builds_the_next_snapshot(start):
    """Version, previous state, reason and history follow; data and instance stay; in an empty store it creates."""
    api = start(**EMPTY).api
    created = api.post("/v1/transitions", {"to": "IDLE", "reason": "ready"})
    api.put("/v1/state", {"state": "IDLE", "context_data": {"goal": 1}, "source_module": "planner"})
    moved = api.post("/v1/transitions", {"to": "ACTIVE", "reason": "go"})
    named = api.post("/v1/transitions", {"to": "IDLE", "source_module": "driver"}).json["snapshot"]
    snapshot = moved.json["snapshot"]

    assert (201, (0, "IDLE", 1)) == (created.status, place(created))
    assert (200, (2, "ACTIVE", 3)) == (moved.status, place(moved))
    assert ("IDLE", "go", "fsm_handler") == tuple(snapshot[key] for key in ("prev_state", "reason", "source_module"))
    assert ({"goal": 1}, 1) == (snapshot["context_data"], snapshot["attempt_count"])
    assert created.json["snapshot"]["fsm_instance_id"] == snapshot["fsm_instance_id"]
    assert {"trigger_event": "go", "status": "SUCCESS", "error_message": ""}.items() <= snapshot["history"][0].items()
    assert ("driver", {"goal": 1}) == (named["source_module"], named["context_data"])


@pytest.mark.parametrize(("limit", "kept"), [(3, 3), (0, 0), (16, 5)])
def test_the_history_in_a_snapshot_is_bounded(start, limit, kept):
    """The newest transitions stay, at most history_limit."""
    api = start(fsm={"history_limit": limit}).api
    way = ["BOOTING", "IDLE", "ACTIVE", "ERROR_STATE", "IDLE", "SHUTDOWN"]
    for state in way[1:]:
        answer = api.post("/v1/transitions", {"to": state})

    assert list(itertools.pairwise(way))[5 - kept :] == moves(answer)


def test_a_transition_to_the_same_state_is_an_update(start):
    """A new version and reason, but no entry in the history, and no move that the machine could refuse."""
    api = start(fsm=LADDER).api
    api.post("/v1/transitions", {"to": "IDLE"})
    answer = api.post("/v1/transitions", {"to": "IDLE", "reason": "still here"})

    assert (2, "IDLE", 3) == place(answer)
    assert [("BOOTING", "IDLE")] == moves(answer)
    assert ("still here", "BOOTING") == tuple(answer.json["snapshot"][key] for key in ("reason", "prev_state"))


def test_a_transition_can_name_where_it_starts(api):
    """Applied from there, 412 from elsewhere, with the state that is there."""
    lost = problem_of(api.post("/v1/transitions", {"to": "ACTIVE", "from": "IDLE"}), 412, "version-conflict")

    assert ({"state": "IDLE"}, "BOOTING") == (lost["expected"], lost["current"]["state"])
    assert (1, "ACTIVE", 2) == place(api.post("/v1/transitions", {"to": "ACTIVE", "from": "BOOTING"}))


@pytest.mark.parametrize("write", [("PUT", "/v1/state", {"state": "ACTIVE"}), ("POST", "/v1/transitions", {"to": "ACTIVE"})])
def test_the_machine_refuses_a_move_that_is_not_in_it(start, write):
    """409 with where the agent is and where it may go, the state untouched; unless the machine only watches."""
    api = start(fsm=LADDER).api
    before = api.get("/v1/state").body
    problem = problem_of(api.ask(*write), 409, "illegal-transition")

    assert ("BOOTING", "ACTIVE", ["IDLE", "ERROR_STATE"]) == tuple(problem[key] for key in ("state", "to", "allowed"))
    assert before == api.get("/v1/state").body
    for enforcement in ("warn", "off"):
        assert (1, "ACTIVE", 2) == place(start(fsm=LADDER | {"enforcement": enforcement}).api.ask(*write))


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/", "/v1/state/", "/v2/state", "/v1/State", "/v1/subscribers/a/b/c", "/metrics", "//v1/state"]
)
def test_an_unknown_path_is_not_found(api, path):
    """Whatever the method; the operator's routes are elsewhere."""
    for method in ("GET", "PUT", "POST", "DELETE"):
        problem_of(api.ask(method, path), 404, "not-found")


# --- GET /v1/history ---


@pytest.mark.parametrize(("newest", "revisions"), [(1, [7]), (3, [5, 6, 7]), (7, range(1, 8)), (1000, range(1, 8))])
def test_the_newest_revisions_can_be_asked_for(api, newest, revisions):
    """The last so many, oldest first, or all that there are; the last one is the state."""
    for _ in range(6):
        api.put("/v1/state", {"state": "IDLE"})
    answer = api.get(f"/v1/history?newest={newest}").json

    assert list(revisions) == [entry["revision"] for entry in answer["entries"]]
    assert (1, 7, api.get("/v1/state").json) == (answer["oldest"], answer["head"], answer["entries"][-1])


def test_the_newest_of_a_compacted_history_are_those_that_are_kept(start):
    """Never 410: it does not matter how many are gone."""
    api = start(journal={"backend": "memory", "retention": {"revisions": 2}}, webhooks={"max_lag": 1}).api
    for _ in range(5):
        api.put("/v1/state", {"state": "IDLE"})
    eventually(lambda: api.get("/v1/history").json["oldest"] == 5)

    assert [5, 6] == [entry["revision"] for entry in api.get("/v1/history?newest=100").json["entries"]]


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
def test_a_page_of_large_states_is_no_larger_than_a_mebibyte(start, tmp_path, backend):
    """Whoever does not read it would have it kept. The last ones are the last ones; one page follows another to the head."""
    api = start(journal={"backend": backend, "path": str(tmp_path / "journal.db"), "ballast": "0B"}).api
    for n in range(50):
        api.put("/v1/state", {"state": "IDLE", "context_data": {"n": n, "x": "x" * 200_000}})
    last, seen = api.get("/v1/history?newest=50"), [0]
    while seen[-1] < 51:
        page = api.get(f"/v1/history?after={seen[-1]}&limit=1000")
        assert len(page.body) < 2**20 + 1000
        seen += [entry["revision"] for entry in page.json["entries"]]

    assert list(range(47, 52)) == [entry["revision"] for entry in last.json["entries"]]
    assert list(range(52)) == seen


def test_without_a_state_the_history_is_empty(start):
    """However it is asked for."""
    api = start(**EMPTY).api

    assert [[], []] == [api.get(f"/v1/history{query}").json["entries"] for query in ("", "?newest=5")]


METHODS = {
    "/v1/state": ("DELETE", {"GET", "HEAD", "PUT", "PATCH"}),
    "/v1/transitions": ("GET", {"POST"}),
    "/v1/history": ("POST", {"GET", "HEAD"}),
    "/v1/subscribers": ("DELETE", {"GET", "HEAD", "POST"}),
    "/v1/subscribers/a": ("PATCH", {"GET", "HEAD", "PUT", "DELETE"}),
}


@pytest.mark.parametrize(("path", "method", "allowed"), [(path, *row) for path, row in METHODS.items()])
def test_a_wrong_method_is_told_the_right_ones(api, path, method, allowed):
    """405, and the header Allow."""
    answer = api.ask(method, path)

    problem_of(answer, 405, "method-not-allowed")
    assert allowed | {"OPTIONS"} == set(answer.headers["Allow"].split(", "))
