"""Writes that come twice, over HTTP: with the same Idempotency-Key a repetition gets the first answer again."""

import contextlib
import http.client
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from holders import bearer, entry
from secrecy import token
from sidecar_process import BASE, eventually, on_disk, problem_of, running, written

LADDER = {"transitions": {"BOOTING": ["IDLE"], "IDLE": ["ACTIVE"], "ACTIVE": ["IDLE"]}}
WRITES = {"PUT /v1/state": {"state": "IDLE", "reason": "go"}, "POST /v1/transitions": {"to": "IDLE", "reason": "go"}}


@pytest.fixture
def api(start):
    """The API of a sidecar in BOOTING, version 0, revision 1."""
    return start().api


@pytest.fixture(params=WRITES)
def write(request):
    """Each way to write IDLE, as a function of the API."""
    method, path = request.param.split()
    return lambda api, **headers: api.ask(method, path, WRITES[request.param], **headers)


def answered(answer):
    """What a repetition must have of the first answer."""
    return answer.status, answer.etag, answer.headers["Content-Type"], answer.body


def replayed(answer):
    return answer.headers["Idempotency-Replayed"] == "true"


def revision(api):
    return api.get("/v1/state").json["revision"]


def put(api, key, state="IDLE", **headers):
    return api.put("/v1/state", {"state": state}, idempotency_key=key, **headers)


def metric(ops, name):
    [value] = re.findall(rf"^{name} (\S+)$", ops.get("/metrics").body.decode(), re.MULTILINE)
    return float(value)


# --- once ---


def test_a_repeated_write_gets_the_first_answer_and_is_applied_once(api, write):
    """The same bytes and ETag, when others have written since as well. Only the repetition says that it is one."""
    first = write(api, idempotency_key="k")
    put(api, None, "ACTIVE")
    again = write(api, idempotency_key="k")

    assert (200, 2) == (first.status, first.json["revision"])
    assert answered(first) == answered(again)
    assert (None, "true") == (first.headers["Idempotency-Replayed"], again.headers["Idempotency-Replayed"])
    assert (3, "ACTIVE") == (revision(api), api.get("/v1/state").json["snapshot"]["state"])


def test_the_write_that_made_the_first_state_is_201_each_time(start, write):
    """The status is the first answer's, too."""
    api = start(fsm={"initial": None}).api
    first, again = write(api, idempotency_key="k"), write(api, idempotency_key="k")

    assert (201, False, True) == (first.status, replayed(first), replayed(again))
    assert answered(first) == answered(again)


def test_the_key_is_looked_at_before_the_version(api, write):
    """An If-Match that its own success has made stale is no conflict, and is not counted as one; nor is a fresh one."""
    etag = api.get("/v1/state").etag
    first = write(api, idempotency_key="k", if_match=etag)
    for match in (etag, first.etag):
        assert answered(first) == answered(write(api, idempotency_key="k", if_match=match))

    conflicts = api.get("/v1/conflicts").json
    assert ({0}, []) == (set(conflicts["counts"].values()), conflicts["conflicts"])
    problem_of(write(api, idempotency_key="new", if_match=etag), 412, "version-conflict")


def test_of_20_equal_writes_at_once_one_is_applied(start, tmp_path, write):
    """All 20 get the same answer; 19 of them as a replay, which are counted."""
    sidecar = start(journal=on_disk(tmp_path))
    together = threading.Barrier(20)

    def send(_):
        together.wait()
        return write(sidecar.api, idempotency_key="k")

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send, range(20)))

    assert 1 == len({answered(answer) for answer in answers})
    assert (200, 19) == (answers[0].status, sum(map(replayed, answers)))
    assert (2, 19) == (revision(sidecar.api), metric(sidecar.ops, "fsm_idempotent_replays_total"))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/state", {"state": "ACTIVE"}),
        ("PUT", "/v1/state", b'{"state":"IDLE"}'),
        ("PUT", "/v1/state?enforce_version=false", {"state": "IDLE"}),
        ("POST", "/v1/transitions", {"to": "IDLE"}),
    ],
    ids=["another body", "other bytes", "another query", "another route"],
)
def test_a_key_that_is_used_for_another_write_is_refused(api, method, path, body):
    """422; nothing is applied, and the first answer stays."""
    first = put(api, "k")
    problem_of(api.ask(method, path, body, idempotency_key="k"), 422, "idempotency-key-reused")

    assert 2 == revision(api)
    assert answered(first) == answered(put(api, "k"))


def test_a_key_is_what_stands_there(api):
    """Quoted or not are two keys, and so are upper and lower case; up to 255 characters, of which some may be spaces."""
    keys = ["k", '"k"', "K", "a b", "x" * 255, "x" * 254]

    assert list(range(2, 8)) == [put(api, key).json["revision"] for key in keys]
    assert list(range(2, 8)) == [put(api, key).json["revision"] for key in keys]


@pytest.mark.parametrize(
    "key",
    ["", "x" * 256, "a\tb", "clé", ["k", "k"], ["k", "other"]],
    ids=["empty", "256", "tab", "not ASCII", "twice", "two"],
)
def test_a_bad_key_is_refused_and_nothing_applied(api, write, key):
    """400: better than a write whose repetition would not be known."""
    problem_of(write(api, idempotency_key=key), 400, "malformed")

    assert 1 == revision(api)


@pytest.mark.parametrize("key", ["a\x01b", "a\x7fb"])
def test_a_control_character_in_a_key_is_refused_and_nothing_applied(api, write, key):
    """400, already as no HTTP."""
    assert 400 == write(api, idempotency_key=key).status

    assert 1 == revision(api)


# --- what is not remembered ---


def test_a_conflict_is_decided_anew(api, write):
    """412 each time that it is one; with the version of now the same key is a write."""
    for _ in range(2):
        problem_of(write(api, idempotency_key="k", if_match='"other-7"'), 412, "version-conflict")
    stored = write(api, idempotency_key="k", if_match=api.get("/v1/state").etag)

    assert (200, False, 2) == (stored.status, replayed(stored), stored.json["revision"])


def test_an_illegal_transition_is_decided_anew(start):
    """409 until the agent is where it may be made."""
    api = start(fsm=LADDER).api
    for _ in range(2):
        problem_of(put(api, "k", "ACTIVE"), 409, "illegal-transition")
    put(api, "up", "IDLE")
    stored = put(api, "k", "ACTIVE")

    assert (200, False, 3) == (stored.status, replayed(stored), stored.json["revision"])


def test_an_invalid_write_does_not_use_its_key_up(api):
    """422 says what is wrong; what was put right may have the same key."""
    problem_of(put(api, "k", "NOWHERE"), 422, "invalid")
    stored = put(api, "k", "IDLE")

    assert (200, False, 2) == (stored.status, replayed(stored), stored.json["revision"])


# --- for a while ---


def test_after_its_time_a_key_is_new(start):
    """The time is `writes.idempotency.ttl`; then nothing of it is kept."""
    sidecar = start(writes={"idempotency": {"ttl": "50ms"}})
    put(sidecar.api, "k")
    eventually(lambda: metric(sidecar.ops, "fsm_idempotency_keys") == 0)
    stored = put(sidecar.api, "k")

    assert (False, 3) == (replayed(stored), stored.json["revision"])


def test_the_oldest_key_makes_room_for_the_newest(start):
    """There are at most `writes.idempotency.max_keys`; metrics tell how many, and how many had to go."""
    api, ops, _ = start(writes={"idempotency": {"max_keys": 2}})
    for key in "abc":
        put(api, key)
    names = ["fsm_idempotency_keys", "fsm_idempotency_keys_forgotten_early_total", "fsm_idempotent_replays_total"]

    assert [2, 1, 0] == [metric(ops, name) for name in names]
    assert [True, True, False] == [replayed(put(api, key)) for key in "cba"]
    assert [2, 2, 2] == [metric(ops, name) for name in names]


def test_a_compacted_revision_still_answers(start, tmp_path):
    """History is bounded by other limits than answers are."""
    api = start(journal=on_disk(tmp_path) | {"retention": {"revisions": 1}}, webhooks={"max_lag": 1}).api
    first = put(api, "k")
    for _ in range(5):
        put(api, None)
    eventually(lambda: api.get("/v1/history").json["oldest"] > 2)

    assert answered(first) == answered(put(api, "k"))
    assert 7 == revision(api)


# --- over a restart, as a process ---


@pytest.mark.parametrize("end", ["stop", "kill"], ids=["SIGTERM", "kill -9"])
def test_a_restarted_sidecar_gives_the_first_answer(tmp_path, end):
    """Its very bytes, 201 as well; and it knows another write by the key."""
    config = written(tmp_path, journal=on_disk(tmp_path), fsm={"initial": None})
    with running(config) as sidecar:
        first = [put(sidecar.api, "a"), put(sidecar.api, "b", "ACTIVE")]
        getattr(sidecar, end)()
    with running(config) as sidecar:
        again = [put(sidecar.api, "a"), put(sidecar.api, "b", "ACTIVE")]

        assert [201, 200] == [answer.status for answer in first]
        assert list(map(answered, first)) == list(map(answered, again))
        problem_of(put(sidecar.api, "a", "ACTIVE"), 422, "idempotency-key-reused")
        assert (2, 2, 2) == (
            revision(sidecar.api),
            metric(sidecar.ops, "fsm_idempotency_keys"),
            metric(sidecar.ops, "fsm_idempotent_replays_total"),
        )


def test_a_write_that_kill_9_left_unanswered_is_applied_once_when_it_is_repeated(tmp_path):
    """Whether it had reached the disk or not, which nobody knows: each is in the history exactly once."""
    config, names = written(tmp_path, journal=on_disk(tmp_path)), [f"w{number:03}" for number in range(200)]
    first = {}

    def send(api, name):
        return api.post("/v1/transitions", {"to": "IDLE", "reason": name}, idempotency_key=name)

    def try_to_send(name):
        with contextlib.suppress(OSError, http.client.HTTPException):  # it is killed
            first[name] = send(api, name)

    with running(config) as sidecar, ThreadPoolExecutor(8) as pool:
        api = sidecar.api
        pool.map(try_to_send, names)
        eventually(lambda: len(first) >= 20)
        sidecar.kill()
    with running(config) as sidecar:
        again = {name: send(sidecar.api, name) for name in names}
        history = sidecar.api.get("/v1/history?limit=1000").json["entries"]

    assert {name: answered(answer) for name, answer in first.items()} == {name: answered(again[name]) for name in first}
    assert names == sorted(entry["snapshot"]["reason"] for entry in history[1:])


def test_a_key_is_its_callers_own(start, tmp_path):
    """Another holder who takes the same key learns nothing of the write, even with the same body; the first one still does."""
    tokens = [entry(tmp_path, name, ["state:write"], token(name)) for name in ("one", "two")]
    api = start(api=BASE["api"] | {"tokens": tokens}).api

    def put(name):
        return api.put("/v1/state", {"state": "IDLE"}, idempotency_key="k", **bearer(token(name)))

    first, others, again = put("one"), put("two"), put("one")
    problem_of(others, 422, "idempotency-key-reused")
    assert (200, first.body, "true") == (again.status, again.body, again.headers["Idempotency-Replayed"])
