"""`PATCH /v1/state`: a JSON Merge Patch (RFC 7396) on the state's data, made when the write is decided."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from sidecar_process import on_disk, problem_of

MERGE_PATCH = "application/merge-patch+json"
DEPTH = 64


@pytest.fixture
def api(start):
    """The API of a sidecar whose agent is IDLE, version 1, with some data."""
    api = start().api
    data = {"context_data": {"a": {"b": 1, "c": [1]}, "d": None}, "state_metadata": {"m": 1}}
    api.put("/v1/state", {"state": "IDLE", "reason": "why", "source_module": "planner"} | data)
    return api


def patch(api, body, query="", **headers):
    return api.ask("PATCH", f"/v1/state{query}", body, **({"content_type": MERGE_PATCH} | headers))


def data(answer):
    return answer.json["snapshot"]["context_data"]


# RFC 7396, appendix A: original, patch, result; each as a member `x`, so that null takes it away
APPENDIX_A = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize("part", ["context_data", "state_metadata"])
@pytest.mark.parametrize(("original", "change", "result"), APPENDIX_A)
def test_a_patch_merges_as_the_rfc_says(start, part, original, change, result):
    """Null removes a member, objects merge, all else replaces; the neighbours and the other part stay."""
    api, other = start().api, {"context_data": "state_metadata", "state_metadata": "context_data"}[part]
    api.put("/v1/state", {"state": "IDLE", part: {"x": original, "y": 1}, other: {"z": [2]}})
    snapshot = patch(api, {part: {"x": change}}).json["snapshot"]

    assert ({"y": 1} if result is None else {"x": result, "y": 1}) == snapshot[part]
    assert {"z": [2]} == snapshot[other]


def test_a_patch_is_an_update_of_what_it_names(api):
    """A new version of the same state; what is not named stays, but who wrote it, when, and the snapshot's id."""
    before = api.get("/v1/state").json
    answer = patch(api, {"context_data": {"a": {"b": 2}}})
    after = answer.json["snapshot"]

    assert (200, 3, 2) == (answer.status, answer.json["revision"], after["version"])
    assert answer.etag.endswith('-2"')
    assert answer.body == api.get("/v1/state").body
    assert {"a": {"b": 2, "c": [1]}, "d": None} == after["context_data"]
    changed = {name for name in after if after[name] != before["snapshot"][name]}
    assert {"version", "context_data", "source_module", "snapshot_id", "ts_mono", "ts_wall"} == changed
    assert "fsm_handler" == after["source_module"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {}),
        ({"context_data": None}, {"context_data": {}}),
        ({"state_metadata": None, "reason": "new"}, {"state_metadata": {}, "reason": "new"}),
        ({"reason": None, "source_module": "driver"}, {"reason": "", "source_module": "driver"}),
    ],
    ids=["nothing", "no data", "no metadata", "no reason"],
)
def test_null_empties_and_absence_keeps(api, body, expected):
    """For each member of the body."""
    before = api.get("/v1/state").json["snapshot"] | {"source_module": "fsm_handler"}
    after = patch(api, body).json["snapshot"]
    names = ("state", "reason", "source_module", "context_data", "state_metadata", "history", "prev_state")

    assert {name: (before | expected)[name] for name in names} == {name: after[name] for name in names}


def test_patches_of_different_members_never_lose_each_other(start, tmp_path):
    """Eight clients at once, each counting its own member: at the end all have arrived, and nobody overwrote unseen."""
    api = start(journal=on_disk(tmp_path)).api

    def count(writer):
        return [patch(api, {"context_data": {writer: {"n": n}}}).status for n in range(20)]

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(count, "abcdefgh"))

    assert [[200] * 20] * 8 == statuses
    assert {writer: {"n": 19} for writer in "abcdefgh"} == data(api.get("/v1/state"))
    assert (161, {0}) == (
        api.get("/v1/state").json["revision"],
        set(api.get("/v1/conflicts").json["counts"].values()),
    )


def test_a_patch_can_expect_a_version(api):
    """With If-Match it is compared like any write; only to create is nothing that a patch can do."""
    etag = api.get("/v1/state").etag

    assert 200 == patch(api, {"reason": "first"}, if_match=etag).status
    lost = problem_of(patch(api, {"reason": "second"}, if_match=etag), 412, "version-conflict")
    assert (2, "fsm_handler") == (lost["current"]["version"], lost["current"]["source_module"])
    problem_of(patch(api, {}, if_none_match="*"), 412, "already-exists")
    assert ("first", 3) == (api.get("/v1/state").json["snapshot"]["reason"], api.get("/v1/state").json["revision"])


def test_a_patch_needs_an_expectation_where_that_is_configured(start):
    """428, as for any other write."""
    api = start(writes={"require_precondition": True}).api

    problem_of(patch(api, {}), 428, "precondition-required")
    assert 200 == patch(api, {}, if_match="*").status


def test_a_patch_of_no_state_is_refused(start):
    """404, whatever it expects."""
    api = start(fsm={"initial": None}).api
    for headers in ({}, {"if_match": "*"}, {"if_none_match": "*"}):
        problem_of(patch(api, {}, **headers), 404, "no-state")
    problem_of(patch(api, {}, "?dry_run=true"), 404, "no-state")


def test_a_patch_with_a_key_is_applied_once(api):
    """The repetition gets the first answer, though the state has gone on."""
    first = patch(api, {"context_data": {"d": 1}}, idempotency_key="k")
    patch(api, {"context_data": {"d": 2}})
    again = patch(api, {"context_data": {"d": 1}}, idempotency_key="k")

    assert (first.body, "true") == (again.body, again.headers["Idempotency-Replayed"])
    assert (2, 4) == (data(api.get("/v1/state"))["d"], api.get("/v1/state").json["revision"])
    problem_of(patch(api, {}, idempotency_key="k"), 422, "idempotency-key-reused")


def test_a_patch_can_be_tried(api):
    """A dry run shows the data as it would be; it stays as it was."""
    before = api.get("/v1/state").body
    dry = patch(api, {"context_data": {"a": None}}, "?dry_run=true")

    assert (200, True, {"d": None}, None) == (dry.status, dry.json["dry_run"], data(dry), dry.etag)
    assert before == api.get("/v1/state").body


# --- what is refused ---


@pytest.mark.parametrize("content_type", ["application/json", "application/json-patch+json", "text/plain", None])
def test_a_patch_has_a_media_type_of_its_own(api, content_type):
    """415 names it, in words and in Accept-Patch: what another one means nobody can say."""
    answer = api.exchange("PATCH", "/v1/state", b"{}", [("Content-Type", content_type)] if content_type else [])

    assert MERGE_PATCH in problem_of(answer, 415, "unsupported-media-type")["detail"]
    assert (MERGE_PATCH, None) == (answer.headers["Accept-Patch"], answer.headers["Accept"])
    assert 200 == patch(api, {}, content_type=f"{MERGE_PATCH}; charset=utf-8").status
    refused = api.put("/v1/state", {"state": "IDLE"}, content_type=MERGE_PATCH)
    assert ("application/json", None) == (refused.headers["Accept"], refused.headers["Accept-Patch"])


BAD = {
    "not an object": (b"[]", 422),
    "a state": (b'{"state":"ACTIVE"}', 422),
    "a version": (b'{"version":9}', 422),
    "data that is no object": (b'{"context_data":[]}', 422),
    "metadata that is no object": (b'{"state_metadata":"x"}', 422),
    "nobody": (b'{"source_module":null}', 422),
    "a reason too long": (json.dumps({"reason": "x" * 4097}).encode(), 422),
    "not JSON": (b"{", 400),
    "not UTF-8": (b'{"reason":"\xff"}', 400),
    "a member twice": (b'{"reason":"a","reason":"b"}', 400),
    "too deep": (b'{"context_data":' + b'{"a":' * DEPTH + b"{}" + b"}" * DEPTH + b"}", 400),
    "too large": (json.dumps({"context_data": {"a": "x" * (256 << 10)}}).encode(), 413),
}
KINDS = {400: "malformed", 413: "too-large", 422: "invalid"}


@pytest.mark.parametrize(("body", "status"), BAD.values(), ids=BAD)
def test_a_bad_patch_changes_nothing(api, body, status):
    """It is refused, and the state is the same to the byte."""
    before = api.get("/v1/state").body
    problem_of(patch(api, body), status, KINDS[status])

    assert before == api.get("/v1/state").body


def test_many_small_patches_cannot_make_a_large_state(start):
    """The data stays within writes.max_body: 413, nothing is changed, and room can be made."""
    api = start(writes={"max_body": "2KiB"}).api
    piece = "x" * 500
    statuses = [patch(api, {"context_data": {str(n): piece}, "state_metadata": {}}).status for n in range(6)]
    refused = problem_of(patch(api, {"state_metadata": {"y": piece}}), 413, "too-large")

    assert [200, 200, 200, 200, 413, 413] == statuses
    assert "writes.max_body" in refused["detail"]
    assert ["0", "1", "2", "3"] == list(data(api.get("/v1/state")))
    assert 200 == patch(api, {"context_data": {"0": None, "9": piece}}).status


def test_patches_cannot_make_a_deep_state(start):
    """As deep as a body may be, and no deeper: where it is merged does not add to it."""
    api = start().api
    deep = {"a": 1}
    for _ in range(DEPTH - 1):
        deep = {"a": deep}
    for _ in range(2):
        assert 200 == patch(api, {"context_data": deep}).status
    assert deep == data(api.get("/v1/state"))
    assert 200 == api.put("/v1/state", {"state": "IDLE", "context_data": data(api.get("/v1/state"))}).status
