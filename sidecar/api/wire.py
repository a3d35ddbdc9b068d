"""Bytes to structs and back: what the API reads and writes, and what it refuses to read."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec

from sidecar.api import conditions
from sidecar.api.answer import NO_HEADERS, Answer, header_lines
from sidecar.api.parameters import DURATION
from sidecar.api.request import Request
from sidecar.config.values import MAX_BATCH
from sidecar.decision import MAX_VERSION
from sidecar.dispatch.acks import Acks
from sidecar.dispatch.target import MAX_URL
from sidecar.document import SnapshotDocument, TransitionDocument, split_path
from sidecar.errors import InvalidError, MalformedError, MediaTypeError
from sidecar.frozen import MAX_DEPTH, depth_of
from sidecar.snapshot import TransitionStatus
from sidecar.store import Stored
from sidecar.units import Seconds, Terms

JSON = "application/json"

ID = "[A-Za-z0-9][A-Za-z0-9_-]{0,62}"
SubscriberId = Annotated[str, msgspec.Meta(pattern=rf"^{ID}\Z", extra_json_schema={"pattern": f"^{ID}$"})]

STATE_NAME = "StateName"
"""The schema of a state's name, which the API's description gives once, with the names where they are known."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_VERSION)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Name = Annotated[str, msgspec.Meta(max_length=128)]
_State = Annotated[str, msgspec.Meta(extra_json_schema={"$ref": f"#/components/schemas/{STATE_NAME}"})]
_Status = Annotated[str, msgspec.Meta(extra_json_schema={"enum": [status.name for status in TransitionStatus]})]
_Duration = Annotated[Any, msgspec.Meta(extra_json_schema={"anyOf": [DURATION, {"type": "null"}]})]
_WallTime = Annotated[float, msgspec.Meta(ge=0, le=253402300799)]  # the last second of the year 9999
_MonotonicTime = Annotated[float, msgspec.Meta(ge=0)]


class TransitionWrite(TransitionDocument, frozen=True, forbid_unknown_fields=True):
    """A transition in the history of a `PUT /v1/state`."""

    from_state: _State
    to_state: _State
    status: _Status = TransitionStatus.SUCCESS.name
    trigger_event: Text = ""
    error_message: Text = ""
    ts_mono: _MonotonicTime = 0.0
    ts_wall: _WallTime = 0.0


class StateWrite(SnapshotDocument, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of `PUT /v1/state`: the snapshot's fields. None: follows from the state that is replaced."""

    version: _Count | None = None  # type: ignore[assignment]
    state: _State
    prev_state: _State | None = None
    reason: Text = ""
    ts_mono: _MonotonicTime = 0.0
    ts_wall: _WallTime = 0.0
    snapshot_id: Name = ""
    fsm_instance_id: Name = ""
    source_module: Name = "fsm_handler"
    attempt_count: _Count | None = None  # type: ignore[assignment]
    history: Annotated[tuple[TransitionWrite, ...], msgspec.Meta(max_length=1000)] | None = None  # type: ignore[assignment]


class Move(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/transitions`."""

    to: _State
    reason: Text = ""
    source: _State | None = msgspec.field(default=None, name="from")
    source_module: Name = "fsm_handler"


class Heartbeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/heartbeat`."""

    ttl: _Duration = None


class Writer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/writer`."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    ttl: _Duration = None
    takeover: bool = False


class SubscriberWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `PUT /v1/subscribers/{id}`."""

    url: Annotated[str, msgspec.Meta(extra_json_schema={"format": "uri", "maxLength": MAX_URL})]
    secret: Annotated[str, msgspec.Meta(extra_json_schema={"pattern": "^whsec_[A-Za-z0-9+/]{32,86}={0,2}$"})] | None = None
    timeout: _Duration = None  # `duration` says better than a type what is expected
    max_lag: Annotated[int, msgspec.Meta(ge=0, le=MAX_VERSION)] | None = None
    on: Annotated[tuple[Literal["transition", "update"], ...], msgspec.Meta(min_length=1)] = ("transition", "update")
    states: Annotated[tuple[_State, ...], msgspec.Meta(min_length=1, max_length=256)] | None = None
    max_batch: Annotated[int, msgspec.Meta(ge=1, le=MAX_BATCH)] = 1


class NewSubscriber(SubscriberWrite, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/subscribers`: an id is made when there is none."""

    id: SubscriberId | None = None


_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Body:
    """Reads bodies of one type, sent as `media_type`."""

    def __init__(self, kind: type[msgspec.Struct], media_type: str = JSON, *, optional: bool = False) -> None:
        """`optional`: without a body it is as if all of it were left out."""
        self.kind = kind
        self.media_type = media_type
        self.optional = optional
        self._decode = msgspec.json.Decoder(kind).decode
        self._names = [field.encode_name for field in msgspec.structs.fields(kind)]

    async def read(self, request: Request) -> Any:
        """The body. Raises `MediaTypeError`, `MalformedError`, `InvalidError`, and aiohttp's 413 beyond the limit."""
        if "Content-Encoding" in request.headers:
            raise MediaTypeError("send the body without a Content-Encoding", self.media_type)
        if self.optional and not await request.read():
            return self.kind()
        _check_media_type(request.headers.get("Content-Type", ""), self.media_type)
        body = await request.read()
        try:
            value = self._decode(body)
            _refuse_depth(body)
        except msgspec.ValidationError as error:
            detail, path = split_path(error)
            if "unknown field" in detail and path == "$":
                detail += f"; known here: {', '.join(self._names)}"
            raise InvalidError(detail, path=path) from None
        except UnicodeDecodeError:
            raise MalformedError("the body is not valid UTF-8") from None
        except RecursionError:
            raise MalformedError(f"the body is nested deeper than {MAX_DEPTH} levels") from None
        except msgspec.DecodeError as error:
            raise MalformedError(f"the body is not JSON: {str(error).removeprefix('JSON is malformed: ')}") from None
        _refuse_duplicates(body)
        return value


def _refuse_duplicates(body: bytes) -> None:
    """Refuse a body that gives a key twice: one of them would win silently. Looks at the body itself and at its history."""
    if _is_its_members(body):
        return
    pairs = json.loads(body, object_pairs_hook=_Pairs)
    _refuse_duplicate_keys(pairs, "$")
    for n, item in enumerate(dict(pairs).get("history") or ()):
        _refuse_duplicate_keys(item, f"$.history[{n}]")


def _is_its_members(body: bytes) -> bool:
    """Whether the body is exactly as long as its members written without spaces: then none of them was dropped as a duplicate.

    A cheap proof for most bodies; the others are looked at one by one.
    """
    members = _decode_members(body)
    length = 1 + 4 * len(members)  # the braces, and for each a pair of quotes, a colon and a comma, but for the last
    for key, value in members.items():
        length += len(key) + len(value)
    return length == len(body) and "history" not in members


def _refuse_depth(body: bytes) -> None:
    """A body with few brackets cannot be deep, so that most are not looked into. The body itself is one level more."""
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and depth_of(msgspec.json.decode(body)) > MAX_DEPTH + 1:
        raise RecursionError


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its keys as they came."""


def _refuse_duplicate_keys(pairs: _Pairs, path: str) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise MalformedError(f"a key is given twice in {path}")
        seen.add(key)


def _check_media_type(given: str, wanted: str) -> None:
    if given == wanted:
        return
    media_type, _, parameters = given.partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if media_type.strip().lower() != wanted or charset not in ("", "utf-8"):
        raise MediaTypeError(f"send the body as Content-Type: {wanted}, in UTF-8", wanted)


def duration(text: object, *, path: str, most: float) -> Seconds:
    """A duration of a body. Raises `InvalidError`."""
    try:
        seconds = Seconds.parse(text)
    except ValueError as error:
        raise InvalidError(str(error), path=path) from None
    if not 0 < seconds <= most:
        raise InvalidError(f"expected more than 0s, at most {most:g}s", path=path)
    return seconds


def ttl(text: object, terms: Terms) -> float:
    """The time to live that a body asks for, in seconds; None: the usual one. Raises `InvalidError`."""
    return terms.ttl_seconds if text is None else float(duration(text, path="$.ttl", most=terms.max_ttl_seconds))


_encode = msgspec.json.Encoder().encode


def answer(value: Any, *, status: int = 200, headers: Mapping[str, str] = NO_HEADERS) -> Answer:
    """A JSON answer."""
    return Answer(_encode(value), status=status, lines=header_lines(headers))


def state_document(epoch: str, revision: int, document: bytes) -> bytes:
    """What every answer about a state is, and what webhooks carry: the snapshot with its place in the journal."""
    return b'{"epoch":"%b","revision":%d,"snapshot":%b}' % (epoch.encode(), revision, document)


def _state(epoch: str, revision: int, version: int, document: bytes) -> tuple[bytes, str]:
    """A state with its ETag. Its bytes come from the journal: nothing is encoded twice."""
    return state_document(epoch, revision, document), f"ETag: {conditions.etag(epoch, version)}\r\n"


_current_state = lru_cache(maxsize=1)(_state)  # readers ask for the same one again and again


def answer_state(epoch: str, stored: Stored) -> Answer:
    """The current state, to a reader."""
    entry = stored.entry
    body, lines = _current_state(epoch, entry.revision, stored.document.version, entry.document)
    return Answer(body, lines=lines)


def answer_written(epoch: str, stored: Stored, *, acks: Acks | None = None) -> Answer:
    """The state as it was written, to its writer."""
    entry = stored.entry
    body, lines = _state(epoch, entry.revision, stored.document.version, entry.document)
    if stored.replayed:
        lines += "Idempotency-Replayed: true\r\n"
    if acks:
        body = b'%b,"acks":%b}' % (body[:-1], _encode(acks))
    return Answer(body, status=201 if entry.revision == 1 else 200, lines=lines)
