"""What the configuration means to each part: their own settings, made of its sections. Pure, but for the files it names."""

import asyncio
import hashlib
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sidecar.access import Holder, holder
from sidecar.api.browsers import Browsers
from sidecar.api.peers import Doorkeeper, Peers
from sidecar.api.request import About
from sidecar.checks import Thresholds
from sidecar.config import Config, Subscriber, Webhooks, load, read_secret, read_tokens
from sidecar.config.sections import Api, Fsm, Health, Heartbeat, Lease, Retention, Watch
from sidecar.configwatch import Loaded
from sidecar.dispatch.delivery import Policy
from sidecar.dispatch.subscriber import Settings
from sidecar.dispatch.target import Targets
from sidecar.errors import ConfigError
from sidecar.heartbeat import Will
from sidecar.journal import Journal
from sidecar.machine import Machine
from sidecar.ops.collector import Facts
from sidecar.retention import Limits
from sidecar.serving.descriptors import connections_within
from sidecar.serving.handshake import Handshake
from sidecar.serving.server import Limits as ListenerLimits
from sidecar.tls import Tls
from sidecar.units import Terms
from sidecar.watchers import Watchers

OTHER_DESCRIPTORS = 64
"""For the journal, the log, lookups of names and what libraries open; each subscriber may have a connection that is kept."""

OPS_KEEP_ALIVE_SECONDS = 90.0
"""Longer than the usual intervals of scrapes, so that they can share a connection; who needs its place gets it anyway."""


def loaded(config_file: str) -> Loaded:
    """What the next start would find. Raises `ConfigError` as that would."""
    if Path(config_file).exists() and not Path(config_file).is_file():
        raise ConfigError([f"{config_file}: is not a file any more; put the configuration there"])  # a pipe may never end
    config = load(config_file)
    Targets.of(config)
    try:
        return found(config)
    except (ValueError, OSError) as error:  # a secret that went away in this very moment
        raise ConfigError([f"{config_file}: {error}"]) from None


def found(config: Config) -> Loaded:
    """The configuration with what its secret files hold now. Raises `ValueError` when one cannot be read any more."""
    return Loaded(config, configured(config), holders(config), _certificates(config.api))


def holders(config: Config) -> tuple[Holder, ...]:
    """Who may come in, with the digests of their tokens."""
    return tuple(holder(each.name, each.scopes, read_tokens(each.file)) for each in config.api.tokens)


def _certificates(api: Api) -> bytes:
    return hashlib.sha256(b"".join(api.tls.files.content())).digest() if api.tls.files else b""


def gate(
    api: Api, refused: Callable[[], None], tls: Tls | None
) -> Callable[[Callable[[], asyncio.Protocol]], asyncio.Protocol] | None:
    """What stands before each connection; None: whoever can connect is let in."""
    peers = Peers(api.socket.uids, api.socket.gids)
    handshake = partial(Handshake, tls.context, float(api.limits.header_timeout_seconds)) if tls else None
    if not any(peers):
        return handshake
    return lambda serve: Doorkeeper(peers, refused, partial(handshake, serve) if handshake else serve)


def browsers(api: Api) -> Browsers:
    """Beyond loopback the names are known to those who come: they are looked at where `hosts` lists some."""
    if api.listen.socket_path or not (api.listen.loopback or api.hosts):
        return Browsers(None, api.cors)
    return Browsers([api.listen.host, *api.hosts], api.cors)


def thresholds(health: Health) -> Thresholds:
    return Thresholds(
        conflict_ratio=health.conflict_ratio,
        window_seconds=health.window_seconds,
        stale_after_seconds=health.stale_after_seconds,
    )


def facts(config: Config) -> Facts:
    fault_states = config.fsm.fault_states
    return Facts(
        agent=config.metrics.agent or socket.gethostname(),
        fsm=config.fsm.name,
        fault_states=("ERROR_STATE",) if fault_states is None else fault_states,
        update_expected=config.health.update_expected,
        subscriber_series=config.metrics.subscriber_series,
        webhook_timeout_seconds=float(config.webhooks.timeout_seconds),
        evict_failures=config.webhooks.evict_after.failures,
    )


def about(config: Config) -> About:
    known = facts(config)
    return About(known.agent, known.fsm, known.fault_states)


def api_limits(config: Config) -> ListenerLimits:
    """Of the API's listener, as far as there are file descriptors for its connections."""
    limits = config.api.limits
    webhooks = config.store.max_subscribers + config.webhooks.max_in_flight
    reserved = config.ops.connections + webhooks + OTHER_DESCRIPTORS
    return ListenerLimits(
        connections=connections_within(limits.connections, reserved),
        per_peer=limits.connections_per_peer,
        header_seconds=limits.header_timeout_seconds,
        request_seconds=limits.request_timeout_seconds,
        write_seconds=limits.write_timeout_seconds,
        keep_alive_seconds=limits.keep_alive_seconds,
        headers=limits.headers,
        header_bytes=limits.header_size_bytes,
    )


def ops_limits(config: Config) -> ListenerLimits:
    """Of the ops listener: few connections, and always room for the next probe."""
    room = config.ops.connections
    return ListenerLimits(
        connections=room,
        per_peer=room,
        grace_seconds=0.0,  # in a burst a probe has no time
        header_seconds=config.api.limits.header_timeout_seconds,
        request_seconds=config.api.limits.request_timeout_seconds,
        write_seconds=config.api.limits.write_timeout_seconds,
        keep_alive_seconds=OPS_KEEP_ALIVE_SECONDS,
    )


def terms(section: Lease | Heartbeat) -> Terms:
    return Terms(float(section.ttl_seconds), float(section.max_ttl_seconds))


def will(config: Config, machine: Machine) -> Will | None:
    wanted = config.heartbeat.last_will
    if wanted is None:
        return None
    unless = ("SHUTDOWN",) if wanted.unless is None else wanted.unless
    return Will(machine.states[wanted.state], wanted.reason, frozenset(unless))


def dwells(fsm: Fsm) -> dict[str, float]:
    return {state: float(seconds) for state, seconds in (fsm.max_dwell or {}).items()}


def limits(retention: Retention) -> Limits:
    return Limits(retention.revisions, retention.age_seconds, retention.size_bytes)


def policy(webhooks: Webhooks) -> Policy:
    return Policy(
        timeout_seconds=webhooks.timeout_seconds,
        connect_timeout_seconds=webhooks.connect_timeout_seconds,
        retry_seconds=webhooks.retry_seconds,
        probe_interval_seconds=webhooks.probe_interval_seconds,
        max_retry_after_seconds=webhooks.max_retry_after_seconds,
        evict_failures=webhooks.evict_after.failures,
        evict_seconds=webhooks.evict_after.time_seconds,
        max_lag=webhooks.max_lag,
    )


def watchers(watch: Watch, journal: Journal) -> Watchers:
    return Watchers(
        journal,
        limit=watch.max_watchers,
        max_lag=watch.max_lag,
        heartbeat_seconds=float(watch.heartbeat_seconds),
    )


def configured(config: Config) -> list[tuple[str, Settings]]:
    """The subscribers of the config file, with their secrets read."""
    return [(each.id, _settings(each)) for each in config.subscribers]


def _settings(each: Subscriber) -> Settings:
    secret = read_secret(each.secret_file) if each.secret_file else None
    timeout = None if each.timeout_seconds is None else float(each.timeout_seconds)
    return Settings(each.url, secret, timeout, each.max_lag, each.on, each.states, each.max_batch)
