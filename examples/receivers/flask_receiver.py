"""A webhook receiver on Flask, in one thread. Secret in HOOK_SECRET, port in PORT, and what it knows in received.json."""

import json
import os
from pathlib import Path

from flask import Flask, request

from sidecar.receiver import Position, Receiver, VerificationError

KEPT = Path("received.json")
app = Flask(__name__)
receiver = Receiver(os.environ["HOOK_SECRET"], position=Position(*json.loads(KEPT.read_text())) if KEPT.exists() else None)


def keep(position: Position | None) -> None:
    if position:
        KEPT.write_text(json.dumps([position.epoch, position.revision, position.left]))


@app.post("/hook")
def hook() -> tuple[str, int]:
    try:
        for change in receiver.changes(request.headers, request.get_data()):
            print(change.revision, change.snapshot["state"], flush=True)
    except VerificationError as error:
        return str(error), 401
    keep(receiver.position)
    return "", 204


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ["PORT"]), threaded=False)
