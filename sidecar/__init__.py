"""fsm-sidecar: the single source of truth of an agent's finite-state-machine state.

The store works alone, in memory, in a program of yours: `from sidecar import AsyncStateStore`. What receives webhooks needs
nothing but `sidecar.receiver`: so a name is only imported when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sidecar.conflicts import Expectation
    from sidecar.errors import (
        FencedError,
        IllegalTransitionError,
        InvalidSnapshotError,
        StateExistsError,
        StateStoreError,
        StateVersionError,
        StorageError,
        SubscriberLimitError,
        WriterHeldError,
    )
    from sidecar.machine import Enforcement, Machine
    from sidecar.snapshot import (
        FsmSnapshot,
        FsmState,
        FsmTransition,
        TransitionStatus,
        create_transition,
        initial_snapshot,
        next_snapshot,
    )
    from sidecar.store import AsyncStateStore, create_initialized_store, create_store, monitor_state_store

__all__ = [
    "AsyncStateStore",
    "Enforcement",
    "Expectation",
    "FencedError",
    "FsmSnapshot",
    "FsmState",
    "FsmTransition",
    "IllegalTransitionError",
    "InvalidSnapshotError",
    "Machine",
    "StateExistsError",
    "StateStoreError",
    "StateVersionError",
    "StorageError",
    "SubscriberLimitError",
    "TransitionStatus",
    "WriterHeldError",
    "create_initialized_store",
    "create_store",
    "create_transition",
    "initial_snapshot",
    "monitor_state_store",
    "next_snapshot",
]

_HOMES = ("conflicts", "errors", "machine", "snapshot", "store")


def __getattr__(name: str) -> Any:
    """A public name, from the module where it lives (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    modules = (import_module(f"sidecar.{home}") for home in _HOMES)
    return next(vars(module)[name] for module in modules if name in vars(module))


def __dir__() -> list[str]:
    return sorted(__all__)
