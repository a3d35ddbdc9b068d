"""The composition root: builds every part from the configuration, runs them, and takes them down in reverse."""

import asyncio
import gc
import os
import signal
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, disable_created_metrics

from sidecar import logs, wiring
from sidecar.access import Access
from sidecar.api.app import ROUTES, build_api
from sidecar.audience import Audience
from sidecar.backup import Backups
from sidecar.config import REQUEST_LINGER_SECONDS, Config, check
from sidecar.configwatch import ConfigWatch, Loaded
from sidecar.conflictlog import ConflictLog
from sidecar.conflicts import Conflicts
from sidecar.database import Database
from sidecar.database.lock import refuse_held
from sidecar.dispatch.connecting import client_sessions
from sidecar.dispatch.dispatcher import Dispatcher
from sidecar.dispatch.roster import Roster
from sidecar.dispatch.target import Targets
from sidecar.dwell import Dwell
from sidecar.errors import ConfigError, InvalidSnapshotError, JournalDamagedError, StorageError
from sidecar.fencing import Fence
from sidecar.heartbeat import Heartbeat
from sidecar.idempotency import Requests
from sidecar.journal import Journal
from sidecar.journal.memory import MemoryJournal
from sidecar.journal.sqlite import SqliteJournal
from sidecar.lifeline import watch_over
from sidecar.listening import listen
from sidecar.machine import Enforcement, Machine
from sidecar.meters import BackupMetrics, DatabaseMetrics, DispatchMetrics, HttpMetrics, ListenerFamilies, StoreMetrics
from sidecar.ops.app import Ops
from sidecar.ops.collector import StateCollector
from sidecar.ops.exposition import Exposition
from sidecar.ops.health import Health, Phase
from sidecar.ops.looplag import LoopLag
from sidecar.retention import retain
from sidecar.serving.descriptors import Descriptors, pass_over_exhaustion
from sidecar.serving.interpreter import refuse_unfit
from sidecar.serving.server import Server
from sidecar.statelog import StateLog
from sidecar.store import AsyncStateStore
from sidecar.tasks import StopSignals, first_of, on_signal, running
from sidecar.tls import Tls
from sidecar.units import Listen

OPS_LINGER_SECONDS = 0.5
API_LINGER_SECONDS = (REQUEST_LINGER_SECONDS - 2 * OPS_LINGER_SECONDS) / 2
"""aiohttp waits so long twice: for open requests to end, and then for their connections."""

_log = structlog.get_logger("service")


async def serve(config: Config, *, config_file: str | None = None, accept_data_loss: bool = False) -> None:
    """Run until a signal asks to stop. Raises `ConfigError` or a `StorageError` for what keeps it from running.

    `config_file`: where `config` was read from, to be watched.

    Parts stop in the reverse order of their start, also when a start fails halfway. Ops comes first and goes last: probes
    answer while the journal is opened, metrics while the deliveries drain.
    """
    refuse_unfit()
    asyncio.get_running_loop().set_exception_handler(pass_over_exhaustion)
    service = Service(config, config_file=config_file, accept_data_loss=accept_data_loss)
    try:
        async with AsyncExitStack() as stack:
            stack.enter_context(service.stop.installed())
            stack.enter_context(on_signal(signal.SIGHUP, service.look_at_config))
            await service.start(stack)
            await service.until_stopped()
    finally:
        death = service.crashed.exception() if service.crashed.done() else None
    if death:
        raise _cause(death)


def _cause(death: BaseException) -> BaseException:
    """The storage error in the middle of a group of errors, where there is one: it has its own exit code."""
    while isinstance(death, BaseExceptionGroup):
        storage = death.subgroup(StorageError)
        death = (storage or death).exceptions[0]
    return death


class Service:
    """One running sidecar."""

    def __init__(self, config: Config, *, config_file: str | None = None, accept_data_loss: bool = False) -> None:
        self._accept_data_loss = accept_data_loss
        self.stop = StopSignals()
        self.crashed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._config = config
        self._health = Health()
        self._health.watch_descriptors(Descriptors().share)
        self._closing = asyncio.Event()
        self._registry = _registry()
        self._exposition = Exposition(self._registry)
        self._config_file = config_file if config_file and Path(config_file).is_file() else None  # a pipe is read once
        self._conflict_log = ConflictLog()
        self._config_watch: ConfigWatch | None = None
        self._tls: Tls | None = None

    async def start(self, stack: AsyncExitStack) -> None:
        """Start every part, and leave on `stack` how it is stopped."""
        config, registry, health = self._config, self._registry, self._health
        targets = Targets.of(config)
        listeners = ListenerFamilies(registry)
        ops = Server(Ops(health, self._exposition), wiring.ops_limits(config), listeners.of("ops"))
        ops_at = await self._serve_ops(stack, ops)
        targets.own_ports.add(ops_at.port)

        database = await self._open_database(stack)
        journal = SqliteJournal(database) if database else MemoryJournal()
        audience = Audience(config.store.max_subscribers)
        with _naming(database):
            store = await self._open_store(journal, audience)
        stack.callback(self._conflict_log.flush)

        found = wiring.found(config)
        dispatcher = await self._made_dispatcher(stack, database, journal, audience, targets)
        roster = dispatcher.roster
        roster.configure(found.subscribers)
        state = store.current.document.state if store.current else None
        await self._run(stack, "retention", retain(store, wiring.limits(config.journal.retention), database=database))
        await self._run(stack, "overdue writes", store.answer_overdue(config.writes.timeout_seconds))
        await self._run(stack, "statelog", StateLog(journal, state).run())
        loop_lag = LoopLag()
        await self._run(stack, "loop lag", loop_lag.run())
        stack.callback(roster.close)
        await self._run(stack, "dispatcher", dispatcher.run())
        stack.push_async_callback(dispatcher.drain, self.stop.hurried, config.shutdown.flush_timeout_seconds)

        watchers = wiring.watchers(config.watch, journal)
        await self._run(stack, "watchers", watchers.run())
        heartbeat, dwell = await self._watch_agent(store, dispatcher)
        await self._run(stack, "lifeline", watch_over(heartbeat.look, dwell.look))

        backups = Backups(database, BackupMetrics(registry))
        tls = self._tls = Tls(files) if (files := config.api.tls.files) else None
        access = Access(found.holders, max_failures=config.api.max_auth_failures, revised=watchers.revise)
        http_metrics = HttpMetrics(registry, ROUTES)
        api = build_api(
            store,
            dispatcher,
            backups,
            watchers,
            heartbeat,
            http_metrics,
            access,
            wiring.browsers(config.api),
            about=wiring.about(config),
            draining=self._closing.is_set,
            stopping=self.stop.asked.is_set,
            max_body_bytes=config.writes.max_body_bytes,
            max_requests=config.api.limits.requests,
            require_precondition=config.writes.require_precondition,
            write_seconds=float(config.writes.timeout_seconds),
        )
        api_server = Server(api, wiring.api_limits(config), listeners.of("api"), make_request=api.request)
        api_at = await listen(
            stack,
            "api",
            await self._runner(stack, "api", api_server, API_LINGER_SECONDS),
            config.api.listen,
            mode=int(config.api.socket.mode, 8),
            gate=wiring.gate(config.api, partial(http_metrics.refused, "peer"), tls),
        )
        stack.callback(watchers.close)
        targets.own_ports.add(api_at.port)
        stack.callback(roster.waits.close)  # before the API closes: who waits for acknowledgements is answered
        watch = self._config_watch = ConfigWatch(
            found,
            partial(wiring.loaded, self._config_file) if self._config_file else None,
            lambda found: self._apply(found, store, dispatcher, access, collector),
        )
        collector = StateCollector(
            store,
            dispatcher,
            database,
            backups,
            watchers,
            facts=wiring.facts(config),
            config_watch=watch,
            loop_lag=loop_lag,
            servers={"api": api_server, "ops": ops},
            in_flight=lambda: (api.in_flight.now, api.in_flight.limit),
            heartbeat=heartbeat,
            dwell=dwell,
        )
        await self._run(stack, "config watch", watch.run())
        registry.register(collector)
        self._exposition.prepare = [collector.disk.look] if collector.disk else []
        _quiet_the_collector()
        health.phase = Phase.READY
        _log.info(
            "ready",
            api=str(api_at),
            ops=str(ops_at),
            journal=str(database.path) if database else "memory",
            epoch=journal.epoch,
            revision=journal.head,
            state=state,
            subscribers=len(roster.served()),
        )
        if not access.guarded:
            _tell_open()

    async def _run(self, stack: AsyncExitStack, name: str, core: Coroutine[Any, Any, None]) -> None:
        """Run a core task until the stack unwinds."""
        await stack.enter_async_context(running(core, name=name, crashed=self.crashed))

    async def _serve_ops(self, stack: AsyncExitStack, ops: Server) -> Listen:
        config = self._config
        try:
            return await listen(stack, "ops", await self._runner(stack, "ops", ops, OPS_LINGER_SECONDS), config.ops.listen)
        except ConfigError:
            if config.journal.backend == "sqlite":
                refuse_held(_absolute(config.journal.path))  # the same sidecar, started twice: that is the better answer
            raise

    async def _made_dispatcher(
        self, stack: AsyncExitStack, database: Database | None, journal: Journal, audience: Audience, targets: Targets
    ) -> Dispatcher:
        webhooks = self._config.webhooks
        metrics = DispatchMetrics(self._registry, timeout_seconds=float(webhooks.timeout_seconds))
        roster = Roster(
            database,
            audience,
            metrics,
            targets,
            tombstone_seconds=webhooks.tombstone_seconds,
            secret_overlap_seconds=webhooks.secret_overlap_seconds,
            max_ack_waits=self._config.api.limits.ack_waits,
        )
        with _naming(database):
            await roster.load()
        sessions = client_sessions(targets, dns_timeout_seconds=webhooks.dns_timeout_seconds)
        dispatcher = Dispatcher(
            roster=roster,
            journal=journal,
            sessions=await stack.enter_async_context(sessions),
            policy=wiring.policy(webhooks),
            max_in_flight=webhooks.max_in_flight,
            audience=audience,
            metrics=metrics,
        )
        self._health.watch_loop("dispatcher", lambda: dispatcher.stamped_at)
        return dispatcher

    async def _watch_agent(self, store: AsyncStateStore, dispatcher: Dispatcher) -> tuple[Heartbeat, Dwell]:
        """What finds out that the agent is silent, or stays too long where it is."""
        config, stopping = self._config, self.stop.asked.is_set
        will, terms = wiring.will(config, store.machine), wiring.terms(config.heartbeat)
        heartbeat = Heartbeat(store, will, terms=terms, stopping=stopping)
        await heartbeat.recover()
        dwell = Dwell(store, wiring.dwells(config.fsm), dispatcher.tell, stopping=stopping)
        store.more_checks = lambda: (heartbeat.check(), dwell.check())
        return heartbeat, dwell

    def look_at_config(self) -> None:
        """Look at the config file now. Before all is started there is nothing to look for: it was just read."""
        if self._config_watch:
            self._config_watch.ask()

    def _apply(
        self, found: Loaded, store: AsyncStateStore, dispatcher: Dispatcher, access: Access, collector: StateCollector
    ) -> Config:
        """Take over what can change while running, and return what is in force then."""
        new = found.config
        logging_ = replace(self._config.logging, level=new.logging.level)
        self._config = replace(self._config, subscribers=new.subscribers, health=new.health, logging=logging_)
        self._take_over_tokens(found, access)
        if self._tls:
            self._tls.reload()
        dispatcher.configure(found.subscribers)
        store.judge_by(wiring.thresholds(new.health))
        logs.set_level(new.logging.level)
        collector.facts = wiring.facts(self._config)
        return self._config

    def _take_over_tokens(self, found: Loaded, access: Access) -> None:
        """Unless that would open a listener to everybody which only a restart moves to where it may be open."""
        api = replace(self._config.api, tokens=found.config.api.tokens, auth=found.config.api.auth)
        if check(replace(found.config, api=api, ops=self._config.ops)):  # the listeners stay where they are
            return
        opens = access.guarded and not found.holders
        self._config = replace(self._config, api=api)
        access.hold(found.holders)
        if opens:
            _tell_open()

    async def until_stopped(self) -> None:
        """Wait for the signal; then, unready, still take the agent's last writes for the drain delay."""
        await first_of(self.stop.asked, self.crashed)
        self._health.phase = Phase.DRAINING
        if self.crashed.done():
            self.stop.hurried.set()
            _log.error("stopping", cause=str(self.crashed.exception()))
        else:
            _log.info("stopping", drain_delay=str(self._config.shutdown.drain_delay_seconds))
        await first_of(self.stop.hurried, self.crashed, timeout_seconds=self._config.shutdown.drain_delay_seconds)
        self._closing.set()

    async def _runner(self, stack: AsyncExitStack, name: str, server: Server, linger_seconds: float) -> web.BaseRunner:
        """What serves a listener: its deadlines are looked at, and open requests get `linger_seconds` to end."""
        stack.callback(server.flush)
        await self._run(stack, f"{name} deadlines", server.sweep())
        return web.ServerRunner(server, shutdown_timeout=linger_seconds)

    async def _open_database(self, stack: AsyncExitStack) -> Database | None:
        if self._config.journal.backend == "memory":
            return None
        settings = self._config.journal
        database = Database(
            _absolute(settings.path),
            DatabaseMetrics(self._registry),
            reserve_bytes=settings.min_free_bytes,
            ballast_bytes=settings.ballast_bytes,
            accept_data_loss=self._accept_data_loss,
        )
        await stack.enter_async_context(database)
        _tell_found(database)
        self._health.watch_storage(lambda: database.last_error)
        database.failed.add_done_callback(lambda failed: self._crash(failed.result()))
        return database

    def _crash(self, error: StorageError) -> None:
        if not self.crashed.done():
            self.crashed.set_exception(error)

    async def _open_store(self, journal: Journal, audience: Audience) -> AsyncStateStore:
        fsm, writes = self._config.fsm, self._config.writes
        machine = Machine.from_names(fsm.states, fsm.transitions, initial=fsm.initial, enforcement=Enforcement(fsm.enforcement))
        store = AsyncStateStore(
            queue_size=self._config.store.queue_size,
            journal=journal,
            machine=machine,
            audience=audience,
            thresholds=wiring.thresholds(self._config.health),
            history_limit=fsm.history_limit,
            max_queue=writes.max_queue,
            requests=Requests(ttl_seconds=writes.idempotency.ttl_seconds, limit=writes.idempotency.max_keys),
            conflicts=Conflicts(self._config.metrics.writers, tell=self._conflict_log),
            fence=Fence(journal, exclusive=writes.writers == "exclusive", terms=wiring.terms(writes.lease)),
            metrics=StoreMetrics(self._registry, timeout_seconds=float(writes.timeout_seconds)),
        )
        try:
            await store.recover()
        except InvalidSnapshotError as error:
            raise ConfigError(
                [
                    f"fsm.states: the journal holds a state that is not listed ({error.path}: {error}); "
                    "list it, or set another journal.path"
                ]
            ) from error
        if machine.initial is not None:
            await store.initialize_if_empty()
        return store


def _tell_found(database: Database) -> None:
    """What whoever reads the log should know of the journal that was found."""
    path, found = str(database.path), database.found
    if not found.head:  # perhaps the wrong path, or a volume that is not mounted
        _log.warning("journal_is_new", path=path, epoch=found.epoch)
    if found.unmarked:
        _log.warning("journal_has_no_mark", path=path, epoch=found.epoch, note="nobody can say whether its end is missing")
    for loss in found.given_up:
        _log.error("data_loss_accepted", path=path, epoch=found.epoch, loss=loss)


def _tell_open() -> None:
    _log.info("api_open", note="there are no api.tokens: whoever can reach it may do everything")


@contextmanager
def _naming(database: Database | None) -> Iterator[None]:
    """Say which file it is that cannot be read."""
    try:
        yield
    except JournalDamagedError as error:
        raise JournalDamagedError(f"{database.path if database else 'memory'}: {error}; restore it from a backup") from error


def _quiet_the_collector() -> None:
    """What lives as long as the process need not be looked at again; what a request leaves behind has few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _absolute(path: str) -> Path:
    return Path(path).absolute()


def _registry() -> CollectorRegistry:
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        raise ConfigError(["PROMETHEUS_MULTIPROC_DIR is set, which loses most metrics of a single process: unset it"])
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry
