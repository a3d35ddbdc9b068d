"""`StateClient`: the store of a sidecar, with the names, arguments, results and errors of `AsyncStateStore`."""

import asyncio
import ssl as tls
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from enum import IntEnum
from functools import partial
from typing import Any, Self, TypeVar

import msgspec

from sidecar.audience import Audience
from sidecar.client import reading
from sidecar.client.feeding import Feed
from sidecar.client.numbers import listeners, with_queues
from sidecar.client.problems import UnavailableError
from sidecar.client.states import (
    Change,
    Conflict,
    DryRunAnswer,
    Gap,
    Lease,
    MachineAnswer,
    MetaAnswer,
    Position,
    State,
    StateAnswer,
    decoded,
)
from sidecar.client.subscribers import Subscribers
from sidecar.client.transport import Answer, Transport
from sidecar.client.watching import Watch
from sidecar.client.writing import DRY_RUN, Data, Wait, Writes, merge_patch, move
from sidecar.conflicts import NO_VERSION, Expectation
from sidecar.document import SnapshotDocument, document_of, snapshot_of
from sidecar.endpoint import DEFAULT_URL, Endpoint, Token
from sidecar.errors import Holder, InvalidSnapshotError, NoStateError, StateExistsError, StateStoreError
from sidecar.machine import Machine
from sidecar.readers import Readers
from sidecar.snapshot import FsmSnapshot, FsmState, initial_snapshot

DEFAULT_MAX_SUBSCRIBERS = 1000
DEFAULT_QUEUE_SIZE = 64

Typed = TypeVar("Typed")


class StateClient:
    """The store of the sidecar at `url` (`http://…`, `https://…` or `unix:/path`).

    `token`, or `token_file`, which is read again for each request. A try takes up to `timeout` seconds; reads, and writes with
    a key that makes them count once, are repeated for up to `retry_for` seconds. `states`: the machine's, asked for when not
    given. `max_subscribers` and `queue_size` bound the queues of this client. `ssl`: for `https`, instead of the defaults.
    `subscribers`: the sidecar's webhooks.

    Raises `ValueError` for a wrong url or timeout; every call `UnavailableError` when the sidecar gives no answer in time.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        token_file: str | None = None,
        timeout: float = 5.0,
        retry_for: float = 15.0,
        states: type[IntEnum] | None = None,
        max_subscribers: int = DEFAULT_MAX_SUBSCRIBERS,
        queue_size: int = DEFAULT_QUEUE_SIZE,
        ssl: tls.SSLContext | None = None,
    ) -> None:
        if timeout <= 0:
            raise ValueError("timeout is more than 0 seconds")
        if token is not None and token_file is not None:
            raise ValueError("give a token or a token_file, not both")
        self._transport = Transport(
            Endpoint.parse(url), Token(token, token_file), timeout=timeout, retry_for=retry_for, ssl=ssl
        )
        self.subscribers = Subscribers(self._transport)
        self._given_states = states
        self._states: type[IntEnum] | None = None
        self._writes = Writes(self._transport, self._look)
        self._audience = Audience(max_subscribers)
        self._readers = Readers(self._audience, queue_size)
        self._feed = Feed(self.watch, self._readers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End all subscriptions and watches, and close all connections. The client can be used again afterwards."""
        self._readers.leave_all()
        await self._feed.end()
        await self._transport.close()

    # --- reading ---

    async def get(self) -> FsmSnapshot | None:
        """The current snapshot, or None."""
        state = await self.get_state()
        return state.snapshot if state else None

    async def get_state(self) -> State | None:
        """The current snapshot with its epoch and revision, or None."""
        try:
            answer = await self._transport.ask("GET", "/v1/state")
        except NoStateError:
            return None
        return await self._state_in(answer)

    async def get_with_meta(self) -> tuple[FsmSnapshot | None, dict[str, Any]]:
        """The current snapshot and what the sidecar's store knows about itself."""
        found = await self._look()
        self._writes.epoch = found.epoch
        snapshot = await self._snapshot_of(found.snapshot)
        meta = found.meta | {"store_metrics": with_queues(found.meta["store_metrics"], self._audience)}
        return snapshot, meta | {"subscriber_count": meta["store_metrics"]["subscriber_count"]}

    async def history(self, after: int | None = None, *, newest: int | None = None) -> AsyncGenerator[State]:
        """The revisions after `after` (default: from the oldest kept), or the `newest` so many; oldest first, to the newest.

        Raises `CompactedError` with `oldest` when revisions after `after` are no longer kept.
        """
        async with aclosing(reading.revisions(self._transport, after, newest)) as revisions:
            async for each in revisions:
                yield await self._typed(each.typed)

    async def conflicts(self) -> list[Conflict]:
        """The last writes that lost or overwrote a state unseen, newest first."""
        return await reading.conflicts(self._transport)

    async def states(self) -> type[IntEnum]:
        """The machine's states: those given, or the sidecar's, which are asked for once, and again when there comes another."""
        if self._given_states is not None:
            return self._given_states
        if self._states is None:
            self._states = Machine.from_names((await self._machine()).states).states
        return self._states

    async def _typed(self, build: Callable[[type[IntEnum]], Typed]) -> Typed:
        """What is built with the machine's states: a sidecar may have come back with others."""
        states = await self.states()
        try:
            return build(states)
        except InvalidSnapshotError:
            if self._states is states:
                self._states = None
            return build(await self.states())

    async def _snapshot_of(self, document: SnapshotDocument | None) -> FsmSnapshot | None:
        return None if document is None else await self._typed(partial(snapshot_of, document))

    async def _look(self) -> MetaAnswer:
        return decoded((await self._transport.ask("GET", "/v1/state/meta")).body, MetaAnswer)

    async def _machine(self) -> MachineAnswer:
        return decoded((await self._transport.ask("GET", "/v1/machine")).body, MachineAnswer)

    async def _state_in(self, answer: Answer) -> State:
        given = decoded(answer.body, StateAnswer)
        self._writes.epoch = given.epoch
        return await self._typed(partial(given.typed, replayed="Idempotency-Replayed" in answer.headers))

    # --- writing ---

    async def _written(self, answer: Answer) -> State:
        """The state that was written. It counts: whatever is wrong with reading it must not say otherwise."""
        try:
            return await self._state_in(answer)
        except StateStoreError as error:
            raise UnavailableError(f"the write counts, but its answer cannot be read: {error}", outcome="unknown") from error

    async def set(
        self, snapshot: FsmSnapshot, enforce_version: bool = False, *, expected: int | Expectation | None = None
    ) -> FsmSnapshot:
        """Write a snapshot and return it as stored, as `AsyncStateStore.set` does. It counts once, however often it is sent.

        A snapshot without `prev_state` gets the state that it leaves. A version in `expected` is of the journal that this
        client read last, unless it names its epoch.
        """
        if not isinstance(snapshot, FsmSnapshot):
            raise StateStoreError(f"expected an FsmSnapshot, got {type(snapshot).__name__}")
        if not isinstance(snapshot.state, await self.states()):
            raise InvalidSnapshotError(f"{snapshot.state!r} is not a state of the machine", path="$.state")
        query = {"enforce_version": "true"} if enforce_version else {}
        document = document_of(snapshot)
        if not enforce_version and document.version < 0:  # as the store does, which renumbers it anyway
            document = msgspec.structs.replace(document, version=0)
        state = await self._written(await self._writes.send("PUT", "/v1/state", document, expected, query))
        return state.snapshot

    async def transition(
        self,
        to: IntEnum,
        reason: str,
        *expected: Expectation,
        source_module: str = "fsm_handler",
        wait: Wait | None = None,
    ) -> State:
        """Go to a state, as `AsyncStateStore.transition` does: the sidecar builds the next snapshot. It counts once.

        Takes an expectation of a state, and one of anything else beside it. With `wait`, such as `Wait("all", 2.0)`, it returns
        when so many webhook subscribers have acknowledged it, or the time is over: `acks` of the `State` tells.
        """
        body, other = move(to, reason, expected, source_module)
        await self.states()
        return await self._written(await self._writes.send("POST", "/v1/transitions", body, other, wait=wait))

    async def dry_run(
        self, to: IntEnum, reason: str, *expected: Expectation, source_module: str = "fsm_handler"
    ) -> FsmSnapshot:
        """What `transition` would store now, or the error that it would raise. Nothing is written."""
        body, other = move(to, reason, expected, source_module)
        answer = await self._writes.send("POST", "/v1/transitions", body, other, DRY_RUN)
        return await self._typed(partial(snapshot_of, decoded(answer.body, DryRunAnswer).snapshot))

    async def patch(
        self,
        *,
        context_data: Data = msgspec.UNSET,
        state_metadata: Data = msgspec.UNSET,
        reason: str | None = None,
        source_module: str = "fsm_handler",
        expected: int | Expectation | None = None,
        wait: Wait | None = None,
    ) -> State:
        """Change some members of the data, by a JSON Merge Patch on the newest state: a member that is None is removed.

        What is left out stays; None for all of it makes it empty. It counts once. `wait` is as in `transition`. Raises
        `NoStateError` where there is none.
        """
        patch = merge_patch(context_data, state_metadata, reason, source_module)
        await self.states()
        return await self._written(await self._writes.send("PATCH", "/v1/state", patch, expected, wait=wait))

    async def initialize_if_empty(self) -> None:
        """Write the initial snapshot if there is no state; on return there is one."""
        if await self.get_state() is not None:
            return
        states, initial = await self.states(), (await self._machine()).initial
        try:
            await self.set(initial_snapshot(FsmState.BOOTING if initial is None else states[initial]), expected=NO_VERSION)
        except StateExistsError:
            return

    # --- the agent's life ---

    async def become_writer(self, name: str, ttl: float | None = None, takeover: bool = False) -> Lease:
        """Take the lease for `ttl` seconds (None: as configured), or renew it. Each write and heartbeat shows its token then.

        Raises `WriterHeldError` while another one has it, unless it is to be taken over; and `FencedError`, as those do, once
        another one has replaced this client: leave writing to it.
        """
        return await self._writes.become_writer(name, ttl, takeover=takeover)

    async def writer(self) -> Holder | None:
        """Who has the lease, and until when; None: nobody had it yet."""
        return await reading.holder(self._transport)

    async def heartbeat(self, ttl: float | None = None) -> float:
        """Say that the agent lives. Gives when the next one is due at the latest, in seconds since the Unix epoch.

        `ttl` in seconds; None: as configured. Raises `FencedError`.
        """
        return await self._writes.heartbeat(ttl)

    # --- watching ---

    async def watch(self, last: Position | None = None) -> AsyncGenerator[Change | Gap]:
        """Every state from now on, the current one first; behind `last`, a position that was seen before, if it is given.

        It goes on by itself over lost connections and restarts, and tells each `Gap` before the state behind it. Raises the
        store's errors for a refusal that no later try will change. It ends with `aclose` of the client; leave it earlier with
        `break`, or close it (`aclosing`).
        """
        async with aclosing(Watch(self._transport, self._typed, last).events()) as events:
            async for event in events:
                if isinstance(event, Change):
                    self._writes.epoch = event.epoch
                yield event

    async def subscribe(
        self, subscriber_id: str = "unknown", max_queue_size: int | None = None
    ) -> "asyncio.Queue[FsmSnapshot]":
        """A queue that first receives the current snapshot, then each new one. At the limit: `SubscriberLimitError`.

        When the reader is slow, the oldest waiting snapshot makes room for the newest, and is counted as failed.
        """
        found = await self._look()
        snapshot = await self._snapshot_of(found.snapshot)
        await self._feed.reach(Position(found.epoch, found.revision), snapshot, self._transport.timeout)
        try:
            return self._readers.join(subscriber_id, max_queue_size, self._feed.newest)
        finally:
            await self._rest()

    async def unsubscribe(self, queue: "asyncio.Queue[FsmSnapshot]") -> bool:
        """Stop serving the queue. True if it was subscribed."""
        served = self._readers.leave(queue)
        await self._rest()
        return served

    async def _rest(self) -> None:
        if not self._readers:
            await self._feed.end()

    async def cleanup(self) -> None:
        """Forget all queues, and close all connections until the next call."""
        await self.aclose()

    # --- what the store knows about itself ---

    async def get_metrics(self) -> dict[str, Any]:
        """The numbers of the sidecar's store, this client's queues counted in."""
        numbers = decoded((await self._transport.ask("GET", "/v1/metrics.json")).body, dict[str, Any])
        return with_queues(numbers, self._audience)

    async def health_check(self) -> dict[str, Any]:
        """`healthy`, the failing checks as `issues` and `warnings`, `metrics`, and a `timestamp` in seconds."""
        health = decoded((await self._transport.ask("GET", "/v1/health")).body, dict[str, Any])
        return health | {"metrics": with_queues(health["metrics"], self._audience)}

    async def get_subscriber_info(self) -> dict[str, Any]:
        """Who listens to the sidecar, and through this client; and how many may."""
        return listeners(await self.subscribers.all(), self._audience, await self.get_metrics())
