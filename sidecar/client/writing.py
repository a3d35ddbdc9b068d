"""Writes over HTTP: each counts once, and says what it expects of the state and who its writer is."""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, Literal, NamedTuple

import msgspec

from sidecar.client.conditions import Look, condition_of, split_state
from sidecar.client.states import BeatAnswer, Lease, decoded
from sidecar.client.transport import Answer, Transport
from sidecar.conflicts import Expectation
from sidecar.errors import InvalidSnapshotError, StateVersionError
from sidecar.frozen import freeze
from sidecar.snapshot import new_uuid
from sidecar.units import Seconds

Data = dict[str, Any] | None | msgspec.UnsetType

_NOTHING: Mapping[str, str] = {}
DRY_RUN: Mapping[str, str] = {"dry_run": "true"}
_AS_PATCH = {"Content-Type": "application/merge-patch+json"}

_encode = msgspec.json.Encoder().encode


class Patch(msgspec.Struct, frozen=True):
    """The body of `PATCH /v1/state`. What is not there stays as it is, None makes it empty."""

    context_data: Data
    state_metadata: Data
    reason: str | msgspec.UnsetType
    source_module: str


class Wait(NamedTuple):
    """A write waits for acknowledgements: of so many subscribers, or `all`, and so long."""

    acks: int | Literal["all"]
    seconds: float

    @property
    def query(self) -> dict[str, str]:
        """As the API takes it."""
        return {"wait_acks": str(self.acks), "timeout": str(Seconds(self.seconds))}


class Writes:
    """Those of one client. `epoch`: of the journal that it read last. A token is kept from `become_writer` on."""

    def __init__(self, transport: Transport, look: Look) -> None:
        self.epoch: str | None = None
        self._transport = transport
        self._look = look
        self._claim = _NOTHING

    async def send(
        self,
        method: str,
        path: str,
        body: Any,
        expected: int | Expectation | None,
        query: Mapping[str, str] = _NOTHING,
        wait: "Wait | None" = None,
    ) -> Answer:
        """The answer to a write; one on exactly what was seen is repeated until what is expected decides it.

        It has a key, unless it is a dry run: that one writes nothing that could count twice.
        """
        if isinstance(expected, int):
            expected = Expectation(expected)
        encoded = _encoded(body)
        kind = _AS_PATCH if isinstance(body, Patch) else _NOTHING
        while True:
            condition = await condition_of(expected, self.epoch, self._look)
            key = _NOTHING if "dry_run" in query else {"Idempotency-Key": new_uuid()}
            headers = {**key, **kind, **condition.headers, **self._claim}
            try:
                return await self._transport.ask(
                    method,
                    path,
                    query={**query, **wait.query} if wait else query,
                    headers=headers,
                    body=encoded,
                    longer_seconds=wait.seconds if wait else 0.0,
                )
            except StateVersionError as lost:
                if not condition.fails_by_chance(lost):
                    raise

    async def become_writer(self, name: str, ttl: float | None, *, takeover: bool) -> Lease:
        """Take the lease, or renew it. A takeover does not show the token: it may be one that was taken over itself."""
        body = _encode({"name": name, "ttl": _duration(ttl), "takeover": takeover})
        headers = {"Idempotency-Key": new_uuid(), **(_NOTHING if takeover else self._claim)}
        lease = decoded((await self._transport.ask("POST", "/v1/writer", headers=headers, body=body)).body, Lease)
        self._claim = {"Writer-Token": lease.token}
        return lease

    async def heartbeat(self, ttl: float | None) -> float:
        """Until when the next one has to come."""
        body = _encode({"ttl": _duration(ttl)})
        answer = await self._transport.ask("POST", "/v1/heartbeat", headers=self._claim, body=body)
        return decoded(answer.body, BeatAnswer).expires_at


def move(
    to: IntEnum, reason: str, expected: Sequence[Expectation], source_module: str
) -> tuple[dict[str, str], Expectation | None]:
    """The body of `POST /v1/transitions`, and what it cannot say of the state that is expected.

    Raises `InvalidSnapshotError` for what is no state.
    """
    if not isinstance(to, IntEnum):
        raise InvalidSnapshotError(f"{to!r} is not a state of the machine", path="$.state")
    source, other = split_state(expected)
    body = {"to": to.name, "reason": reason, "source_module": source_module}
    return body if source is None else body | {"from": source}, other


def merge_patch(context_data: Data, state_metadata: Data, reason: str | None, source_module: str) -> Patch:
    """A patch of JSON values. Raises `InvalidSnapshotError` for others: NaN would be written as null, which removes."""
    kept = msgspec.UNSET if reason is None else reason
    return Patch(_checked(context_data, "context_data"), _checked(state_metadata, "state_metadata"), kept, source_module)


def _checked(data: Data, name: str) -> Data:
    try:
        return data if isinstance(data, msgspec.UnsetType) else freeze(data)
    except ValueError as wrong:
        raise InvalidSnapshotError(str(wrong), path=f"$.{name}") from None


def _encoded(body: Any) -> bytes:
    try:
        return _encode(body)
    except (TypeError, ValueError, OverflowError, RecursionError) as wrong:
        raise InvalidSnapshotError(f"the write has a value without a JSON form: {wrong}") from None


def _duration(seconds: float | None) -> str | None:
    return None if seconds is None else str(Seconds(seconds))
