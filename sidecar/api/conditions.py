"""What a request says that the caller has, expects or has asked for before: ETags, preconditions, positions and keys."""

import hashlib
import re

from sidecar.api.describing import AnswerHeader
from sidecar.api.parameters import Header, InQuery, Integer
from sidecar.api.request import Request
from sidecar.conflicts import NO_VERSION, Expectation
from sidecar.decision import MAX_VERSION
from sidecar.errors import FencedError, KeyReusedError, MalformedError, StateExistsError, StateVersionError
from sidecar.fencing import Claim, Token
from sidecar.journal import Request as Repeatable

_KEY = r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?"
_ETAG = r'"([a-z0-9]{1,32})-(0|[1-9][0-9]{0,15})"'
_ANY_ETAG = r'(?:W/)?"[\x21\x23-\x7e]*"'
_LEASE = "([a-z0-9]{1,32})-([1-9][0-9]{0,15})"
_ETAGS = rf"{_ANY_ETAG}(?:[ \t]*,[ \t]*{_ANY_ETAG})*"  # there may be commas in an ETag
_ANY = {"const": "*"}
_NO_CLAIM = Claim(None)
_is_key = re.compile(_KEY).fullmatch
_match_token = re.compile(_LEASE).fullmatch
_match_etag = re.compile(_ETAG).fullmatch
_are_etags = re.compile(_ETAGS).fullmatch
_find_etags = re.compile(_ANY_ETAG).findall

IF_MATCH = Header(
    "If-Match",
    "The write counts only when this is the current version: the ETag of `GET /v1/state`. `*`: when there is a state.",
    {"anyOf": [_ANY, {"type": "string", "pattern": f"^{_ETAG}$"}]},
    raises=(StateVersionError,),
)
IF_NONE = Header(
    "If-None-Match",
    "`*`: the write counts only when there is no state yet.",
    _ANY,
    raises=(StateExistsError,),
)
PRECONDITIONS = (IF_MATCH, IF_NONE)
IDEMPOTENCY_KEY = Header(
    "Idempotency-Key",
    "Makes it safe to send the write again: it is written once. New for every write, a UUID for example.",
    {"type": "string", "pattern": f"^{_KEY}$"},
    raises=(KeyReusedError,),
)
WRITER_TOKEN = Header(
    "Writer-Token",
    "That the caller is the writer: the token of `POST /v1/writer`.",
    {"type": "string", "pattern": f"^{_LEASE}$"},
    raises=(FencedError,),
)
IF_NONE_MATCH = Header(
    "If-None-Match",
    "ETags that the caller has, or `*`: the answer is 304 when the current one is among them.",
    {"anyOf": [_ANY, {"type": "string", "pattern": f"^{_ETAGS}$"}]},
)

AFTER = Integer("after", "The last revision that you have.", default=None, least=0, most=MAX_VERSION)
EPOCH = InQuery("epoch", "The journal that `after`, which it needs, is a revision of.", {"type": "string"})

ETAG = AnswerHeader("ETag", "The version, for `If-Match` and `If-None-Match`.", {"type": "string", "pattern": f"^{_ETAG}$"})
REPLAYED = AnswerHeader(
    "Idempotency-Replayed",
    "`true`: this is the answer to an earlier request with the same key.",
    {"type": "string", "enum": ["true"]},
    required=False,
)


def etag(epoch: str, version: int) -> str:
    """The strong ETag of a version, its journal's epoch included: a version from a lost journal never matches."""
    return f'"{epoch}-{version}"'


def preconditions(request: Request) -> list[Expectation]:
    """What `If-Match` and `If-None-Match: *` expect. Raises `MalformedError`."""
    expected = []
    match = IF_MATCH.read(request)
    if match is not None:
        expected.append(Expectation() if match == "*" else _expectation(match))
    none_match = IF_NONE.read(request)
    if none_match is not None:
        if none_match != "*":
            raise MalformedError("a write takes If-None-Match only as *, to create the state")
        expected.append(Expectation(version=NO_VERSION))
    return expected


def claim(request: Request) -> Claim:
    """What `Writer-Token` says of the writer. Raises `MalformedError`."""
    text = WRITER_TOKEN.read(request)
    if text is None:
        return _NO_CLAIM
    token = _match_token(text)
    if not token:
        raise MalformedError("Writer-Token takes a token as POST /v1/writer gives it, such as k3f9-7")
    return Claim(Token(token[1], int(token[2])))


def repeat_key(request: Request) -> str | None:
    """The Idempotency-Key, if there is one. Raises `MalformedError`."""
    key = IDEMPOTENCY_KEY.read(request)
    if key is not None and not _is_key(key):
        raise MalformedError("an Idempotency-Key has 1 to 255 visible ASCII characters, such as a UUID")
    return key


async def repeatable(request: Request) -> Repeatable | None:
    """The write's Idempotency-Key and a digest of its caller, method, target and body; None without a key.

    Whoever else takes the same key does not get the answer of the first one. Raises `MalformedError`.

    The header is that of https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/; its value is taken as it
    is, quoted or not. Preconditions are left out: who repeats a write may have read its own success meanwhile.
    """
    key = repeat_key(request)
    if key is None:
        return None
    caller = "" if request.caller.name is None else f"{request.caller.name} "
    target = f"{caller}{request.method} {request.raw_path}\n".encode()
    return Repeatable(key, hashlib.sha256(target + await request.read()).digest())


def _expectation(text: str) -> Expectation:
    tag = _match_etag(text)
    if not tag or int(tag[2]) > MAX_VERSION:
        raise MalformedError('If-Match takes one ETag as GET /v1/state gives it, such as "k3f9-17", in double quotes, or *')
    return Expectation(version=int(tag[2]), epoch=tag[1])


def not_modified(request: Request, current: str) -> bool:
    """Whether `If-None-Match` names the current ETag (RFC 9110, section 13.1.2). Raises `MalformedError`."""
    headers = request.headers.getall(IF_NONE_MATCH.name, ())
    if not headers:
        return False
    text = ",".join(headers)
    if text == "*":
        return True
    if not _are_etags(text):
        raise MalformedError("If-None-Match takes ETags in double quotes, or *")
    return current in (tag.removeprefix("W/") for tag in _find_etags(text))


def after(request: Request) -> tuple[int | None, str | None]:
    """The last revision that the caller has, and the epoch that it is of; None: it does not say. Raises `MalformedError`."""
    revision, epoch = AFTER.read(request), EPOCH.text(request)
    if revision is None and epoch is not None:
        raise MalformedError("the query parameter epoch needs after: the revision of that epoch which you have")
    return revision, epoch
