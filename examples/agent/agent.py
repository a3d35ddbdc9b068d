"""A small agent, written for the store in its own process; with one line changed its state is in a sidecar, and outlives it.

python agent.py                          # the state is in this process
python agent.py http://127.0.0.1:8470    # the state is in the sidecar there
"""

import asyncio
import sys

from sidecar import AsyncStateStore, FsmState, StateVersionError, create_transition, next_snapshot
from sidecar.client import StateClient


def store_at(url: str | None) -> AsyncStateStore | StateClient:
    """The one line: which store it is. All the rest does not know."""
    return StateClient(url) if url else AsyncStateStore()


async def go(store: AsyncStateStore | StateClient, state: FsmState, reason: str) -> None:
    """Go to a state; when another writer was faster, look again and decide anew."""
    while True:
        current = await store.get()
        move = create_transition(current.state, state, reason)
        try:
            await store.set(next_snapshot(current, state, reason, move), expected=current.version)
        except StateVersionError as lost:
            print("somebody was faster:", lost)
        else:
            return


async def show(queue: asyncio.Queue) -> None:
    """What a dashboard would do: show the state that is there, and then each one as it comes, to the agent's end."""
    ended = None  # where it ended the last time does not count
    while not ended:
        snapshot = await queue.get()
        print(f"{snapshot.version}: {snapshot.state.name} ({snapshot.reason})", flush=True)
        ended = ended is not None and snapshot.state is FsmState.SHUTDOWN


async def main(url: str | None = None) -> None:
    store = store_at(url)
    try:
        await store.initialize_if_empty()
        shown = asyncio.create_task(show(await store.subscribe("dashboard")))
        await go(store, FsmState.IDLE, "self-test passed")
        await go(store, FsmState.ACTIVE, "mission received")
        await go(store, FsmState.IDLE, "mission done")
        await go(store, FsmState.SHUTDOWN, "landed, all off")
        await shown
    finally:
        await store.cleanup()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:2]))
