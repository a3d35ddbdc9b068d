"""What can go wrong, in domain words. Each class says what its caller can do; HTTP meanings live in `api/problems.py`."""

from collections.abc import Sequence

import msgspec


class Standing(msgspec.Struct, frozen=True):
    """The durable state that a rejected write was compared with. `version` -1: there is none yet."""

    epoch: str
    version: int = -1
    state: str | None = None
    source_module: str | None = None
    ts_wall: float | None = None


class StateStoreError(Exception):
    """The store refused the call; the state is unchanged."""


class StateVersionError(StateStoreError):
    """Another write came first. Read the current state and decide again."""

    def __init__(
        self, detail: str, *, expected: msgspec.Struct, current: Standing, attempted: msgspec.Struct | None = None
    ) -> None:
        super().__init__(detail)
        self.expected = expected
        self.current = current
        self.attempted = attempted


class StateExistsError(StateVersionError):
    """The write was to create the state, and there is one already."""


class Holder(msgspec.Struct, frozen=True):
    """Who has the lease, since when and until when (seconds since the Unix epoch). Once that is over, anybody may take it."""

    name: str
    granted_at: float
    expires_at: float


class FencedError(StateStoreError):
    """The write does not come from the writer of now. Stop writing, or ask for the lease. `holder`: who has it, if anybody."""

    def __init__(self, cause: str, holder: msgspec.Struct | None, *, attempted: msgspec.Struct | None = None) -> None:
        super().__init__(f"{cause}; ask for a token with POST /v1/writer, or leave writing to the holder")
        self.holder = holder
        self.attempted = attempted


class WriterHeldError(StateStoreError):
    """Another writer has the lease, and its time is not over. Wait, or take it over."""

    def __init__(self, holder: msgspec.Struct) -> None:
        super().__init__("another writer has the lease: wait until expires_at, or take it over with takeover: true")
        self.holder = holder


class IllegalTransitionError(StateStoreError):
    """The machine does not allow this transition from the current state."""

    def __init__(self, *, state: str, to: str, allowed: Sequence[str], attempted: msgspec.Struct | None = None) -> None:
        super().__init__(f"{state} -> {to} is not a transition of the machine; from {state}: {', '.join(allowed) or 'none'}")
        self.state = state
        self.to = to
        self.allowed = tuple(allowed)
        self.attempted = attempted


class InvalidError(StateStoreError):
    """A value is not what is expected. `path` is its JSON path, such as `$.state`."""

    def __init__(self, detail: str, *, path: str = "$") -> None:
        super().__init__(detail)
        self.path = path


class InvalidSnapshotError(InvalidError):
    """The snapshot has a value that the store cannot keep."""


class UnknownStateError(InvalidSnapshotError):
    """The write names a state that the machine does not have: its writer has another one in mind."""


class SubscriberLimitError(StateStoreError):
    """All places for subscribers are taken. Remove one, or raise `store.max_subscribers`."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"all {limit} subscriber places are taken")
        self.limit = limit


class StorageError(StateStoreError):
    """The journal could not make a write durable."""


class StorageFailedError(StorageError):
    """The storage failed; whether the write survives is unknown until the sidecar has been restarted."""


class StorageFullError(StorageError):
    """The disk is full; the write was not applied. Free some space and try again."""


class StorageSlowError(StorageError):
    """The disk did not answer in time; whether the write becomes durable is unknown yet. Send it again with the same key."""


class OverloadedError(StateStoreError):
    """Too many requests at once, or writes that wait for the disk; this one was not taken. Try again in a moment."""


class JournalHeldError(StorageError):
    """Another process holds the journal. One sidecar per journal."""


class JournalDamagedError(StorageError):
    """What was written is not there any more, or not as it was written. Restore a backup, or accept the loss."""


class ForeignFileError(JournalDamagedError):
    """The file is not a journal that this version can read."""


class NoJournalFileError(StateStoreError):
    """The journal is in memory, and has no file."""


class BackupRunningError(StateStoreError):
    """A backup is on its way already. Try again when it is done."""


class CompactedError(StateStoreError):
    """The revisions asked for are no longer kept. Start again from `oldest`."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"revisions before {oldest} are no longer kept")
        self.oldest = oldest


class UnknownSubscriberError(StateStoreError):
    """No subscriber has this id."""


class ConfiguredSubscriberError(StateStoreError):
    """The subscriber is written in the config file, and is changed there."""


class TooManyWatchersError(StateStoreError):
    """All places for watchers are taken. Try again later, or raise `watch.max_watchers`."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"all {limit} places for watchers are taken; try again later, or raise watch.max_watchers")
        self.limit = limit


class EndpointRefusedError(StateStoreError):
    """The endpoint may not be called. `rule` names the reason."""

    def __init__(self, detail: str, *, rule: str) -> None:
        super().__init__(detail)
        self.rule = rule


class NoStateError(StateStoreError):
    """No state has been written yet."""


class MalformedError(StateStoreError):
    """The request cannot be read: its JSON, a header or a query parameter."""


class KeyReusedError(StateStoreError):
    """The Idempotency-Key was used for another write. Every write gets a key of its own; only its repetition has the same."""


class MediaTypeError(StateStoreError):
    """The body is not JSON as we take it: of the media type `wanted`, in UTF-8, without a Content-Encoding."""

    def __init__(self, detail: str, wanted: str) -> None:
        super().__init__(detail)
        self.wanted = wanted


class TooLargeError(StateStoreError):
    """What the change would make is larger than it may be. Remove something first, or raise the limit."""


class PreconditionRequiredError(StateStoreError):
    """Writes have to say what they expect: `If-Match`, `If-None-Match: *` or `enforce_version=true`."""


class AccessError(StateStoreError):
    """The caller may not do this. `reason` is how that is counted."""

    reason = ""


class UnauthorizedError(AccessError):
    """The request has no valid token. What was wrong with it is for the metrics only."""

    def __init__(self, reason: str) -> None:
        super().__init__("send a valid token as `Authorization: Bearer <token>`")
        self.reason = reason


class ForbiddenError(AccessError):
    """The token is valid, and not for this. `scope` is what it lacks."""

    reason = "scope"

    def __init__(self, scope: str) -> None:
        super().__init__(f"this needs the scope {scope}, which the token does not have")
        self.scope = scope


class TooManyFailuresError(AccessError):
    """Too many requests without a valid token came from this peer. With one it is let in at once."""

    reason = "limited"

    def __init__(self) -> None:
        super().__init__("too many requests without a valid token; send one, or wait")


class MisdirectedError(AccessError):
    """The `Host` is none of ours: perhaps a page that made its own name point here."""

    reason = "host"

    def __init__(self) -> None:
        super().__init__("the API is not called like this; use its address or localhost, or list the name in api.hosts")


class OriginRefusedError(AccessError):
    """A page of another origin may not write."""

    reason = "origin"

    def __init__(self) -> None:
        super().__init__("pages of this origin may not do this; list it in api.cors")


class DrainingError(StateStoreError):
    """The sidecar is stopping, and takes no requests any more."""


class ConfigError(Exception):
    """The config file cannot be used. `problems` lists every reason found, each with its place and its mend."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
