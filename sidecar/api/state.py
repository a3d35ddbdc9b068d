"""Reading and writing the agent's state."""

import time

import msgspec
from aiohttp import web

from sidecar.api import wire
from sidecar.api.patching import MEDIA_TYPE, StatePatch, patched
from sidecar.api.request import Request
from sidecar.api.routing import Routes, Scope
from sidecar.api.writing import Write
from sidecar.conflicts import Expectation
from sidecar.document import SnapshotDocument, TransitionDocument
from sidecar.errors import InvalidError, MalformedError, NoStateError
from sidecar.snapshot import new_uuid
from sidecar.store import MAX_VERSION
from sidecar.watchers import Kind

LONGEST_WAIT_SECONDS = 60.0
"""Proxies give up on an answer that takes longer."""

routes = Routes()

_state_write = wire.Body(wire.StateWrite)
_state_patch = wire.Body(StatePatch, MEDIA_TYPE)
_move = wire.Body(wire.Move)


@routes.get("/v1/state", Scope.READ)
async def get_state(request: Request) -> web.StreamResponse:
    """The current state, or 304 when the caller has it. With `wait`, that one only if nothing new comes for so long."""
    query = wire.Query(request, "after", "epoch", "wait")
    store = request.parts.store
    known = _known(request, query)
    if wait := query.seconds("wait", most=LONGEST_WAIT_SECONDS):
        await _newer(request, known, wait)
    stored = store.read()
    if stored is None:
        raise NoStateError("no state has been written yet")
    if known is not None and stored.entry.revision <= known:
        return web.Response(status=304, headers={"ETag": wire.etag(store.journal.epoch, stored.document.version)})
    return wire.answer_state(store.journal.epoch, stored)


def _known(request: Request, query: wire.Query) -> int | None:
    """The revision that the caller has, by `after` or by its ETag; None: it has none of this journal."""
    after, epoch = wire.after(query)
    store = request.parts.store
    if after is not None:
        return after if epoch in (None, store.journal.epoch) and after <= store.journal.head else None
    current = store.current
    if current and wire.not_modified(request, wire.etag(store.journal.epoch, current.document.version)):
        return current.entry.revision
    if query.text("wait") and "If-None-Match" not in request.headers:
        raise MalformedError("wait needs what you have: after=<revision>, or If-None-Match with its ETag")
    return None


async def _newer(request: Request, known: int | None, seconds: float) -> None:
    """Wait for a revision after the one that is known."""
    watchers = request.parts.watchers
    if known is not None and watchers.journal.head <= known:
        with watchers.admitted(Kind.POLL, known) as watcher, request.waiting():
            request.lost = watcher.leave
            await watcher.wait(seconds)


@routes.put("/v1/state", Scope.WRITE)
async def put_state(request: Request) -> web.StreamResponse:
    """Write the state: the body's snapshot replaces the current one."""
    write = Write(request, "enforce_version")
    enforce_version = write.query.flag("enforce_version")
    change: wire.StateWrite = await _state_write.read(request)
    if enforce_version:
        if change.version is None:
            raise InvalidError("enforce_version needs the version to be enforced", path="$.version")
        write.expect(Expectation(below=change.version))
    history_limit = request.parts.store.history_limit
    return await write.answer(lambda tail: _replacement(change, tail, history_limit))


@routes.patch("/v1/state", Scope.WRITE)
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


@routes.post("/v1/transitions", Scope.WRITE)
async def post_transition(request: Request) -> web.StreamResponse:
    """Go to a state: the sidecar builds the next snapshot, and adds the transition to its history."""
    write = Write(request)
    move: wire.Move = await _move.read(request)
    store = request.parts.store
    if move.source is not None:
        write.expect(Expectation(state=move.source))

    def build(tail: SnapshotDocument | None) -> SnapshotDocument:
        if move.source is not None:
            store.state_named(move.source, "$.from")
        return store.moved(tail, store.state_named(move.to, "$.to"), move.reason, move.source_module)

    return await write.answer(build)


@routes.get("/v1/state/meta", Scope.READ)
async def get_state_meta(request: Request) -> web.StreamResponse:
    """The current state, or null, and what the store knows about itself."""
    wire.Query(request)
    store = request.parts.store
    _, meta = await store.get_with_meta()
    current = store.current
    document = msgspec.Raw(current.entry.document) if current else None
    revision = current.entry.revision if current else 0
    return wire.answer({"epoch": store.journal.epoch, "revision": revision, "snapshot": document, "meta": meta})


@routes.get("/v1/history", Scope.READ)
async def get_history(request: Request) -> web.StreamResponse:
    """Revisions after `after` (default: from the oldest kept), at most `limit`; or the last `newest` ones. Oldest first."""
    query = wire.Query(request, "after", "limit", "newest")
    journal = request.parts.store.journal
    if query.text("newest") is None:
        after = query.integer("after", default=journal.oldest - 1, least=0, most=MAX_VERSION)
        limit = query.integer("limit", default=100, least=1, most=1000)
    elif query.text("after") is None and query.text("limit") is None:
        limit = query.integer("newest", default=100, least=1, most=1000)
        after = max(journal.head - limit, journal.oldest - 1)
    else:
        raise MalformedError("newest says all of it: leave after and limit out, or page on with them instead")
    entries = await journal.read(after, limit)
    page = [msgspec.Raw(wire.state_document(journal.epoch, entry.revision, entry.document)) for entry in entries]
    return wire.answer({"epoch": journal.epoch, "oldest": journal.oldest, "head": journal.head, "entries": page})


@routes.get("/v1/conflicts", Scope.READ)
async def get_conflicts(request: Request) -> web.StreamResponse:
    """The last writes that lost or overwrote a state unseen, newest first: who tried what against whom, and when."""
    wire.Query(request)
    conflicts = request.parts.store.conflicts
    return wire.answer({"counts": conflicts.counts, "conflicts": conflicts.newest_first()})


@routes.get("/v1/machine", Scope.READ)
async def get_machine(request: Request) -> web.StreamResponse:
    """The states, the transitions allowed, and where the agent is. As JSON, or as a Mermaid diagram."""
    as_mermaid = wire.Query(request, "format").choice("format", "json", "mermaid") == "mermaid"
    store, about = request.parts.store, request.parts.about
    machine, current = store.machine, store.current
    state = machine.states[current.document.state] if current else None
    if as_mermaid:
        return web.Response(text=machine.mermaid(state))
    transitions = None
    if machine.transitions is not None:
        transitions = {source.name: machine.allowed(source) for source in machine.states}
    return wire.answer(
        {
            "agent": about.agent,
            "name": about.machine,
            "states": list(machine.states.__members__),
            "fault_states": [state for state in about.fault_states if state in machine.states.__members__],
            "initial": machine.initial.name if machine.initial is not None else None,
            "transitions": transitions,
            "enforcement": machine.enforcement,
            "current": state.name if state is not None else None,
            "allowed": machine.allowed(state) if state is not None else list(machine.states.__members__),
        }
    )


@routes.get("/v1/health", Scope.READ)
async def get_health(request: Request) -> web.StreamResponse:
    """The store's health, as `health_check` tells it."""
    wire.Query(request)
    return wire.answer(await request.parts.store.health_check())


@routes.get("/v1/metrics.json", Scope.READ)
async def get_metrics(request: Request) -> web.StreamResponse:
    """The store's numbers, as `get_metrics` tells them."""
    wire.Query(request)
    return wire.answer(await request.parts.store.get_metrics())
