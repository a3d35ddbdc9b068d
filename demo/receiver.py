"""A webhook receiver in good health: verifies each signature, and takes each revision once."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from demo.progress import Progress


class Delivery(NamedTuple):
    """A revision as it arrived. `delay`: seconds since the write. `snapshot`: the agent's state."""

    revision: int
    skipped: int
    initial: bool
    delay: float
    snapshot: dict[str, Any]


class Receiver:
    """Answers 204 to what it trusts, and tells it on. `revision`: how far it got."""

    def __init__(self, tell: Callable[[Delivery], None]) -> None:
        self.url = ""
        self.revision = Progress()
        self._tell = tell
        self._webhook: Webhook | None = None

    def trust(self, secret: str) -> None:
        """From now on believe what is signed with this secret."""
        self._webhook = Webhook(secret)

    async def receive(self, request: web.Request) -> web.Response:
        received_at = time.time()
        body = await request.read()
        if self._webhook is None:
            return web.Response(status=503, text="not registered yet")
        try:
            event = self._webhook.verify(body, dict(request.headers))
        except WebhookVerificationError as error:
            return web.Response(status=401, text=str(error))
        if event["type"] == "fsm.state.changed":
            self._take(event["data"], received_at)
        return web.Response(status=204)

    def _take(self, data: dict[str, Any], received_at: float) -> None:
        """Deliveries come at least once, and in order: what was here before is a repetition."""
        if data["revision"] <= self.revision.value:
            return
        snapshot = data["snapshot"]
        delay = received_at - snapshot["ts_wall"]
        self._tell(Delivery(data["revision"], data["skipped"], data["initial"], delay, snapshot))
        self.revision.advance(data["revision"])


@asynccontextmanager
async def receiving(tell: Callable[[Delivery], None]) -> AsyncIterator[Receiver]:
    """A receiver on a free port of this host."""
    receiver = Receiver(tell)
    app = web.Application()
    app.router.add_post("/hook", receiver.receive)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        receiver.url = f"http://{host}:{port}/hook"
        yield receiver
    finally:
        await runner.cleanup()
