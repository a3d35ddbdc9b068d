"""Bytes to structs and back: what the API reads and writes, and what it refuses to read."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from sidecar.api.answer import NO_HEADERS, Answer
from sidecar.api.request import Request
from sidecar.config.sections import MAX_BATCH
from sidecar.conflicts import NO_VERSION, Expectation
from sidecar.dispatch.acks import Acks
from sidecar.document import SnapshotDocument, TransitionDocument, split_path
from sidecar.errors import InvalidError, MalformedError, MediaTypeError
from sidecar.fencing import Claim, Token
from sidecar.frozen import MAX_DEPTH, depth_of
from sidecar.journal import Request as Repeatable
from sidecar.store import MAX_VERSION, Stored
from sidecar.units import Seconds, Terms

JSON = "application/json"

SubscriberId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")]

_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_VERSION)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Name = Annotated[str, msgspec.Meta(max_length=128)]
_WallTime = Annotated[float, msgspec.Meta(ge=0, le=253402300799)]  # the last second of the year 9999
_MonotonicTime = Annotated[float, msgspec.Meta(ge=0)]


class TransitionWrite(TransitionDocument, frozen=True, forbid_unknown_fields=True):
    """A transition in the history of a `PUT /v1/state`."""

    trigger_event: Text = ""
    error_message: Text = ""
    ts_mono: _MonotonicTime = 0.0
    ts_wall: _WallTime = 0.0


class StateWrite(SnapshotDocument, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of `PUT /v1/state`: the snapshot's fields. None: follows from the state that is replaced."""

    version: _Count | None = None  # type: ignore[assignment]
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

    to: str
    reason: Text = ""
    source: str | None = msgspec.field(default=None, name="from")
    source_module: Name = "fsm_handler"


class Heartbeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/heartbeat`."""

    ttl: Any = None


class Writer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/writer`."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    ttl: Any = None
    takeover: bool = False


class SubscriberWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `PUT /v1/subscribers/{id}`."""

    url: str
    secret: str | None = None
    timeout: Any = None  # `duration` says better than a type what is expected
    max_lag: Annotated[int, msgspec.Meta(ge=0, le=MAX_VERSION)] | None = None
    on: Annotated[tuple[Literal["transition", "update"], ...], msgspec.Meta(min_length=1)] = ("transition", "update")
    states: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=256)] | None = None
    max_batch: Annotated[int, msgspec.Meta(ge=1, le=MAX_BATCH)] = 1


class NewSubscriber(SubscriberWrite, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/subscribers`: an id is made when there is none."""

    id: SubscriberId | None = None


_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Body:
    """Reads bodies of one type, sent as `media_type`."""

    def __init__(self, kind: type[Any], media_type: str = JSON) -> None:
        self._media_type = media_type
        self._decode = msgspec.json.Decoder(kind).decode
        self._names = [field.encode_name for field in msgspec.structs.fields(kind)]

    async def read(self, request: Request) -> Any:
        """The body. Raises `MediaTypeError`, `MalformedError`, `InvalidError`, and aiohttp's 413 beyond the limit."""
        _check_media_type(request.headers, self._media_type)
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


def _check_media_type(headers: Mapping[str, str], wanted: str) -> None:
    if "Content-Encoding" in headers:
        raise MediaTypeError("send the body without a Content-Encoding", wanted)
    given = headers.get("Content-Type", "")
    if given == wanted:
        return
    media_type, _, parameters = given.partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if media_type.strip().lower() != wanted or charset not in ("", "utf-8"):
        raise MediaTypeError(f"send the body as Content-Type: {wanted}, in UTF-8", wanted)


_Known = TypeVar("_Known", bound=str)
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
_ETAG = re.compile(r'"([a-z0-9]{1,32})-(0|[1-9]\d{0,15})"')
_TOKEN = re.compile(r"([a-z0-9]{1,32})-([1-9]\d{0,15})", re.ASCII)
_ANY_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"')


def etag(epoch: str, version: int) -> str:
    """The strong ETag of a version, its journal's epoch included: a version from a lost journal never matches."""
    return f'"{epoch}-{version}"'


def preconditions(request: Request) -> list[Expectation]:
    """What `If-Match` and `If-None-Match: *` expect. Raises `MalformedError`."""
    expected = []
    match = _single(request, "If-Match")
    if match is not None:
        expected.append(Expectation() if match == "*" else _expectation(match))
    none_match = _single(request, "If-None-Match")
    if none_match is not None:
        if none_match != "*":
            raise MalformedError("a write takes If-None-Match only as *, to create the state")
        expected.append(Expectation(version=NO_VERSION))
    return expected


def claim(request: Request) -> Claim:
    """What `Writer-Token` says of the writer. Raises `MalformedError`."""
    text = _single(request, "Writer-Token")
    if text is None:
        return Claim(None)
    token = _TOKEN.fullmatch(text)
    if not token:
        raise MalformedError("Writer-Token takes a token as POST /v1/writer gives it, such as k3f9-7")
    return Claim(Token(token[1], int(token[2])))


async def repeatable(request: Request) -> Repeatable | None:
    """The write's Idempotency-Key and a digest of its method, target and body; None without a key. Raises `MalformedError`.

    The header is that of https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/; its value is taken as it
    is, quoted or not. Preconditions are left out: who repeats a write may have read its own success meanwhile.
    """
    key = _single(request, "Idempotency-Key")
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise MalformedError("an Idempotency-Key has 1 to 255 visible ASCII characters, such as a UUID")
    target = f"{request.method} {request.raw_path}\n".encode()
    return Repeatable(key, hashlib.sha256(target + await request.read()).digest())


def _single(request: Request, name: str) -> str | None:
    values = request.headers.getall(name, ())
    if len(values) > 1:
        raise MalformedError(f"{name} is given twice")
    return values[0] if values else None


def _expectation(text: str) -> Expectation:
    tag = _ETAG.fullmatch(text)
    if not tag or int(tag[2]) > MAX_VERSION:
        raise MalformedError('If-Match takes one ETag as GET /v1/state gives it, such as "k3f9-17", in double quotes, or *')
    return Expectation(version=int(tag[2]), epoch=tag[1])


def not_modified(request: Request, current: str) -> bool:
    """Whether `If-None-Match` names the current ETag (RFC 9110, section 13.1.2). Raises `MalformedError`."""
    headers = request.headers.getall("If-None-Match", ())
    if not headers:
        return False
    tags = [tag.strip() for header in headers for tag in header.split(",")]
    if tags == ["*"]:
        return True
    if not all(_ANY_ETAG.fullmatch(tag) for tag in tags):
        raise MalformedError("If-None-Match takes ETags in double quotes, or *")
    return current in (tag.removeprefix("W/") for tag in tags)


class Query:
    """The query parameters. One that is not known is refused: it might have meant something."""

    def __init__(self, request: Request, *known: str) -> None:
        self._values = request.query
        for name in self._values:
            if name not in known:
                raise MalformedError(f"unknown query parameter; known here: {', '.join(known) or 'none'}")
            if len(self._values.getall(name)) > 1:
                raise MalformedError(f"the query parameter {name} is given twice")

    def flag(self, name: str) -> bool:
        value = self._values.get(name, "false")
        if value not in ("true", "false"):
            raise MalformedError(f"the query parameter {name} is true or false")
        return value == "true"

    def text(self, name: str) -> str | None:
        return self._values.get(name)

    def integer(self, name: str, *, default: int, least: int, most: int) -> int:
        text = self._values.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= 16 and least <= int(text) <= most):
            raise MalformedError(f"the query parameter {name} is a number from {least} to {most}")
        return int(text)

    def seconds(self, name: str, *, most: float) -> float | None:
        """A duration such as `30s`, from 0s; None: not given."""
        text = self._values.get(name)
        if text is None:
            return None
        try:
            seconds = float(Seconds.parse(text))
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= most:
            raise MalformedError(f"the query parameter {name} is a duration such as 30s, at most {most:g}s")
        return seconds

    def choice(self, name: str, *values: str) -> str:
        value = self._values.get(name, values[0])
        if value not in values:
            raise MalformedError(f"the query parameter {name} is one of: {', '.join(values)}")
        return value


def after(query: Query) -> tuple[int | None, str | None]:
    """The last revision that the caller has, and the epoch that it is of; None: it does not say."""
    epoch = query.text("epoch")
    if query.text("after") is None:
        if epoch is not None:
            raise MalformedError("the query parameter epoch needs after: the revision of that epoch which you have")
        return None, None
    return query.integer("after", default=0, least=0, most=MAX_VERSION), epoch


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
    return Answer(_encode(value), status=status, headers=headers)


def state_document(epoch: str, revision: int, document: bytes) -> bytes:
    """What every answer about a state is, and what webhooks carry: the snapshot with its place in the journal."""
    return b'{"epoch":"%b","revision":%d,"snapshot":%b}' % (epoch.encode(), revision, document)


def answer_state(epoch: str, stored: Stored, *, status: int = 200, acks: Acks | None = None) -> Answer:
    """The state with its ETag. Its bytes come from the journal: nothing is encoded twice."""
    headers = {"ETag": etag(epoch, stored.document.version)}
    if stored.replayed:
        headers["Idempotency-Replayed"] = "true"
    body = state_document(epoch, stored.entry.revision, stored.entry.document)
    if acks:
        body = b'%b,"acks":%b}' % (body[:-1], _encode(acks))
    return Answer(body, status=status, headers=headers)
