"""The rules across keys. Each says which values it compared."""

import socket
from collections.abc import Callable, Collection, Iterator

from sidecar.config.problems import Problem, nearest, shown
from sidecar.config.secretfile import read_secret, read_tokens
from sidecar.config.sections import Api, Config, Fsm, Heartbeat, Lease, Shutdown, Tls, Webhooks
from sidecar.tls import context_of
from sidecar.units import Seconds
from sidecar.yamlfile import Path, dotted

REQUEST_LINGER_SECONDS = 5.0
"""How long open API requests may take to finish in a shutdown; part of the pod's grace period."""

_TOKENS: Path = ("api", "tokens")


def rules(config: Config) -> Iterator[Problem]:
    yield from _machine_rules(config.fsm)
    yield from _subscriber_rules(config)
    yield from _repeated(config.metrics.writers, lambda n: ("metrics", "writers", n))
    yield from _repeated([token.name for token in config.api.tokens], lambda n: (*_TOKENS, n, "name"))
    yield from _ttl_rule(config.writes.lease, ("writes", "lease"))
    yield from _ttl_rule(config.heartbeat, ("heartbeat",))
    yield from _will_rules(config)
    yield from _webhook_rules(config.webhooks)
    yield from _lag_rules(config)
    yield from _retention_rules(config)
    yield from _listen_rules(config)
    yield from _socket_rules(config.api)
    yield from _tls_rules(config.api.tls)
    yield from _shutdown_rules(config.shutdown)


def _machine_rules(fsm: Fsm) -> Iterator[Problem]:
    states = ("fsm", "states")
    yield from _repeated(fsm.states, lambda n: (*states, n))
    if fsm.initial is not None and fsm.initial not in fsm.states:
        default = "; that is the default: write one of fsm.states, or null" if fsm.initial == Fsm().initial else ""
        yield Problem(("fsm", "initial"), _unknown_state(fsm.initial, fsm) + default, (states,))
    for n, name in enumerate(fsm.fault_states or ()):
        if name not in fsm.states:
            yield Problem(("fsm", "fault_states", n), _unknown_state(name, fsm), (states,))
    for name in fsm.max_dwell or {}:
        if name not in fsm.states:
            yield Problem(("fsm", "max_dwell", name), _unknown_state(name, fsm), (states,))
    for source, targets in (fsm.transitions or {}).items():
        here = ("fsm", "transitions", source)
        if source not in fsm.states:
            yield Problem(here, _unknown_state(source, fsm), (states,))
        for n, target in enumerate(targets):
            if target not in fsm.states:
                yield Problem((*here, n), _unknown_state(target, fsm), (states,))


def _unknown_state(name: str, fsm: Fsm) -> str:
    return f"{shown(name)} is not one of fsm.states; {nearest(name, fsm.states)}"


def _repeated(names: Collection[str], path_of: Callable[[int], Path]) -> Iterator[Problem]:
    first: dict[str, Path] = {}
    for n, name in enumerate(names):
        before = first.setdefault(name, path_of(n))
        if before != path_of(n):
            yield Problem(path_of(n), f"{shown(name)} is already {dotted(before)}; give each its own name", (before,))


def _subscriber_rules(config: Config) -> Iterator[Problem]:
    yield from _repeated([subscriber.id for subscriber in config.subscribers], lambda n: ("subscribers", n, "id"))
    limit = config.store.max_subscribers
    if len(config.subscribers) > limit:
        text = f"{len(config.subscribers)} subscribers, and store.max_subscribers is {limit}; raise it, or remove some"
        yield Problem(("subscribers",), text, (("store", "max_subscribers"),))
    for n, subscriber in enumerate(config.subscribers):
        for m, state in enumerate(subscriber.states or ()):
            if state not in config.fsm.states:
                yield Problem(("subscribers", n, "states", m), _unknown_state(state, config.fsm), (("fsm", "states"),))


def _ttl_rule(terms: Lease | Heartbeat, path: Path) -> Iterator[Problem]:
    if terms.ttl_seconds > terms.max_ttl_seconds:
        text = f"expected at most {dotted(path)}.max_ttl ({terms.max_ttl_seconds}), got {terms.ttl_seconds}"
        yield Problem((*path, "ttl"), text, ((*path, "max_ttl"),))


def _will_rules(config: Config) -> Iterator[Problem]:
    will, fsm = config.heartbeat.last_will, config.fsm
    if will is None:
        return
    here = ("heartbeat", "last_will")
    if will.state not in fsm.states:
        yield Problem((*here, "state"), _unknown_state(will.state, fsm), (("fsm", "states"),))
    elif fsm.transitions is not None and fsm.enforcement == "enforce":
        sources = [source for source, targets in fsm.transitions.items() if will.state in targets and source != will.state]
        if not set(sources) - set(will.unless or ()):
            text = f"no state may go to {shown(will.state)}, so that it could never be executed: allow it in fsm.transitions"
            yield Problem((*here, "state"), text, (("fsm", "transitions"),))
    for n, name in enumerate(will.unless or ()):
        if name not in fsm.states:
            yield Problem((*here, "unless", n), _unknown_state(name, fsm), (("fsm", "states"),))


def _webhook_rules(webhooks: Webhooks) -> Iterator[Problem]:
    timeout = ("webhooks", "timeout")
    if webhooks.connect_timeout_seconds > webhooks.timeout_seconds:
        text = f"expected at most webhooks.timeout ({webhooks.timeout_seconds}), got {webhooks.connect_timeout_seconds}"
        yield Problem(("webhooks", "connect_timeout"), text, (timeout,))
    if webhooks.evict_after.time_seconds < webhooks.timeout_seconds:
        text = (
            f"expected at least webhooks.timeout ({webhooks.timeout_seconds}), got {webhooks.evict_after.time_seconds}:"
            " otherwise one slow attempt uses it up"
        )
        yield Problem(("webhooks", "evict_after", "time"), text, (timeout,))


def _lag_rules(config: Config) -> Iterator[Problem]:
    kept = config.journal.retention.revisions
    lags: list[tuple[Path, int]] = [(("webhooks", "max_lag"), config.webhooks.max_lag)]
    lags += [(("subscribers", n, "max_lag"), each.max_lag or 0) for n, each in enumerate(config.subscribers)]
    for path, lag in lags:
        if lag > kept:
            text = f"expected at most journal.retention.revisions ({kept}), got {lag}: what is no longer kept cannot be sent"
            yield Problem(path, text, (("journal", "retention", "revisions"),))


def _retention_rules(config: Config) -> Iterator[Problem]:
    kept, largest = config.journal.retention.size_bytes, config.writes.max_body_bytes
    if kept < largest:
        text = f"expected at least writes.max_body ({largest}), got {kept}: one large state could push out all history"
        yield Problem(("journal", "retention", "bytes"), text, (("writes", "max_body"),))


def _listen_rules(config: Config) -> Iterator[Problem]:
    api, ops = config.api.listen, config.ops.listen
    here = ("api", "listen")
    if config.api.tokens and config.api.auth == "none":
        yield Problem(
            ("api", "auth"), "there are api.tokens, and none says that nobody needs one; keep one of them", (_TOKENS,)
        )
    elif not (api.loopback or config.api.tokens or config.api.tls.client_ca_file or config.api.auth == "none"):
        text = (
            f"{api} can be reached from elsewhere: name who may come in with `tokens`,"
            " listen on 127.0.0.1 or a Unix socket, or accept everybody with `auth: none`"
        )
        yield Problem(here, text, (("api", "auth"), _TOKENS))
    if ops.socket_path:
        yield Problem(("ops", "listen"), 'expected "host:port": the kubelet and Prometheus come by TCP')
    elif api.port and api.port == ops.port:
        yield Problem(("ops", "listen"), f"api.listen has port {ops.port} too; give one of them another", (here,))


def _socket_rules(api: Api) -> Iterator[Problem]:
    socket_, listen = api.socket, ("api", "listen")
    named = socket_.uids or socket_.gids
    if named and not api.listen.socket_path:
        yield Problem(("api", "socket"), f"uids and gids are looked at on a Unix socket, and {api.listen} is none", (listen,))
    elif named and not hasattr(socket, "SO_PEERCRED"):
        yield Problem(("api", "socket"), "this system does not tell who connects; leave uids and gids out")
    elif api.listen.socket_path and int(socket_.mode, 8) & 0o002 and not (named or api.tokens):
        text = f'"{socket_.mode}" lets everybody on this host connect: write "0660", or say who may with tokens, uids or gids'
        yield Problem(("api", "socket", "mode"), text, (listen, _TOKENS))


def _tls_rules(tls: Tls) -> Iterator[Problem]:
    here = ("api", "tls")
    for key, value, other in (("key_file", tls.key_file, tls.cert_file), ("cert_file", tls.cert_file, tls.key_file)):
        if other and not value:
            yield Problem((*here, key), "missing: a certificate and its key go together", (here,))
    if tls.client_ca_file and not (tls.cert_file or tls.key_file):
        yield Problem((*here, "client_ca_file"), "needs cert_file and key_file: clients show theirs within TLS", (here,))


def _shutdown_rules(shutdown: Shutdown) -> Iterator[Problem]:
    linger = Seconds(REQUEST_LINGER_SECONDS)
    needed = Seconds(shutdown.drain_delay_seconds + shutdown.flush_timeout_seconds + linger)
    if needed >= shutdown.grace_period_seconds:
        text = (
            f"expected more than {needed}: drain_delay ({shutdown.drain_delay_seconds}), flush_timeout"
            f" ({shutdown.flush_timeout_seconds}) and {linger} for open requests; got {shutdown.grace_period_seconds}"
        )
        others = (("shutdown", "drain_delay"), ("shutdown", "flush_timeout"))
        yield Problem(("shutdown", "grace_period"), text, others)


def secret_rules(config: Config) -> Iterator[Problem]:
    for n, subscriber in enumerate(config.subscribers):
        if subscriber.secret_file is not None:
            try:
                read_secret(subscriber.secret_file)
            except ValueError as wrong:
                yield Problem(("subscribers", n, "secret_file"), str(wrong))
    yield from _token_rules(config)
    if config.api.tls.files:
        try:
            context_of(config.api.tls.files)
        except ValueError as wrong:
            yield Problem(("api", "tls"), str(wrong))


def _token_rules(config: Config) -> Iterator[Problem]:
    first: dict[bytes, str] = {}
    for n, entry in enumerate(config.api.tokens):
        here = ("api", "tokens", n, "file")
        try:
            tokens = read_tokens(entry.file)
        except ValueError as wrong:
            yield Problem(here, str(wrong))
            continue
        for token in tokens:
            holder = first.setdefault(token, entry.name)
            if holder != entry.name:
                yield Problem(here, f"holds a token of {shown(holder)} too; give each a token of its own")
