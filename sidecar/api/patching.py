"""What `PATCH /v1/state` makes of a state: a JSON Merge Patch (RFC 7396) on its data, made at the moment of the decision."""

import time
from typing import Any

import msgspec

from sidecar.api import wire
from sidecar.document import SnapshotDocument
from sidecar.errors import NoStateError, TooLargeError
from sidecar.snapshot import new_uuid

MEDIA_TYPE = "application/merge-patch+json"

_Data = dict[str, Any] | None | msgspec.UnsetType

_encode = msgspec.json.Encoder().encode


class StatePatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `PATCH /v1/state`. What is not there stays as it is, null makes it empty; who writes is said anew."""

    context_data: _Data = msgspec.UNSET
    state_metadata: _Data = msgspec.UNSET
    reason: wire.Text | msgspec.UnsetType | None = msgspec.UNSET
    source_module: wire.Name = "fsm_handler"


def patched(change: StatePatch, tail: SnapshotDocument | None, most_bytes: int) -> SnapshotDocument:
    """The state with its data patched, as an update. `most_bytes`: how large the data may become, as JSON.

    It cannot become deeper than the deeper one of both. Raises `NoStateError` and `TooLargeError`.
    """
    if tail is None:
        raise NoStateError("no state has been written yet that could be patched: write one with PUT or POST /v1/transitions")
    data = _patched(tail.context_data, change.context_data), _patched(tail.state_metadata, change.state_metadata)
    size = sum(len(_encode(each)) for each in data)
    if size > most_bytes:
        raise TooLargeError(f"the patched data would have {size} bytes, and may have {most_bytes} (writes.max_body)")
    return msgspec.structs.replace(
        tail,
        version=tail.version + 1,
        reason=tail.reason if change.reason is msgspec.UNSET else change.reason or "",
        ts_mono=time.monotonic(),
        ts_wall=time.time(),
        snapshot_id=new_uuid(),
        source_module=change.source_module,
        context_data=data[0],
        state_metadata=data[1],
    )


def _patched(target: dict[str, Any], patch: _Data) -> dict[str, Any]:
    if isinstance(patch, msgspec.UnsetType):
        return target
    return {} if patch is None else _merged(target, patch)


def _merged(target: Any, patch: dict[str, Any]) -> dict[str, Any]:
    """A new object; what is not changed is shared with `target`, which stays as it is."""
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value) if isinstance(value, dict) else value
    return result
