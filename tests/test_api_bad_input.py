"""Bad input over HTTP: always refused with the right answer, never a fault, and nothing has changed.

One real process takes all of it. What it answers and what it logs never shows a value that was sent.
"""

import http.client
import json
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from secrecy import CANARY, keeps_secrets
from sidecar_process import on_disk, problem_of, running, written

LIMIT = 256 << 10
REFUSALS = {400: "malformed", 413: "too-large", 415: "unsupported-media-type", 422: "invalid"}

examples = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory):
    """A process that has seen it all."""
    folder = tmp_path_factory.mktemp("bad-input")
    with running(written(folder, journal=on_disk(folder))) as sidecar:
        sidecar.api.put("/v1/state", {"state": "IDLE"})
        yield sidecar


@pytest.fixture
def refused(sidecar):
    """Checks that an answer is a refusal of this status. The state stays the same to the byte, nobody repeats what was sent."""
    before = sidecar.api.get("/v1/state").body

    def check(answer, status):
        problem = problem_of(answer, status, REFUSALS[status])
        assert before == sidecar.api.get("/v1/state").body
        assert keeps_secrets(answer.body.decode() + sidecar.stderr)
        return problem

    return check


def item(**fields):
    return {"state": "IDLE", "history": [{"from_state": "IDLE", "to_state": "IDLE", "trigger_event": CANARY} | fields]}


def nested(opening, depth, closing):
    """`context_data` that is so many levels deep, itself included."""
    return b'{"state":"IDLE","context_data":{"a":' + opening * (depth - 1) + b"1" + closing * (depth - 1) + b"}}"


NOT_JSON = {
    "nothing": b"",
    "half a document": b'{"state":"IDLE","reason":"canary-6b1f',
    "trailing bytes": b'{"state":"IDLE"} "canary-6b1f"',
    "a byte order mark": b'\xef\xbb\xbf{"state":"IDLE"}',
    "invalid UTF-8": b'{"state":"IDLE","reason":"canary-6b1f\xff"}',
    "invalid UTF-8 in a key": b'{"state":"IDLE","context_data":{"\xff":1}}',
    "half a surrogate pair": b'{"state":"IDLE","reason":"canary-6b1f\\ud800"}',
    "a control character": b'{"state":"IDLE","reason":"canary-6b1f\x01"}',
    "single quotes": b"{'state':'IDLE'}",
    "a trailing comma": b'{"state":"IDLE",}',
    "NaN": b'{"state":"IDLE","ts_wall":NaN}',
    "Infinity": b'{"state":"IDLE","context_data":{"a":Infinity}}',
    "a key twice": b'{"state":"IDLE","reason":"canary-6b1f","state":"ACTIVE"}',
    "a key twice, escaped": b'{"state":"IDLE","st\\u0061te":"ACTIVE"}',
    "an object twice": b'{"state":"IDLE","context_data":{"a":1},"context_data":{"b":1}}',
    "a key twice in the history": b'{"state":"IDLE","history":[{"from_state":"IDLE","to_state":"IDLE","to_state":"ACTIVE"}]}',
    "a key twice in the history, escaped": b'{"state":"IDLE","h\\u0069story":[{"from_state":"IDLE","to_state":"IDLE",'
    b'"to_st\\u0061te":"ACTIVE"}]}',
    "a key twice in a later item": b'{"state":"IDLE","history":[{"from_state":"IDLE","to_state":"IDLE"},'
    b'{"from_state":"IDLE","to_state":"IDLE","status":"SUCCESS","status":"FAILED"}]}',
    "100 000 lists": nested(b"[", 100_000, b"]"),
    "40 000 objects": nested(b'{"a":', 40_000, b"}"),
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_a_body_that_is_not_json_is_malformed(sidecar, refused, body):
    """Strictly RFC 8259, and no key that we read may stand there twice."""
    refused(sidecar.api.put("/v1/state", body), 400)


INVALID = {
    "a list": ([CANARY], "$"),
    "null": (None, "$"),
    "text": (CANARY, "$"),
    "no state": ({"reason": CANARY}, "$"),
    "an unknown field": ({"state": "IDLE", "mood": CANARY}, "$"),
    "an unknown state": ({"state": CANARY}, "$.state"),
    "a state in lower case": ({"state": "idle"}, "$.state"),
    "an unknown previous state": ({"state": "IDLE", "prev_state": CANARY}, "$.prev_state"),
    "an unknown state in the history": (item(to_state=CANARY), "$.history[0].to_state"),
    "an unknown status in the history": (item(status=CANARY), "$.history[0].status"),
    "an unknown field in the history": (item(mood=CANARY), "$.history[0]"),
    "a history that is no list": ({"state": "IDLE", "history": {CANARY: 1}}, "$.history"),
    "too much history": ({"state": "IDLE", "history": item()["history"] * 1001}, "$.history"),
    "a negative version": ({"state": "IDLE", "version": -1}, "$.version"),
    "a version beyond 2**53 - 1": ({"state": "IDLE", "version": 2**53}, "$.version"),
    "text as version": ({"state": "IDLE", "version": CANARY}, "$.version"),
    "true as version": ({"state": "IDLE", "version": True}, "$.version"),
    "a huge version": (b'{"state":"IDLE","version":1%s}' % (b"0" * 5000), "$.version"),
    "a number as reason": ({"state": "IDLE", "reason": 1}, "$.reason"),
    "a long reason": ({"state": "IDLE", "reason": CANARY * 400}, "$.reason"),
    "a long source": ({"state": "IDLE", "source_module": CANARY * 12}, "$.source_module"),
    "a negative count": ({"state": "IDLE", "attempt_count": -1}, "$.attempt_count"),
    "a time before 1970": ({"state": "IDLE", "ts_wall": -1}, "$.ts_wall"),
    "a time after 9999": ({"state": "IDLE", "ts_wall": 1e300}, "$.ts_wall"),
    "a number beyond a double": (b'{"state":"IDLE","ts_wall":1e999}', "$.ts_wall"),
    "data that is no object": ({"state": "IDLE", "context_data": [CANARY]}, "$.context_data"),
    "null as metadata": ({"state": "IDLE", "state_metadata": None}, "$.state_metadata"),
}


@pytest.mark.parametrize(("body", "path"), INVALID.values(), ids=INVALID)
def test_a_value_that_does_not_fit_is_invalid(sidecar, refused, body, path):
    """With the JSON path of what has to be mended."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = sidecar.api.put("/v1/state", body)

    assert path == refused(answer, 422)["path"]


UNFIT_DATA = {
    "a number beyond a double": b'{"state":"IDLE","context_data":{"a":-1e999}}',
    "a number of 5000 digits": b'{"state":"IDLE","context_data":{"a":1%s}}' % (b"0" * 5000),
    "65 levels of objects": nested(b'{"a":', 65, b"}"),
    "65 levels of lists": nested(b"[", 65, b"]"),
}


@pytest.mark.parametrize("body", UNFIT_DATA.values(), ids=UNFIT_DATA)
def test_data_that_cannot_be_kept_is_refused(sidecar, refused, body):
    """Numbers that readers would round or choke on, and data nested deeper than 64 levels."""
    answer = sidecar.api.put("/v1/state", body)

    assert answer.status in (400, 422)
    refused(answer, answer.status)


KEPT_DATA = {
    "64 levels of objects": nested(b'{"a":', 64, b"}"),
    "64 levels of lists": nested(b"[", 64, b"]"),
    "a repeated key of the writer's own": b'{"state":"IDLE","context_data":{"a":1,"a":2}}',
    "our names further down": b'{"state":"IDLE","context_data":{"state":1,"history":[{"state":2}],"h":{"state":3,"state":4}}}',
    "space around": b' \r\n\t{"state" : "IDLE"} \n',
    "extreme numbers": b'{"state":"IDLE","context_data":{"a":[1.7976931348623157e308,5e-324,0.1,-0.0,9007199254740993,1e2]}}',
    "escapes": b'{"\\u0073tate":"IDLE","context_data":{"\\ud83d\\ude00 \\u0000":"\\/\\n"}}',
}


@pytest.mark.parametrize("body", KEPT_DATA.values(), ids=KEPT_DATA)
def test_unusual_json_is_kept_as_it_is(sidecar, body):
    """What is valid is not refused, and what it means is stored."""
    stored = sidecar.api.put("/v1/state", body).json["snapshot"]

    assert json.loads(body).get("context_data", {}) == stored["context_data"]
    assert stored == sidecar.api.get("/v1/state").json["snapshot"]


def test_a_body_may_be_as_large_as_the_limit_and_no_larger(sidecar):
    """413 beyond writes.max_body, however the size is announced."""
    body = b'{"state":"IDLE"' + b" " * (LIMIT - 16) + b"}"

    assert (LIMIT, 200) == (len(body), sidecar.api.put("/v1/state", body).status)
    problem_of(sidecar.api.put("/v1/state", body + b" "), 413, "too-large")
    problem_of(sidecar.api.put("/v1/state", body * 20), 413, "too-large")
    with closing(http.client.HTTPConnection(sidecar.api.address, timeout=5)) as connection:
        chunks = iter([body, b" "])
        connection.request("PUT", "/v1/state", chunks, {"Content-Type": "application/json"}, encode_chunked=True)
        assert 413 == connection.getresponse().status


MOVES = {
    "no target": ({"reason": CANARY}, 422, "$"),
    "an unknown target": ({"to": CANARY}, 422, "$.to"),
    "an unknown origin": ({"to": "ACTIVE", "from": CANARY}, 422, "$.from"),
    "a snapshot": ({"state": "ACTIVE"}, 422, "$"),
    "a long reason": ({"to": "ACTIVE", "reason": CANARY * 400}, 422, "$.reason"),
    "the target twice": (b'{"to":"ACTIVE","to":"IDLE"}', 400, None),
    "the origin twice, escaped": (b'{"to":"ACTIVE","from":"IDLE","fr\\u006fm":"ACTIVE"}', 400, None),
}


@pytest.mark.parametrize(("body", "status", "path"), MOVES.values(), ids=MOVES)
def test_a_transition_that_cannot_be_read_is_refused(sidecar, refused, body, status, path):
    """By the same rules as a write of the state."""
    answer = sidecar.api.post("/v1/transitions", body)

    assert path == refused(answer, status).get("path")


ETAGS = ["1", "k3f9-1", '"k3f9"', '"1"', '"k3f9-"', '"k3f9--1"', '"k3f9-01"', '"K3F9-1"', '"k3f9-1', 'k3f9-1"', "", " ", "**"]
ETAGS += [
    'W/"k3f9-1"',
    '"k3f9-1", "k3f9-2"',
    '"k3f9-1" "k3f9-2"',
    '"k3f9-9007199254740992"',
    f'"k3f9-{10**30}"',
    '"k3f9-\u0661"',
]
ETAGS += [['"k3f9-1"', "*"], ["*", '"k3f9-1"'], ["*", "*"]]


@pytest.mark.parametrize("tag", ETAGS, ids=repr)
def test_an_if_match_that_is_no_etag_of_ours_is_malformed(sidecar, refused, tag):
    """A guess at what it means could lose somebody's write. Given twice, it is a list as well."""
    tags = [each.encode() for each in ([tag] if isinstance(tag, str) else tag)]
    answer = sidecar.api.put("/v1/state", {"state": "IDLE", "reason": CANARY}, if_match=tags)

    refused(answer, 400)


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("tag", ["k3f9-1", '"k3f9-1', "", '"a",', "*, *"])
def test_a_malformed_if_none_match_is_refused(sidecar, refused, method, tag):
    """On a write, every other value than * is."""
    body = {"state": "IDLE"} if method == "PUT" else None

    refused(sidecar.api.ask(method, "/v1/state", body, if_none_match=tag), 400)


MEDIA = ["text/plain", "application/json; charset=latin-1", "application/x-www-form-urlencoded", "application/merge-patch+json"]
HEADERS = [{"content_type": None}, {"content_type": ""}] + [{"content_type": media} for media in MEDIA]
HEADERS += [{"content_encoding": encoding} for encoding in ("gzip", "identity", "br", "")]


@pytest.mark.parametrize("headers", HEADERS, ids=repr)
@pytest.mark.parametrize("path", ["/v1/state", "/v1/subscribers/a"])
def test_only_plain_json_is_taken(sidecar, refused, path, headers):
    """415 for another media type, another charset, and any Content-Encoding."""
    refused(sidecar.api.put(path, {"state": CANARY}, **headers), 415)


@pytest.mark.parametrize("media", ['APPLICATION/JSON ; charset="UTF-8"', "application/json;", "application/json"])
def test_json_may_be_announced_in_any_form(sidecar, media):
    """Names are compared without case, and UTF-8 may be said."""
    assert 200 == sidecar.api.put("/v1/state", {"state": "IDLE"}, content_type=media).status


QUERIES = ["/v1/state?x", "/v1/state?fresh=true", "/v1/state/meta?a=1", "/v1/history?before=1", "/v1/history?after=-1"]
QUERIES += ["/v1/history?after=1e3", "/v1/history?after=", "/v1/history?after=%D9%A3", "/v1/history?after=99999999999999999"]
QUERIES += [
    "/v1/history?limit=0",
    "/v1/history?limit=1001",
    "/v1/history?after=1&after=2",
    "/v1/history?newest=0",
    "/v1/history?newest=1001",
    "/v1/history?newest=5&after=1",
    "/v1/history?newest=5&limit=5",
    "/v1/machine?format=dot",
    "/v1/conflicts?n=1",
]
QUERIES += ["/v1/health?verbose", "/v1/metrics.json?name=a", "/v1/subscribers?status=active", "/v1/history?%ff=1"]


@pytest.mark.parametrize("path", QUERIES)
def test_a_query_that_is_not_understood_is_refused(sidecar, refused, path):
    """An unknown parameter as well: it might have meant something."""
    refused(sidecar.api.get(path), 400)


@pytest.mark.parametrize("value", ["yes", "True", "1", ""])
def test_a_flag_is_true_or_false(sidecar, refused, value):
    """Nothing else; and what is to be enforced has to be there."""
    refused(sidecar.api.put(f"/v1/state?enforce_version={value}", {"state": "IDLE"}), 400)
    assert "$.version" == refused(sidecar.api.put("/v1/state?enforce_version=true", {"state": "IDLE"}), 422)["path"]


# --- whatever comes ---

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
names = st.sampled_from(["IDLE", "ACTIVE", "BOOTING", "SUCCESS", CANARY])
anything = st.recursive(
    scalars | names, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
)
moves = {"from_state": names, "to_state": names, "status": names | anything, "trigger_event": anything, "ts_wall": scalars}
fields = {
    "version": st.integers(0, 50) | scalars,
    "reason": st.text() | anything,
    "ts_mono": scalars,
    "ts_wall": scalars,
    "snapshot_id": st.text() | anything,
    "prev_state": names | scalars,
    "source_module": st.text() | anything,
    "attempt_count": scalars,
    "history": st.lists(st.fixed_dictionaries({}, optional=moves), max_size=3) | anything,
    "context_data": st.dictionaries(st.text(), anything) | anything,
    "state_metadata": anything,
    "mood": anything,
}
bodies = st.fixed_dictionaries({"state": names}, optional=fields) | anything
FILLED_IN = {"prev_state": None, "ts_mono": 0, "ts_wall": 0, "snapshot_id": "", "attempt_count": None}


@examples
@given(bodies)
def test_any_json_is_stored_as_it_is_or_refused(sidecar, body):
    """Never a fault; and what is stored is what was sent."""
    before = sidecar.api.get("/v1/state").body
    answer = sidecar.api.put("/v1/state", json.dumps(body).encode())

    if answer.status == 200:
        told = {key: value for key, value in body.items() if key not in ("version", "history")}
        told = {key: value for key, value in told.items() if value != FILLED_IN.get(key, ...)}
        assert told == {key: answer.json["snapshot"][key] for key in told}
        assert body.get("history") is None or len(body["history"]) == len(answer.json["snapshot"]["history"])
    else:
        problem_of(answer, answer.status, {400: "malformed", 422: "invalid"}[answer.status])
        assert before == sidecar.api.get("/v1/state").body


VALID = json.dumps(item() | {"version": 5, "context_data": {"a": [1.5e3, "\u00e9", None]}}).encode()
splinters = st.binary(max_size=3) | st.sampled_from([b'"', b"{", b"]", b"\\", b"\x00"])


@examples
@given(st.integers(0, len(VALID)), st.integers(0, 3), splinters)
def test_any_damage_to_a_body_is_refused_or_harmless(sidecar, at, cut, inserted):
    """What Python's JSON reader cannot read is never taken."""
    body = VALID[:at] + inserted + VALID[at + cut :]
    answer = sidecar.api.put("/v1/state", body)

    assert answer.status in ((200, 400, 422) if is_json(body) else (400, 422))


def is_json(body):
    try:
        return bool(json.loads(body.decode()))
    except ValueError:
        return False


printable = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40)
header_names = st.sampled_from(["if-match", "if-none-match", "content-type", "content-encoding", "accept", "range", "x"])


@examples
@given(header_names, printable, printable)
def test_no_header_and_no_query_causes_a_fault(sidecar, name, value, query):
    """Each is understood or refused."""
    body = json.dumps({"state": "IDLE"}).encode()
    headers = {"content-type": "application/json"} | {name: value.strip().encode("latin-1")}
    path = "/v1/state?" + "".join(f"%{ord(char):02x}" for char in query) + "x=1"

    assert sidecar.api.exchange("PUT", "/v1/state", body, list(headers.items())).status in (200, 400, 412, 415)
    assert 400 == sidecar.api.get(path).status
