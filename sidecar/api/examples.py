"""Examples in the API's description, by the struct that they are of. Tests send those of bodies, and check those of answers."""

from typing import Any

import msgspec

from sidecar.api import documents, wire
from sidecar.api.patching import StatePatch

_SNAPSHOT = {
    "version": 17,
    "state": "ACTIVE",
    "reason": "WORK_ARRIVED",
    "ts_mono": 5021.25,
    "ts_wall": 1767225600.5,
    "snapshot_id": "0b0f5c7e-6f0d-4c57-9d5f-4a8f0f9a7c11",
    "fsm_instance_id": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
    "prev_state": "IDLE",
    "source_module": "planner",
    "attempt_count": 12,
    "history": [
        {
            "from_state": "IDLE",
            "to_state": "ACTIVE",
            "trigger_event": "WORK_ARRIVED",
            "status": "SUCCESS",
            "error_message": "",
            "ts_mono": 5021.25,
            "ts_wall": 1767225600.5,
        }
    ],
    "context_data": {"job": 42},
    "state_metadata": {},
}
_STATE = {"epoch": "k3f9ab2c", "revision": 21, "snapshot": _SNAPSHOT}
_SUBSCRIBER = {
    "id": "console",
    "url": "https://console.example/hook",
    "timeout": "5s",
    "max_lag": None,
    "on": ["transition", "update"],
    "states": None,
    "max_batch": 1,
    "source": "api",
    "status": "active",
    "cursor": 21,
    "lag": 0,
    "failures": 0,
    "last_outcome": "delivered",
    "last_http_status": 200,
    "last_success_at": 1767225600.75,
    "evicted": None,
}

EXAMPLES: dict[type[msgspec.Struct], dict[str, Any]] = {
    wire.StateWrite: {
        "all that is needed": {"state": "IDLE"},
        "with what it is about": {
            "state": "ACTIVE",
            "reason": "WORK_ARRIVED",
            "source_module": "planner",
            "context_data": {"job": 42},
        },
    },
    StatePatch: {
        "two members changed": {"context_data": {"goal": {"x": 3}, "obstacle": None}, "source_module": "planner"},
    },
    wire.Move: {
        "from any state": {"to": "IDLE", "reason": "WORK_DONE"},
        "only from one": {"from": "IDLE", "to": "ACTIVE", "reason": "WORK_ARRIVED", "source_module": "planner"},
    },
    wire.Writer: {
        "nobody writes yet": {"name": "agent-7d4b9-x2x9p"},
        "instead of whoever does": {"name": "agent-7d4b9-x2x9p", "ttl": "30s", "takeover": True},
    },
    wire.Heartbeat: {"every 15 seconds or more often": {"ttl": "15s"}, "as configured": {}},
    wire.SubscriberWrite: {
        "all revisions": {"url": "https://console.example/hook"},
        "only when something breaks": {
            "url": "https://pager.example/hook",
            "on": ["transition"],
            "states": ["ERROR_STATE"],
            "timeout": "5s",
        },
    },
    wire.NewSubscriber: {
        "with an id made here": {"url": "https://console.example/hook"},
        "with an id of yours": {"id": "console", "url": "https://console.example/hook", "max_lag": 1000},
    },
    documents.State: {"a state": _STATE},
    documents.Written: {
        "a state": _STATE,
        "with acknowledgements": _STATE
        | {"acks": {"wanted": 3, "acknowledged": 2, "complete": False, "waiting_for": ["console"]}},
    },
    documents.DryRun: {"of a dry run": {"epoch": "k3f9ab2c", "dry_run": True, "snapshot": _SNAPSHOT}},
    documents.History: {"a page": {"epoch": "k3f9ab2c", "oldest": 1, "head": 21, "entries": [_STATE]}},
    documents.SubscriberView: {
        "one that is served": _SUBSCRIBER,
        "one that was evicted": _SUBSCRIBER
        | {
            "status": "evicted",
            "failures": 41,
            "last_outcome": "connect",
            "last_http_status": None,
            "evicted": {"at": 1767229200.0, "reason": "failing"},
        },
    },
    documents.Ping: {
        "delivered": {"outcome": "delivered", "status": 200, "seconds": 0.012},
        "nobody listens": {"outcome": "connect", "status": None, "seconds": 0.001},
    },
    documents.MachineView: {
        "two states": {
            "agent": "planner-7",
            "name": "default",
            "states": ["IDLE", "ACTIVE"],
            "fault_states": [],
            "initial": "IDLE",
            "transitions": {"IDLE": ["ACTIVE"], "ACTIVE": ["IDLE"]},
            "enforcement": "enforce",
            "current": "IDLE",
            "allowed": ["ACTIVE"],
        }
    },
}
