"""fsm-sidecar: the single source of truth of an agent's finite-state-machine state.

The store works alone, in memory, in a program of yours: `from sidecar import AsyncStateStore`.
"""

from sidecar.conflicts import Expectation
from sidecar.errors import (
    IllegalTransitionError,
    InvalidSnapshotError,
    StateExistsError,
    StateStoreError,
    StateVersionError,
    StorageError,
    SubscriberLimitError,
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
    "create_initialized_store",
    "create_store",
    "create_transition",
    "initial_snapshot",
    "monitor_state_store",
    "next_snapshot",
]
