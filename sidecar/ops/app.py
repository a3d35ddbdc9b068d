"""The ops listener: probes and metrics. It serves no state and takes no writes."""

from collections.abc import Sequence

import msgspec
from aiohttp import web

from sidecar.ops.exposition import Exposition
from sidecar.ops.health import Health, Probe


def build_ops(health: Health, exposition: Exposition) -> web.Application:
    """The application on the ops listener."""

    async def livez(request: web.Request) -> web.Response:
        return _answer(health.live())

    async def readyz(request: web.Request) -> web.Response:
        return _answer(health.ready())

    async def startupz(request: web.Request) -> web.Response:
        return _answer(health.started())

    async def healthz(request: web.Request) -> web.Response:
        return _answer([*health.started(), *health.live(), *health.ready()])

    async def metrics(request: web.Request) -> web.Response:
        asked = request.headers
        scrape = await exposition.scrape(asked.get("Accept"), asked.get("Accept-Encoding"), request.query.getall("name[]", ()))
        if scrape is None:
            return web.Response(status=500, text="the scrape could not be made; the sidecar's log says why\n")
        return web.Response(body=scrape.body, headers=scrape.headers)

    app = web.Application()
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/startupz", startupz)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/metrics", metrics)
    return app


def _answer(probes: Sequence[Probe]) -> web.Response:
    ok = all(probe.ok for probe in probes)
    body = msgspec.json.encode({"ok": ok, "checks": probes})
    return web.Response(body=body, status=200 if ok else 503, content_type="application/json")
