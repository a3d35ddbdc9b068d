"""Reading and writing the agent's state."""

import time

import msgspec
from aiohttp import web

from sidecar.api import conditions, documents, wire
from sidecar.api.describing import Reply
from sidecar.api.parameters import Choice, Duration, Flag
from sidecar.api.patching import MEDIA_TYPE, StatePatch, patched
from sidecar.api.request import Request
from sidecar.api.routing import Routes, Scope
from sidecar.api.writing import RAISES, WRITES, WRITTEN, Write
from sidecar.conflicts import Expectation
from sidecar.document import SnapshotDocument, TransitionDocument
from sidecar.errors import (
    InvalidError,
    MalformedError,
    NoStateError,
    StateVersionError,
    TooManyWatchersError,
)
from sidecar.snapshot import new_uuid
from sidecar.watchers import Kind

LONGEST_WAIT_SECONDS = 60.0
"""Proxies give up on an answer that takes longer."""

routes = Routes()

_state_write = wire.Body(wire.StateWrite)
_state_patch = wire.Body(StatePatch, MEDIA_TYPE)
_move = wire.Body(wire.Move)

_enforce_version = Flag(
    "enforce_version",
    "The write counts only when the current version is older than that in the body.",
    raises=(StateVersionError,),
)
_wait = Duration(
    "wait",
    "Long poll: answered as soon as there is a revision after that of `after` or `If-None-Match`; after so long with 304.",
    most=LONGEST_WAIT_SECONDS,
    raises=(TooManyWatchersError,),
)
_format = Choice("format", "As JSON, or as a Mermaid diagram.", "json", "mermaid")

_STATE = Reply("The state.", documents.State, headers=(conditions.ETAG,))


@routes.get(
    "/v1/state",
    Scope.READ,
    takes=(conditions.AFTER, conditions.EPOCH, _wait, conditions.IF_NONE_MATCH),
    answers={200: _STATE, 304: Reply("The caller has it.", headers=(conditions.ETAG,))},
    raises=(NoStateError,),
)
async def get_state(request: Request) -> web.StreamResponse:
    """The current state, or 304 when the caller has it. With `wait`, that one only if nothing new comes for so long."""
    store = request.parts.store
    wait, known = _wait.read(request), _known(request)
    if wait:
        await _newer(request, known, wait)
    stored = store.read()
    if stored is None:
        raise NoStateError("no state has been written yet")
    if known is not None and stored.entry.revision <= known:
        return web.Response(status=304, headers={"ETag": conditions.etag(store.journal.epoch, stored.document.version)})
    return wire.answer_state(store.journal.epoch, stored)


def _known(request: Request) -> int | None:
    """The revision that the caller has, by `after` or by its ETag; None: it has none of this journal."""
    if not request.rel_url.raw_query_string and "If-None-Match" not in request.headers:  # as most requests are
        return None
    after, epoch = conditions.after(request)
    store = request.parts.store
    current = store.current
    matched = conditions.not_modified(
        request, conditions.etag(store.journal.epoch, current.document.version) if current else ""
    )
    if after is not None:
        return after if epoch in (None, store.journal.epoch) and after <= store.journal.head else None
    if current and matched:
        return current.entry.revision
    if _wait.text(request) and "If-None-Match" not in request.headers:
        raise MalformedError("wait needs what you have: after=<revision>, or If-None-Match with its ETag")
    return None


async def _newer(request: Request, known: int | None, seconds: float) -> None:
    """Wait for a revision after the one that is known."""
    watchers = request.parts.watchers
    if known is not None and watchers.journal.head <= known:
        with watchers.admitted(Kind.POLL, known, judge=request.judge_reader) as watcher, request.waiting():
            request.lost = watcher.leave
            await watcher.wait(seconds)
        if watcher.revoked:
            raise watcher.revoked


@routes.put(
    "/v1/state",
    Scope.WRITE,
    takes=(_enforce_version, *WRITES),
    body=_state_write,
    answers=WRITTEN,
    raises=RAISES,
)
async def put_state(request: Request) -> web.StreamResponse:
    """Write the state: the body's snapshot replaces the current one."""
    write = Write(request)
    enforce_version = _enforce_version.read(request)
    change: wire.StateWrite = await _state_write.read(request)
    if enforce_version:
        if change.version is None:
            raise InvalidError("enforce_version needs the version to be enforced", path="$.version")
        write.expect(Expectation(below=change.version))
    history_limit = request.parts.store.history_limit
    return await write.answer(lambda tail: _replacement(change, tail, history_limit))


@routes.patch("/v1/state", Scope.WRITE, takes=WRITES, body=_state_patch, answers=WRITTEN, raises=(*RAISES, NoStateError))
async def patch_state(request: Request) -> web.StreamResponse:
    """Change some of the state's data; the agent stays in its state. Patches of different members do not meet."""
    write = Write(request)
    change: StatePatch = await _state_patch.read(request)
    return await write.answer(lambda tail: patched(change, tail, request.client_max_size))


def _replacement(change: wire.StateWrite, tail: SnapshotDocument | None, history_limit: int) -> SnapshotDocument:
    """The change as the whole document. What the state is about is the writer's; its bookkeeping goes on where it stood."""
    version, previous, attempts = change.version, change.prev_state, change.attempt_count
    history: tuple[TransitionDocument, ...] | None = change.history
    if tail:
        moved = tail.state != change.state
        version = tail.version + 1 if version is None else version
        previous = (tail.state if moved else tail.prev_state) if previous is None else previous
        attempts = tail.attempt_count + moved if attempts is None else attempts
        if history is None:
            history = _continued(tail, change, history_limit) if moved else tail.history
    return SnapshotDocument(
        version or 0,
        change.state,
        change.reason,
        change.ts_mono or time.monotonic(),
        change.ts_wall or time.time(),
        change.snapshot_id or new_uuid(),
        change.fsm_instance_id or (tail.fsm_instance_id if tail else new_uuid()),
        previous,
        change.source_module,
        attempts or 0,
        history or (),
        change.context_data,
        change.state_metadata,
    )


def _continued(tail: SnapshotDocument, change: wire.StateWrite, limit: int) -> tuple[TransitionDocument, ...]:
    """The history with the transition that the change makes."""
    mono, wall = change.ts_mono or time.monotonic(), change.ts_wall or time.time()
    move = TransitionDocument(tail.state, change.state, change.reason, ts_mono=mono, ts_wall=wall)
    return (*tail.history, move)[-limit:] if limit else ()


@routes.post("/v1/transitions", Scope.WRITE, takes=WRITES, body=_move, answers=WRITTEN, raises=RAISES)
async def post_transition(request: Request) -> web.StreamResponse:
    """Go to a state: the sidecar builds the next snapshot, and adds the transition to its history."""
    write = Write(request)
    move: wire.Move = await _move.read(request)
    store = request.parts.store
    if move.source is not None:
        write.expect(Expectation(state=move.source))

    def build(tail: SnapshotDocument | None) -> SnapshotDocument:
        if move.source is not None:
            store.rules.state_named(move.source, "$.from")
        return store.moved(tail, store.rules.state_named(move.to, "$.to"), move.reason, move.source_module)

    return await write.answer(build)


@routes.get("/v1/state/meta", Scope.READ, answers={200: Reply("The state and the store's numbers.", documents.StateMeta)})
async def get_state_meta(request: Request) -> web.StreamResponse:
    """The current state, or null, and what the store knows about itself."""
    store = request.parts.store
    _, meta = await store.get_with_meta()
    current = store.current
    document = msgspec.Raw(current.entry.document) if current else None
    revision = current.entry.revision if current else 0
    return wire.answer({"epoch": store.journal.epoch, "revision": revision, "snapshot": document, "meta": meta})


@routes.get("/v1/conflicts", Scope.READ, answers={200: Reply("The conflicts.", documents.ConflictList)})
async def get_conflicts(request: Request) -> web.StreamResponse:
    """The last writes that lost or overwrote a state unseen, newest first: who tried what against whom, and when."""
    conflicts = request.parts.store.conflicts
    return wire.answer(documents.ConflictList(conflicts.counts, tuple(conflicts.newest_first())))


@routes.get(
    "/v1/machine",
    Scope.READ,
    takes=(_format,),
    answers={200: Reply("The machine.", documents.MachineView, others={"text/plain": {"type": "string"}})},
)
async def get_machine(request: Request) -> web.StreamResponse:
    """The states, the transitions allowed, and where the agent is. As JSON, or as a Mermaid diagram."""
    as_mermaid = _format.read(request) == "mermaid"
    store, about = request.parts.store, request.parts.about
    machine, current = store.machine, store.current
    state = machine.states[current.document.state] if current else None
    if as_mermaid:
        return web.Response(text=machine.mermaid(state))
    transitions = None
    if machine.transitions is not None:
        transitions = {source.name: machine.allowed(source) for source in machine.states}
    states = list(machine.states.__members__)
    return wire.answer(
        documents.MachineView(
            agent=about.agent,
            name=about.machine,
            states=states,
            fault_states=[state for state in about.fault_states if state in states],
            initial=machine.initial.name if machine.initial is not None else None,
            transitions=transitions,
            enforcement=machine.enforcement,
            current=state.name if state is not None else None,
            allowed=machine.allowed(state) if state is not None else states,
        )
    )


@routes.get("/v1/health", Scope.READ, answers={200: Reply("The health, good or bad.", documents.HealthView)})
async def get_health(request: Request) -> web.StreamResponse:
    """The store's health, as `health_check` tells it."""
    return wire.answer(await request.parts.store.health_check())


@routes.get("/v1/metrics.json", Scope.READ, answers={200: Reply("The numbers.", documents.Numbers)})
async def get_metrics(request: Request) -> web.StreamResponse:
    """The store's numbers, as `get_metrics` tells them."""
    return wire.answer(await request.parts.store.get_metrics())
