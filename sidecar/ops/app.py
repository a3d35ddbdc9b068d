"""The ops listener: probes and metrics. It serves no state and takes no writes."""

from collections.abc import Callable, Sequence

import msgspec
from aiohttp import web

from sidecar.ops.exposition import Exposition
from sidecar.ops.health import Health, Probe


class Ops:
    """Answers the requests of the ops listener."""

    def __init__(self, health: Health, exposition: Exposition) -> None:
        self._exposition = exposition
        self._probes: dict[str, Callable[[], list[Probe]]] = {
            "/livez": health.live,
            "/readyz": health.ready,
            "/startupz": health.started,
            "/healthz": lambda: [*health.started(), *health.live(), *health.ready()],
        }

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path = request.path
        if path not in self._probes and path != "/metrics":
            return web.Response(status=404, text="here are /livez, /readyz, /startupz, /healthz and /metrics\n")
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={"Allow": "GET, HEAD"}, text="this listener is only read\n")
        if path == "/metrics":
            return await self._metrics(request)
        return _answer(self._probes[path]())

    async def _metrics(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = request.headers
        names = request.query.getall("name[]", ())
        scrape = await self._exposition.scrape(asked.get("Accept"), asked.get("Accept-Encoding"), names)
        if scrape is None:
            return web.Response(status=500, text="the scrape could not be made; the sidecar's log says why\n")
        return web.Response(body=scrape.body, headers=scrape.headers)


def _answer(probes: Sequence[Probe]) -> web.Response:
    ok = all(probe.ok for probe in probes)
    body = msgspec.json.encode({"ok": ok, "checks": probes})
    return web.Response(body=body, status=200 if ok else 503, content_type="application/json")
