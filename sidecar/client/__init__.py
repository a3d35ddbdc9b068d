"""A sidecar's store over HTTP, for Python: `StateClient` has the names of `AsyncStateStore`.

async with StateClient("http://127.0.0.1:8470") as store:
    await store.transition(FsmState.ACTIVE, "mission received")
    async for event in store.watch():
        ...
"""

from sidecar.client.problems import RefusedError, UnavailableError
from sidecar.client.states import Acks, Change, Conflict, Gap, Lease, Position, State
from sidecar.client.store import StateClient
from sidecar.client.subscribers import Eviction, Ping, Rotation, Subscriber
from sidecar.client.writing import Wait
from sidecar.errors import Holder

__all__ = [
    "Acks",
    "Change",
    "Conflict",
    "Eviction",
    "Gap",
    "Holder",
    "Lease",
    "Ping",
    "Position",
    "RefusedError",
    "Rotation",
    "State",
    "StateClient",
    "Subscriber",
    "UnavailableError",
    "Wait",
]
