"""Registering, inspecting and removing webhook subscribers."""

import secrets
from typing import Any

import msgspec
from aiohttp import web

from sidecar.api import wire
from sidecar.api.request import Request
from sidecar.api.routing import Routes
from sidecar.dispatch.roster import Settings, Status, Subscriber
from sidecar.dispatch.secret import Secret
from sidecar.errors import InvalidError
from sidecar.units import Seconds

MAX_TIMEOUT_SECONDS = 30.0

routes = Routes()

_subscriber_write = wire.Body(wire.SubscriberWrite)
_new_subscriber = wire.Body(wire.NewSubscriber)


@routes.put("/v1/subscribers/{id}")
async def put_subscriber(request: Request) -> web.StreamResponse:
    """Register, change or resume a subscriber. Idempotent."""
    wire.Query(request)
    subscriber_id = _id(request)
    return await _register(request, subscriber_id, await _subscriber_write.read(request))


@routes.post("/v1/subscribers")
async def post_subscriber(request: Request) -> web.StreamResponse:
    """As `PUT`, with the id in the body, or one made here."""
    wire.Query(request)
    change: wire.NewSubscriber = await _new_subscriber.read(request)
    return await _register(request, change.id or f"sub-{secrets.token_hex(8)}", change)


async def _register(request: Request, subscriber_id: str, change: wire.SubscriberWrite) -> web.StreamResponse:
    dispatcher = request.parts.dispatcher
    secret_is_made = change.secret is None and not dispatcher.roster.has_secret(subscriber_id)
    subscriber, added = await dispatcher.register(subscriber_id, _settings(change))
    view = _view(request, subscriber)
    if secret_is_made:
        view["secret"] = subscriber.settings.secret  # told once, to whoever registered first
    headers = {"Location": f"/v1/subscribers/{subscriber_id}"}
    return wire.answer(view, status=201 if added else 200, headers=headers)


def _settings(change: wire.SubscriberWrite) -> Settings:
    timeout = None
    if change.timeout is not None:
        timeout = float(wire.duration(change.timeout, path="$.timeout", most=MAX_TIMEOUT_SECONDS))
    if change.secret is not None:
        try:
            Secret.parse(change.secret)
        except ValueError as error:
            raise InvalidError(str(error), path="$.secret") from None
    return Settings(change.url, change.secret, timeout, change.max_lag)


@routes.get("/v1/subscribers")
async def get_subscribers(request: Request) -> web.StreamResponse:
    """Everybody: also the evicted, as long as they are remembered."""
    wire.Query(request)
    roster = request.parts.dispatcher.roster
    return wire.answer({"subscribers": [_view(request, subscriber) for subscriber in roster]})


@routes.get("/v1/subscribers/{id}")
async def get_subscriber(request: Request) -> web.StreamResponse:
    """One subscriber: its settings, its status, how far it got, and its last outcome."""
    wire.Query(request)
    return wire.answer(_view(request, request.parts.dispatcher.roster.get(_id(request))))


@routes.delete("/v1/subscribers/{id}")
async def delete_subscriber(request: Request) -> web.StreamResponse:
    """Remove a subscriber, and forget how far it got."""
    wire.Query(request)
    await request.parts.dispatcher.remove(_id(request))
    return web.Response(status=204)


@routes.post("/v1/subscribers/{id}/ping")
async def ping_subscriber(request: Request) -> web.StreamResponse:
    """Send a message without a state, and answer how it went."""
    wire.Query(request)
    attempt = await request.parts.dispatcher.ping(_id(request))
    return wire.answer({"outcome": attempt.outcome, "status": attempt.status, "seconds": attempt.seconds})


def _id(request: Request) -> str:
    try:
        return msgspec.convert(request.placeholders["id"], wire.SubscriberId)
    except msgspec.ValidationError:
        raise InvalidError("an id has 1 to 63 letters, digits, - and _, and begins with a letter or digit", path="id") from None


def _view(request: Request, subscriber: Subscriber) -> dict[str, Any]:
    head = request.parts.store.journal.head
    evicted, timeout = None, subscriber.settings.timeout_seconds
    if subscriber.status is Status.EVICTED:
        evicted = {"at": subscriber.evicted_at, "reason": subscriber.evicted_reason}
    return {
        "id": subscriber.id,
        "url": subscriber.settings.url,
        "timeout": None if timeout is None else str(Seconds(timeout)),
        "max_lag": subscriber.settings.max_lag,
        "source": "config" if subscriber.configured else "api",
        "status": subscriber.status,
        "cursor": subscriber.cursor,
        "lag": subscriber.lag(head),
        "failures": subscriber.failures,
        "last_outcome": subscriber.last_outcome,
        "last_http_status": subscriber.last_http_status,
        "last_success_at": subscriber.last_success_at or None,
        "evicted": evicted,
    }
