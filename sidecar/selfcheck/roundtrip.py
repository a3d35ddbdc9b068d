"""The check of the way to a subscriber: a receiver of its own, registered for a moment, gets its first delivery."""

import base64
import contextlib
import http.server
import queue
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from sidecar.asking import Place
from sidecar.receiver import Change, Receiver, VerificationError
from sidecar.selfcheck.contract import current
from sidecar.selfcheck.verdict import FailedError, NotAllowedError, Told, ask

PATIENCE_SECONDS = 10.0
_MAX_BODY = 32 << 20
_REQUEST_SECONDS = 5.0


class Reached(NamedTuple):
    """Where the sidecar reaches this machine. Port 0: any."""

    host: str = "127.0.0.1"
    port: int = 0


class Delivery(NamedTuple):
    """What arrived: the changes in it (none in a ping), or why it was not believed."""

    changes: list[Change]
    error: str | None = None


def webhook_arrives(api: Place, reached: Reached) -> str:
    """The first delivery, or a ping where there is no state, signed with the secret that was given. Then it is removed."""
    name, secret = f"selfcheck-{secrets.token_hex(8)}", f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    asked = time.monotonic()
    with _receiving(reached, secret) as (url, deliveries), _registered(api, name, url, secret):
        now = current(api)
        if now.snapshot is None:
            ask(api, "POST", f"/v1/subscribers/{name}/ping")
        try:
            delivery = deliveries.get(timeout=PATIENCE_SECONDS)
        except queue.Empty:
            raise FailedError(_not_arrived(api, name, url)) from None
        seconds = time.monotonic() - asked
        if delivery.error:
            raise FailedError(f"a delivery came, but {delivery.error}; is a proxy in between, or a clock wrong?")
        if now.snapshot is not None and (not delivery.changes or delivery.changes[0].epoch != now.epoch):
            raise FailedError("the first delivery is not the current state; is another sidecar behind this URL?")
    return f"{'a ping' if now.snapshot is None else 'the current state'} at {url} within {seconds * 1000:.0f} ms"


@contextlib.contextmanager
def _registered(api: Place, name: str, url: str, secret: str) -> Iterator[None]:
    """A subscriber while the block runs. It is removed whatever happens: also when nobody knows whether it was registered."""
    told = None
    try:
        told = ask(api, "PUT", f"/v1/subscribers/{name}", {"url": url, "secret": secret})
        if told.status != 201:
            raise FailedError(_not_registered(told, url))
        yield
    except FailedError as failure:
        left = _left_behind(api, name)
        refused = told is None and isinstance(failure, NotAllowedError)  # who may not register has left nothing behind
        raise FailedError(f"{failure}; and {left}" if left and not refused else str(failure)) from None
    except BaseException:
        _left_behind(api, name)
        raise
    left = _left_behind(api, name)
    if left:
        raise FailedError(left)


def _left_behind(api: Place, name: str) -> str | None:
    """Remove the subscriber; why it is still there. Who interrupts now waits for that."""
    try:
        told = ask(api, "DELETE", f"/v1/subscribers/{name}")
    except KeyboardInterrupt:
        _left_behind(api, name)
        raise
    except FailedError as failure:
        return f"the subscriber {name} may have been left behind, remove it by hand ({failure})"
    if told.status in (204, 404):
        return None
    return f"the subscriber {name} was left behind, remove it by hand (DELETE: {told})"


def _not_registered(told: Told, url: str) -> str:
    if told.type == "subscriber-limit":
        return f"{told}; remove one, or raise store.max_subscribers"
    if told.type == "endpoint-refused":
        return f"{url}: {told}; allow it in webhooks.targets, or say with --receiver how this machine is reached"
    return f"PUT /v1/subscribers/…: {told}, expected 201"


def _not_arrived(api: Place, name: str, url: str) -> str:
    told = ask(api, "GET", f"/v1/subscribers/{name}")
    outcome = told.json.get("last_outcome") if isinstance(told.json, dict) else None
    return (
        f"nothing arrived at {url} within {PATIENCE_SECONDS:g} s (outcome so far: {outcome or 'none'});"
        " say with --receiver under which address the sidecar reaches this machine, and look for what is in between"
    )


@contextlib.contextmanager
def _receiving(reached: Reached, secret: str) -> Iterator[tuple[str, "queue.SimpleQueue[Delivery]"]]:
    """A receiver while the block runs: its URL, and what arrives there."""
    deliveries: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
    receiver, path = Receiver(secret), f"/{secrets.token_hex(8)}"

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = _REQUEST_SECONDS

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if self.path != path or not (length.isascii() and length.isdigit() and int(length) <= _MAX_BODY):
                self.send_error(404)
                return
            try:
                delivery = Delivery(list(receiver.changes(dict(self.headers), self.rfile.read(int(length)))))
            except VerificationError as error:
                delivery = Delivery([], str(error))
            self.send_response(401 if delivery.error else 204)
            self.end_headers()
            deliveries.put(delivery)

        def log_message(self, *_: object) -> None:
            """Nothing: the verdict tells."""

    try:
        server = _server(reached, Handler)
    except OSError as error:
        raise FailedError(f"cannot listen for {reached.host}:{reached.port}: {error.strerror or error}") from None
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    host = f"[{reached.host}]" if ":" in reached.host else reached.host
    try:
        yield f"http://{host}:{server.server_address[1]}{path}", deliveries
    finally:
        server.shutdown()
        server.server_close()


def _server(reached: Reached, handler: type[http.server.BaseHTTPRequestHandler]) -> http.server.ThreadingHTTPServer:
    """On loopback where that is asked for, else on all addresses: the name may stand for one that is not this machine's."""
    six = ":" in reached.host
    on_loopback = reached.host in ("127.0.0.1", "::1", "localhost")
    address = reached.host if on_loopback else "::" if six else "0.0.0.0"  # noqa: S104  (it is to be reached from elsewhere)

    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6 if six else socket.AF_INET
        daemon_threads = True
        block_on_close = False

    return Server((address, reached.port), handler)
