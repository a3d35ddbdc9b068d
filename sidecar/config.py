"""The configuration: one YAML file, decoded into frozen structs. Every key has a default that suits a first try.

`load` gathers every problem of a file before it gives up, each with its place and its mend.
"""

import binascii
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from ipaddress import AddressValueError, IPv6Address
from itertools import chain, islice
from operator import itemgetter
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec

from sidecar import yamlfile
from sidecar.errors import ConfigError
from sidecar.units import Bytes, Listen, Seconds
from sidecar.yamlfile import Path, dotted

REQUEST_LINGER_SECONDS = 5.0
"""How long open API requests may take to finish in a shutdown; part of the pod's grace period."""

MAX_PROBLEMS = 100

# What a value must be, beyond its type. A rule is called with the value and raises `ValueError` saying what is expected.

Rule = Callable[[Any], None]


def _between(low: float, high: float | None = None) -> Rule:
    noun = _NOUNS[type(low)]
    bounds = f"of at least {low}" if high is None else f"from {low} to {high}"

    def check(value: float) -> None:
        if value < low or (high is not None and value > high):
            raise ValueError(f"expected {noun} {bounds}, got {value}")

    return check


def _length(low: int, high: int | None = None) -> Rule:
    bounds = f"{low} or more" if high is None else f"{low} to {high}"

    def check(items: Collection[Any]) -> None:
        if len(items) < low or (high is not None and len(items) > high):
            raise ValueError(f"expected {bounds} entries, got {len(items) or 'none'}")

    return check


def _state_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise _misfit("a name of letters, digits and _, at most 64, not a digit first", name)
    if name == "mro" or name.startswith("_FsmState__") or (len(name) > 2 and name[0] == name[-1] == "_"):
        raise ValueError(f"{name} has a meaning of its own in Python; choose another name")


def _subscriber_id(text: str) -> None:
    if not _ID.fullmatch(text):
        raise _misfit("an id of letters, digits, _ and -, at most 63, a letter or digit first", text)


def _url(url: str) -> None:
    match = _URL.fullmatch(url) if len(url) <= 2048 else None
    if not match or not 0 < int(match["port"] or 80) < 65536 or not _is_host(match["host"]):
        raise ValueError(  # without the URL, for it can hold a password
            "expected an http:// or https:// URL with a host, and without user, password and fragment,"
            " in at most 2048 ASCII characters"
        )


def _is_host(host: str) -> bool:
    try:
        return not host.startswith("[") or bool(IPv6Address(host[1:-1]))
    except AddressValueError:
        return False


def _journal_path(path: str) -> None:
    if path in ("", ":memory:"):
        raise ValueError("expected the path of a file; to keep nothing across a restart write `backend: memory`")


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_URL = re.compile(
    r"(?i:https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"(?::(?P<port>[0-9]{1,5}))?(?:[/?][!\"$-\[\]-~]*)?"
)
_NOUNS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Seconds: "a duration",
    Bytes: "a size",
}
_MAX_STATES = 256
_SHOWN_NAMES = 20
_SHORTEST, _LONGEST = Seconds(0.001), Seconds(365 * 86400)

Amount = Annotated[int, _between(0)]
Count = Annotated[int, _between(1)]
Duration = Annotated[Seconds, _between(_SHORTEST, _LONGEST)]
Pause = Annotated[Seconds, _between(Seconds(0), _LONGEST)]
Timeout = Annotated[Seconds, _between(_SHORTEST, Seconds(30))]
BodySize = Annotated[Bytes, _between(Bytes(1 << 10), Bytes(16 << 20))]
State = Annotated[str, _state_name]
Targets = Annotated[tuple[str, ...], _length(0, _MAX_STATES)]
Transitions = Annotated[dict[str, Targets], _length(0, _MAX_STATES)]
SubscriberId = Annotated[str, _subscriber_id]


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A section of the file. A field's `name` is its key; Python names put the unit last."""


class Fsm(Struct, frozen=True, kw_only=True):
    """The machine. Without `transitions` every move is allowed; `initial` null starts empty."""

    states: Annotated[tuple[State, ...], _length(1, _MAX_STATES)] = (
        "UNSPECIFIED",
        "BOOTING",
        "IDLE",
        "ACTIVE",
        "ERROR_STATE",
        "SHUTDOWN",
    )
    initial: str | None = "BOOTING"
    transitions: Transitions | None = None
    enforcement: Literal["enforce", "warn", "off"] = "enforce"
    history_limit: Annotated[int, _between(0, 1000)] = 16


class Store(Struct, frozen=True, kw_only=True):
    """`max_subscribers` bounds all subscribers together; `queue_size` is for readers in the same process."""

    max_subscribers: Annotated[int, _between(1, 100_000)] = 1000
    queue_size: Count = 64


class Writes(Struct, frozen=True, kw_only=True):
    """What a write over HTTP must bring."""

    require_precondition: bool = False
    max_body_bytes: BodySize = msgspec.field(default=Bytes(256 << 10), name="max_body")


class Retention(Struct, frozen=True, kw_only=True):
    """How much history stays."""

    revisions: Count = 100_000


class Journal(Struct, frozen=True, kw_only=True):
    """Where revisions are kept."""

    backend: Literal["sqlite", "memory"] = "sqlite"
    path: Annotated[str, _journal_path] = "journal.db"
    retention: Retention = Retention()


class Api(Struct, frozen=True, kw_only=True):
    """The agent's side."""

    listen: Listen = Listen.parse("127.0.0.1:8470")
    auth: Literal["loopback", "none"] = "loopback"


class Ops(Struct, frozen=True, kw_only=True):
    """The side of the kubelet and of Prometheus."""

    listen: Listen = Listen.parse("0.0.0.0:8471")


class EvictAfter(Struct, frozen=True, kw_only=True):
    """A subscriber is given up after that many failures and that long without a success."""

    failures: Count = 10
    time_seconds: Duration = msgspec.field(default=Seconds(900), name="time")


class Webhooks(Struct, frozen=True, kw_only=True):
    """How subscribers are called. `max_lag` counts revisions; 0: only the latest."""

    timeout_seconds: Timeout = msgspec.field(default=Seconds(5), name="timeout")
    connect_timeout_seconds: Timeout = msgspec.field(default=Seconds(2), name="connect_timeout")
    retry_seconds: Annotated[tuple[Duration, ...], _length(1)] = msgspec.field(
        default=(Seconds(0.5), Seconds(1), Seconds(2), Seconds(5), Seconds(15), Seconds(30)), name="retry"
    )
    probe_interval_seconds: Duration = msgspec.field(default=Seconds(60), name="probe_interval")
    max_retry_after_seconds: Duration = msgspec.field(default=Seconds(300), name="max_retry_after")
    evict_after: EvictAfter = EvictAfter()
    tombstone_seconds: Duration = msgspec.field(default=Seconds(86400), name="tombstone")
    max_lag: Amount = 1024
    max_in_flight: Count = 64


class Subscriber(Struct, frozen=True, kw_only=True):
    """A subscriber that is always there. What it does not say comes from `webhooks`."""

    id: SubscriberId
    url: Annotated[str, _url]
    secret_file: str | None = None
    timeout_seconds: Timeout | None = msgspec.field(default=None, name="timeout")
    max_lag: Amount | None = None


class Health(Struct, frozen=True, kw_only=True):
    """When the health check complains."""

    conflict_ratio: Annotated[float, _between(0.0, 1.0)] = 0.10
    window_seconds: Duration = msgspec.field(default=Seconds(300), name="window")
    stale_after_seconds: Duration = msgspec.field(default=Seconds(60), name="stale_after")


class Shutdown(Struct, frozen=True, kw_only=True):
    """How the pod's grace period is spent."""

    drain_delay_seconds: Pause = msgspec.field(default=Seconds(2), name="drain_delay")
    flush_timeout_seconds: Pause = msgspec.field(default=Seconds(5), name="flush_timeout")
    grace_period_seconds: Duration = msgspec.field(default=Seconds(30), name="grace_period")


class Logging(Struct, frozen=True, kw_only=True):
    """`auto`: coloured lines on a terminal, JSON elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class Config(Struct, frozen=True, kw_only=True):
    """The whole file."""

    fsm: Fsm = Fsm()
    store: Store = Store()
    writes: Writes = Writes()
    journal: Journal = Journal()
    api: Api = Api()
    ops: Ops = Ops()
    webhooks: Webhooks = Webhooks()
    subscribers: tuple[Subscriber, ...] = ()
    health: Health = Health()
    shutdown: Shutdown = Shutdown()
    logging: Logging = Logging()


class Problem(NamedTuple):
    """What is wrong at a path. `others` are the values it was compared with."""

    path: Path
    text: str
    others: tuple[Path, ...] = ()

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.text}" if self.path else self.text


def load(path: str | None) -> Config:
    """The configuration in the file, or the defaults without one. Raises `ConfigError` with all its problems."""
    if path is None:
        return Config()
    try:
        tree, lines = yamlfile.read(path)
    except yamlfile.YamlError as error:
        raise _refusal(path, error.problems) from None
    reader = _Reader()
    config = reader.config(tree)
    if reader.problems:
        placed = sorted(((_line(problem, lines), problem) for problem in reader.problems), key=itemgetter(0))
        raise _refusal(path, [f"{path}:{line}: {problem}" for line, problem in placed])
    return config


def _refusal(path: str, problems: Sequence[str]) -> ConfigError:
    more = [f"{path}: these are the first {MAX_PROBLEMS} problems; mend them to see the others"]
    return ConfigError([*problems[:MAX_PROBLEMS], *more] if len(problems) >= MAX_PROBLEMS else problems)


def check(config: Config) -> list[str]:
    """The rules across keys that `config` breaks. Pure: secret files are looked at by `load` only."""
    return [str(problem) for problem in _rules(config)]


def effective(config: Config) -> str:
    """The whole configuration as YAML, as people write it. Loaded again, it gives an equal one."""
    return yamlfile.dump(_plain(config))


def read_secret(path: str) -> str:
    """The secret `whsec_<base64>` in a file. Raises `ValueError` with a mend, and never with the content."""
    if path.startswith("whsec_"):
        raise ValueError("expected the path of a file that holds the secret, not the secret itself")
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:  # a pipe would block
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(4096).strip() if stat.S_ISREG(mode) else b""
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); check the path, the owner and the mode") from None
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is not a file; name the file that holds the secret")
    if mode & 0o007:
        raise ValueError(f"{path} is open to everybody; chmod o= {path} (in Kubernetes: defaultMode 0440)")
    if not content.startswith(b"whsec_") or not 24 <= _key_bytes(content.removeprefix(b"whsec_")) <= 64:
        raise ValueError(f"expected one line in {path}: whsec_ and the base64 of 24 to 64 random bytes")
    return content.decode("ascii")


def _key_bytes(text: bytes) -> int:
    try:
        return len(binascii.a2b_base64(text, strict_mode=True))
    except binascii.Error:
        return 0


def _line(problem: Problem, lines: dict[Path, int]) -> int:
    """Where the problem is written: its key, what it was compared with, or the section that lacks the key."""
    for path in (problem.path, *problem.others):
        if path in lines:
            return lines[path]
    return next((lines[problem.path[:n]] for n in range(len(problem.path), 0, -1) if problem.path[:n] in lines), 1)


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return {field.encode_name: _plain(getattr(value, field.name)) for field in msgspec.structs.fields(value)}
    if isinstance(value, Seconds | Bytes | Listen):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


class _EnoughError(Exception):
    """There are as many problems as anybody wants to read at once."""


class _Reader:
    """Turns a plain tree into structs. What does not fit is noted, and its default goes in, so that the rest is read too."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def config(self, tree: Any) -> Config:
        config = Config()
        with suppress(_EnoughError):
            config = self._take(Config, tree, (), config)
            misread = [problem.path for problem in self.problems]
            for problem in chain(islice(_rules(config), MAX_PROBLEMS), _secret_rules(config)):
                if not _touches(problem, misread):
                    self._note(problem)
        return config

    def _note(self, problem: Problem) -> None:
        self.problems.append(problem)
        if len(self.problems) >= MAX_PROBLEMS:
            raise _EnoughError

    def _take(self, kind: Any, tree: Any, path: Path, stand_in: Any) -> Any:
        try:
            return self._convert(kind, tree, path)
        except ValueError as wrong:
            self._note(Problem(path, str(wrong)))
            return stand_in

    def _convert(self, kind: Any, tree: Any, path: Path) -> Any:
        origin = get_origin(kind)
        if origin is Annotated:
            inner, *rules = get_args(kind)
            value = self._convert(inner, tree, path)
            for rule in rules:
                rule(value)
            return value
        if origin in (Union, UnionType):
            return None if tree is None else self._convert(get_args(kind)[0], tree, path)
        if origin is tuple:
            return self._items(get_args(kind)[0], tree, path)
        if origin is dict:
            return self._mapping(get_args(kind)[1], tree, path)
        if isinstance(kind, type) and issubclass(kind, Struct):
            return self._section(kind, tree, path)
        return _leaf(kind, tree)

    def _section(self, kind: type[Struct], tree: Any, path: Path) -> Struct:
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        given = {} if tree is None else tree
        if not isinstance(given, dict):
            raise _misfit(f"the keys {', '.join(fields)}", tree)
        for key in given:
            if key not in fields:
                self._note(Problem((*path, key), f"unknown key; {_nearest(key, fields)}"))
        return kind(**{field.name: self._field(field, given, path) for field in fields.values()})

    def _field(self, field: msgspec.structs.FieldInfo, given: dict[str, Any], path: Path) -> Any:
        here = (*path, field.encode_name)
        stand_in = "" if field.required else field.default
        if field.encode_name in given:
            return self._take(field.type, given[field.encode_name], here, stand_in)
        if field.required:
            self._note(Problem(here, f"missing; write `{field.encode_name}: …`"))
        return stand_in

    def _items(self, kind: Any, tree: Any, path: Path) -> tuple[Any, ...]:
        if tree is None and isinstance(kind, type) and issubclass(kind, Struct):
            return ()
        if not isinstance(tree, list):
            raise _misfit("a list", tree)
        return tuple(self._take(kind, item, (*path, n), _stand_in(kind)) for n, item in enumerate(tree))

    def _mapping(self, kind: Any, tree: Any, path: Path) -> dict[str, Any]:
        if not isinstance(tree, dict):
            raise _misfit("keys and values", tree)
        return {key: self._take(kind, item, (*path, key), ()) for key, item in tree.items()}


def _stand_in(kind: Any) -> Any:
    """For an item that could not be read, so that those behind it keep their places."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        return kind(**{field.name: "" for field in msgspec.structs.fields(kind) if field.required})
    return ""


def _leaf(kind: Any, tree: Any) -> Any:
    parse = getattr(kind, "parse", None)  # what is written with a unit
    if parse:
        try:
            return parse(tree)
        except ValueError as wrong:
            raise _misfit(str(wrong).removeprefix("expected "), tree) from None
    try:
        return msgspec.convert(tree, kind, strict=True)
    except msgspec.ValidationError:
        raise _misfit(_NOUNS.get(kind) or f"one of {', '.join(get_args(kind))}", tree, _mend(kind, tree)) from None


def _mend(kind: Any, tree: Any) -> str:
    """Text was wanted and looks like something else; also what a YAML 1.1 tool such as Helm made of `off`."""
    unquoted = isinstance(tree, int | float) if kind is str else tree is False and "off" in get_args(kind)
    return "; put it in quotes" if unquoted else ""


def _misfit(expected: str, tree: Any, mend: str = "") -> ValueError:
    return ValueError(f"expected {expected}, got {_shown(tree)}{mend}")


def _shown(tree: Any) -> str:
    """What was written, short, and without a secret that slipped into the wrong place."""
    if isinstance(tree, dict | list):
        return "keys and values" if isinstance(tree, dict) else "a list"
    if isinstance(tree, str):
        hidden = "whsec_" in tree or "://" in tree
        return "text that is not shown here" if hidden else f'"{tree[:60]}…"' if len(tree) > 60 else f'"{tree}"'
    return "nothing" if tree is None else str(tree).lower()


def _nearest(name: str, known: Collection[str]) -> str:
    import difflib  # only needed once something is wrong

    nearest = difflib.get_close_matches(name[:64], known, n=1)
    if nearest:
        return f"did you mean {nearest[0]}?"
    more = ", …" if len(known) > _SHOWN_NAMES else ""
    return f"known here: {', '.join(islice(known, _SHOWN_NAMES))}{more}"


def _touches(problem: Problem, misread: list[Path]) -> bool:
    """Whether the problem may only follow from a value that could not be read."""
    paths = (problem.path, *problem.others)
    return any(path[: len(bad)] == bad or bad[: len(path)] == path for path in paths for bad in misread)


# The rules across keys. Each says which values it compared.


def _rules(config: Config) -> Iterator[Problem]:
    yield from _machine_rules(config.fsm)
    yield from _subscriber_rules(config)
    yield from _webhook_rules(config.webhooks)
    yield from _lag_rules(config)
    yield from _listen_rules(config)
    yield from _shutdown_rules(config.shutdown)


def _machine_rules(fsm: Fsm) -> Iterator[Problem]:
    states = ("fsm", "states")
    yield from _repeated(fsm.states, lambda n: (*states, n))
    if fsm.initial is not None and fsm.initial not in fsm.states:
        yield Problem(("fsm", "initial"), _unknown_state(fsm.initial, fsm), (states,))
    for source, targets in (fsm.transitions or {}).items():
        here = ("fsm", "transitions", source)
        if source not in fsm.states:
            yield Problem(here, _unknown_state(source, fsm), (states,))
        for n, target in enumerate(targets):
            if target not in fsm.states:
                yield Problem((*here, n), _unknown_state(target, fsm), (states,))


def _unknown_state(name: str, fsm: Fsm) -> str:
    return f"{_shown(name)} is not one of fsm.states; {_nearest(name, fsm.states)}"


def _repeated(names: Collection[str], path_of: Callable[[int], Path]) -> Iterator[Problem]:
    first: dict[str, Path] = {}
    for n, name in enumerate(names):
        before = first.setdefault(name, path_of(n))
        if before != path_of(n):
            yield Problem(path_of(n), f"{_shown(name)} is already {dotted(before)}; give each its own name", (before,))


def _subscriber_rules(config: Config) -> Iterator[Problem]:
    yield from _repeated([subscriber.id for subscriber in config.subscribers], lambda n: ("subscribers", n, "id"))
    limit = config.store.max_subscribers
    if len(config.subscribers) > limit:
        text = f"{len(config.subscribers)} subscribers, and store.max_subscribers is {limit}; raise it, or remove some"
        yield Problem(("subscribers",), text, (("store", "max_subscribers"),))


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


def _listen_rules(config: Config) -> Iterator[Problem]:
    api, ops = config.api.listen, config.ops.listen
    here = ("api", "listen")
    if not api.loopback and config.api.auth != "none":
        text = (
            f"{api} can be reached from elsewhere, and the API has no tokens yet:"
            " listen on 127.0.0.1 or a Unix socket, or accept it with `auth: none`"
        )
        yield Problem(here, text, (("api", "auth"),))
    if ops.socket_path:
        yield Problem(("ops", "listen"), 'expected "host:port": the kubelet and Prometheus come by TCP')
    elif api.port and api.port == ops.port:
        yield Problem(("ops", "listen"), f"api.listen has port {ops.port} too; give one of them another", (here,))


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


def _secret_rules(config: Config) -> Iterator[Problem]:
    for n, subscriber in enumerate(config.subscribers):
        if subscriber.secret_file is not None:
            try:
                read_secret(subscriber.secret_file)
            except ValueError as wrong:
                yield Problem(("subscribers", n, "secret_file"), str(wrong))
