"""A webhook receiver on aiohttp. Its secret is in HOOK_SECRET, its port in PORT, and what it knows in received.json."""

import json
import os
from pathlib import Path

from aiohttp import web

from sidecar.receiver import Position, Receiver, VerificationError

KEPT = Path("received.json")


def keep(position: Position | None) -> None:
    if position:
        KEPT.write_text(json.dumps([position.epoch, position.revision, position.left]))


async def hook(request: web.Request) -> web.Response:
    receiver: Receiver = request.app["receiver"]
    try:
        for change in receiver.changes(request.headers, await request.read()):
            if change.gap != 0:
                print("some revisions did not come here: look at GET /v1/history if they matter", flush=True)
            print(change.revision, change.snapshot["state"], flush=True)
    except VerificationError as error:
        return web.Response(status=401, text=str(error))
    keep(receiver.position)
    return web.Response(status=204)


def main() -> None:
    position = Position(*json.loads(KEPT.read_text())) if KEPT.exists() else None
    app = web.Application()
    app["receiver"] = Receiver(os.environ["HOOK_SECRET"], position=position)
    app.router.add_post("/hook", hook)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), print=None)


if __name__ == "__main__":
    main()
