"""What schemathesis is told of this API. It loads this file itself: see `tests/test_fuzzing.py`."""

import json
import os
import re

import schemathesis
from described import validator

RECEIVER = os.environ["RECEIVER"]
"""A webhook receiver on this host: no name that was made up is looked up, and nobody else is called."""

BY_CIRCUMSTANCES = {
    "already-exists": "there is a state already",
    "version-conflict": "another write came first",
    "idempotency-key-reused": "the key was used for another write",
    "compacted": "the revision is not kept any more",
    "endpoint-refused": "which endpoints may be called is configured",
}
"""Problems that a request can have which would be good at another time, or with another configuration."""

BEYOND_SCHEMAS = {
    "$.timeout": "that a duration is not too long",
    "$.ttl": "nor that one",
    "$.secret": "how many bytes base64 is",
    "from": "which revisions there are",
}
"""Rules that a JSON Schema cannot say, by the place that the problem names."""


_NUMBER = {"type": "integer", "minimum": 0}
_PLACE = {"epoch": {"type": "string"}, "revision": _NUMBER, "previous_revision": _NUMBER, "skipped": _NUMBER}
_SNAPSHOT = {"$ref": "#/components/schemas/SnapshotDocument"}
EVENTS = {
    "state": _PLACE | {"initial": {"type": "boolean"}, "snapshot": _SNAPSHOT},
    "gap": _PLACE | {"reason": {"enum": ["epoch", "compacted", "slow", "lost"]}},
    "end": {"reason": {"enum": ["draining", "revoked"]}},
}
"""What the events of a stream have in `data`: docs/api.md, section Watching."""

MAX_REVISION = 2**53 - 1

NEEDS = {"epoch": {"after"}, "wait": {"after", "If-None-Match"}, "timeout": {"wait_acks"}}
EXCLUDED_BY = {"newest": {"after", "limit"}, "wait_acks": {"dry_run"}, "Idempotency-Key": {"dry_run"}}
"""Parameters that go by others, which OpenAPI can only say in words. What does not fit is left out of valid requests."""


@schemathesis.hook
def before_call(context, case, kwargs):
    """Endpoints lead to the receiver; who waits, waits shortly; 64.0, which a schema takes for an integer, is written as 64."""
    if isinstance(case.body, dict):
        if re.match("https?://[^/]", str(case.body.get("url"))):
            case.body["url"] = RECEIVER
        case.body |= {name: int(its) for name, its in case.body.items() if isinstance(its, float) and its.is_integer()}
    for name in {"wait", "timeout"} & {*case.query}:
        if re.fullmatch(r"[0-9.]+(ms|s|m|h|d)", str(case.query[name])):
            case.query[name] = "5ms"
    if case.meta and case.meta.generation.mode.is_positive:
        _fit(case)


def _fit(case):
    for name in ("Writer-Token", "Last-Event-ID"):
        if case.headers.get(name) == "0":  # which it sends where it finds nothing of the pattern
            _leave_out(case, name)
    if int(case.headers.get("Last-Event-ID", "0").rpartition("-")[2]) > MAX_REVISION:  # which a pattern cannot say
        _leave_out(case, "Last-Event-ID")
    if "enforce_version" in case.query and not isinstance(case.body.get("version"), int):
        del case.query["enforce_version"]
    for name, others in EXCLUDED_BY.items():
        if others & _given(case):
            _leave_out(case, name)
    for name, others in NEEDS.items():
        if not others & _given(case):
            _leave_out(case, name)


def _given(case):
    return {*case.query, *case.headers}


def _leave_out(case, name):
    case.query.pop(name, None)
    case.headers.pop(name, None)


@schemathesis.check
def valid_is_accepted(ctx, response, case):
    """As `positive_data_acceptance`, which goes by the status alone: here a valid request may fail only for a reason above."""
    if not (case.meta and case.meta.generation.mode.is_positive) or response.status_code < 400:
        return
    problem = response.json() if response.content else {}
    if response.status_code in (404, 409) or problem.get("type") in BY_CIRCUMSTANCES or problem.get("path") in BEYOND_SCHEMAS:
        return
    raise AssertionError(f"a valid request was refused: {response.text}")


@schemathesis.check
def events_are_as_documented(ctx, response, case):
    """Each event of a stream, as far as it was read."""
    if not response.headers.get("content-type", [""])[0].startswith("text/event-stream"):
        return
    for block in response.content.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line[:1] not in ("", ":"))
        if "data" in fields:
            data, properties = json.loads(fields["data"]), EVENTS[fields["event"]]
            validator({"properties": properties, "required": [*properties], "additionalProperties": False}).validate(data)
            assert fields.get("id") == (f"{data['epoch']}-{data['revision']}" if fields["event"] == "state" else None)


@schemathesis.check
def no_value_is_echoed(ctx, response, case):
    """A refusal names fields and rules, never a value that was sent. Conflicts tell what is there; short texts may be ours."""
    if response.status_code < 400 or response.status_code in (409, 412):
        return
    if any(len(text) >= 12 and text in response.text for text in _values(case.body)):
        raise AssertionError(f"a refusal repeats the body: {response.text}")


def _values(body):
    if isinstance(body, str):
        yield body
    elif isinstance(body, dict | list):
        for each in body.values() if isinstance(body, dict) else body:
            yield from _values(each)
