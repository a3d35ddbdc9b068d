"""Registering, inspecting and removing webhook subscribers."""

import re
import secrets

from aiohttp import web
from msgspec.structs import replace
from yarl import URL

from sidecar.api import documents, wire
from sidecar.api.describing import AnswerHeader, Reply
from sidecar.api.parameters import InPath, InQuery
from sidecar.api.request import Request
from sidecar.api.routing import Routes, Scope
from sidecar.dispatch.secret import Secret
from sidecar.dispatch.subscriber import Settings, Start, Status, Subscriber
from sidecar.errors import (
    CompactedError,
    ConfiguredSubscriberError,
    EndpointRefusedError,
    InvalidError,
    StorageFailedError,
    StorageFullError,
    StorageSlowError,
    SubscriberLimitError,
    UnknownSubscriberError,
)
from sidecar.units import Seconds

MAX_TIMEOUT_SECONDS = 30.0

routes = Routes()

_subscriber_write = wire.Body(wire.SubscriberWrite)
_new_subscriber = wire.Body(wire.NewSubscriber)

_REVISION = "[1-9][0-9]{0,15}"
_is_revision = re.compile(_REVISION).fullmatch

_id = InPath(
    "id",
    "The subscriber's id.",
    f"^{wire.ID}$",
    expected="an id has 1 to 63 letters, digits, - and _, and begins with a letter or digit",
)
_from = InQuery(
    "from",
    "Where its deliveries begin: a revision, or `latest`. Without it they go on where they stood.",
    {"type": "string", "pattern": f"^(latest|{_REVISION})$"},
    raises=(CompactedError, InvalidError),
)
_LOCATION = AnswerHeader("Location", "The subscriber's path.", {"type": "string", "format": "uri-reference"})
_ADDED = Reply("Served from now on.", documents.SubscriberView, headers=(_LOCATION,))
_CHANGED = Reply("Changed, or as it was.", documents.SubscriberView, headers=(_LOCATION,))
_REGISTERING = (
    EndpointRefusedError,
    SubscriberLimitError,
    ConfiguredSubscriberError,
    StorageFailedError,
    StorageSlowError,
    StorageFullError,
)


@routes.put(
    "/v1/subscribers/{id}",
    Scope.SUBSCRIBE,
    takes=(_id, _from),
    body=_subscriber_write,
    answers={200: _CHANGED, 201: _ADDED},
    raises=_REGISTERING,
)
async def put_subscriber(request: Request) -> web.StreamResponse:
    """Register, change or resume a subscriber. Idempotent."""
    subscriber_id = _id.read(request)
    return await _register(request, subscriber_id, await _subscriber_write.read(request))


@routes.post(
    "/v1/subscribers",
    Scope.SUBSCRIBE,
    takes=(_from,),
    body=_new_subscriber,
    answers={200: _CHANGED, 201: _ADDED},
    raises=_REGISTERING,
)
async def post_subscriber(request: Request) -> web.StreamResponse:
    """As `PUT`, with the id in the body, or one made here."""
    change: wire.NewSubscriber = await _new_subscriber.read(request)
    return await _register(request, change.id or f"sub-{secrets.token_hex(8)}", change)


async def _register(request: Request, subscriber_id: str, change: wire.SubscriberWrite) -> web.StreamResponse:
    dispatcher = request.parts.dispatcher
    settings = _settings(request, change)
    start = _start(request, settings)
    registered = await request.carried_out(lambda: dispatcher.register(subscriber_id, settings, start))
    view = _view(request, registered.subscriber)
    if registered.made_secret:
        view = replace(view, secret=registered.made_secret)  # told once, to whoever registered first
    headers = {"Location": f"/v1/subscribers/{subscriber_id}"}
    return wire.answer(view, status=201 if registered.added else 200, headers=headers)


def _settings(request: Request, change: wire.SubscriberWrite) -> Settings:
    timeout = None
    if change.timeout is not None:
        timeout = float(wire.duration(change.timeout, path="$.timeout", most=MAX_TIMEOUT_SECONDS))
    if change.secret is not None:
        try:
            Secret.parse(change.secret)
        except ValueError as error:
            raise InvalidError(str(error), path="$.secret") from None
    known = request.parts.store.machine.states.__members__
    for n, state in enumerate(change.states or ()):
        if state not in known:
            raise InvalidError(f"not a state; the states are {', '.join(known)}", path=f"$.states[{n}]")
    return Settings(change.url, change.secret, timeout, change.max_lag, change.on, change.states, change.max_batch)


def _start(request: Request, settings: Settings) -> Start | None:
    """Where `?from=` asks to begin. Raises `CompactedError`, and `InvalidError` for what could not be delivered from there."""
    text = _from.text(request)
    if text in (None, "latest"):
        return Start(None) if text else None
    journal = request.parts.store.journal
    if not (_is_revision(text) and int(text) <= journal.head + 1):
        raise InvalidError(f"expected latest, or a revision from 1 to {journal.head + 1}", path="from")
    revision = int(text)
    if revision < journal.oldest:
        raise CompactedError(journal.oldest)
    max_lag = request.parts.dispatcher.max_lag(settings)
    if journal.head - revision + 1 > max_lag:
        least = journal.head + 1 - max_lag
        raise InvalidError(
            f"{revision} is further back than max_lag ({max_lag}): begin at {least} or later, or raise it", path="from"
        )
    return Start(revision)


@routes.get("/v1/subscribers", Scope.READ, answers={200: Reply("Everybody.", documents.SubscriberList)})
async def get_subscribers(request: Request) -> web.StreamResponse:
    """Everybody: also the evicted, as long as they are remembered."""
    roster = request.parts.dispatcher.roster
    return wire.answer(documents.SubscriberList([_view(request, subscriber) for subscriber in roster]))


@routes.get(
    "/v1/subscribers/{id}",
    Scope.READ,
    takes=(_id,),
    answers={200: Reply("The subscriber.", documents.SubscriberView)},
    raises=(UnknownSubscriberError,),
)
async def get_subscriber(request: Request) -> web.StreamResponse:
    """One subscriber: its settings, its status, how far it got, and its last outcome."""
    return wire.answer(_view(request, request.parts.dispatcher.roster.get(_id.read(request))))


@routes.delete(
    "/v1/subscribers/{id}",
    Scope.SUBSCRIBE,
    takes=(_id,),
    answers={204: Reply("It is gone.")},
    raises=(UnknownSubscriberError, ConfiguredSubscriberError, StorageFailedError, StorageSlowError, StorageFullError),
)
async def delete_subscriber(request: Request) -> web.StreamResponse:
    """Remove a subscriber, and forget how far it got."""
    subscriber_id = _id.read(request)
    await request.carried_out(lambda: request.parts.dispatcher.remove(subscriber_id))
    return web.Response(status=204)


@routes.post(
    "/v1/subscribers/{id}/ping",
    Scope.SUBSCRIBE,
    takes=(_id,),
    answers={200: Reply("How it went, well or not.", documents.Ping)},
    raises=(UnknownSubscriberError,),
)
async def ping_subscriber(request: Request) -> web.StreamResponse:
    """Send a message without a state, and answer how it went."""
    subscriber_id = _id.read(request)
    with request.waiting():  # for a receiver that may hang
        attempt = await request.parts.dispatcher.ping(subscriber_id)
    return wire.answer(documents.Ping(attempt.outcome, attempt.status, attempt.seconds))


@routes.post(
    "/v1/subscribers/{id}/rotate",
    Scope.SUBSCRIBE,
    takes=(_id,),
    answers={200: Reply("The new secret.", documents.Rotation)},
    raises=(UnknownSubscriberError, *_REGISTERING),
)
async def rotate_secret(request: Request) -> web.StreamResponse:
    """Make a new secret, told once; the old one signs beside it until `previous_valid_until`."""
    subscriber_id = _id.read(request)
    subscriber = await request.carried_out(lambda: request.parts.dispatcher.roster.rotate(subscriber_id))
    until = subscriber.old_secrets[0].until if subscriber.old_secrets else None
    secret = subscriber.settings.secret or ""  # it has one: this one
    return wire.answer(documents.Rotation(subscriber.id, secret, until))


def _view(request: Request, subscriber: Subscriber) -> documents.SubscriberView:
    settings, timeout = subscriber.settings, subscriber.settings.timeout_seconds
    evicted = subscriber.status is Status.EVICTED
    return documents.SubscriberView(
        id=subscriber.id,
        url=_shown_url(request, settings.url),
        timeout=None if timeout is None else str(Seconds(timeout)),
        max_lag=settings.max_lag,
        on=settings.on,
        states=settings.states,
        max_batch=settings.max_batch,
        source="config" if subscriber.configured else "api",
        status=subscriber.status,
        cursor=subscriber.cursor,
        lag=subscriber.lag(request.parts.store.journal.head),
        failures=subscriber.failures,
        last_outcome=subscriber.last_outcome,
        last_http_status=subscriber.last_http_status,
        last_success_at=subscriber.last_success_at or None,
        evicted=documents.Eviction(subscriber.evicted_at, subscriber.evicted_reason) if evicted else None,
    )


def _shown_url(request: Request, url: str) -> str:
    """Whole for those who may change it. For others without its path, which often is the receiver's only secret."""
    return url if Scope.SUBSCRIBE in request.caller.scopes else str(URL(url).origin())
