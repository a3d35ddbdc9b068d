"""For every alert a story of two and a half hours: all is well, it is not, and it is well again.

A series is a function from the minute to a value. What is well is close to what is not, so that a threshold that is too low
is noticed as well as one that is too high.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

LENGTH = 141
BAD = range(70, 110)
"""The minutes in which it is not well. Before them the longest window has passed, after them the longest that has to."""

FIRES_AT = 109
QUIET_AT = (5, 69, 140)
SOON_AFTER = 117
"""The short window of two is over."""

Series = Callable[[int], float | None]


class Scenario(NamedTuple):
    """The series by name and labels; the value as the description shows it; the labels that the alert has of its own."""

    series: Mapping[str, Series]
    value: str = ""
    labels: Mapping[str, str] = {}
    fires_at: int = FIRES_AT
    quiet_at: tuple[int, ...] = QUIET_AT


def gauge(well: float | None, bad: float | None) -> Series:
    return lambda minute: bad if minute in BAD else well


def counter(well: float, bad: float) -> Series:
    """Rises so much each minute."""
    return lambda minute: well * minute + (bad - well) * len([each for each in BAD if each <= minute])


def at(*minutes: int) -> Series:
    """Counts one event in each of these minutes."""
    return lambda minute: sum(each <= minute for each in minutes)


def always(value: float) -> Series:
    return lambda minute: value


def histogram(name: str, *, fast: float, slow: float, observed: float = 20) -> dict[str, Series]:
    """Observations each minute: all at most `fast`, and in bad minutes all between that and `slow`."""
    return {
        f'{name}_bucket{{le="{fast}"}}': counter(observed, 0),
        f'{name}_bucket{{le="{slow}"}}': counter(observed, observed),
        f'{name}_bucket{{le="+Inf"}}': counter(observed, observed),
        f"{name}_count": counter(observed, observed),
    }


CONFLICT = 'fsm_version_conflicts_total{kind="stale_version",reason="stale",writer="agent"}'
DELIVERED, TIMEOUT = (f'fsm_webhook_attempts_total{{outcome="{outcome}"}}' for outcome in ("delivered", "timeout"))


def conflicts(well: float, bad: float, sets: float = 10) -> dict[str, Series]:
    return {
        CONFLICT: counter(well, bad),
        'fsm_version_conflicts_total{kind="wrong_expectation",reason="ahead",writer="other"}': always(0),
        "fsm_sets_total": counter(sets, sets),
    }


def attempts(well: float, bad: float) -> dict[str, Series]:
    return {
        DELIVERED: counter(10, 10),
        TIMEOUT: counter(well, bad),
        'fsm_webhook_attempts_total{outcome="gone"}': always(0),
    }


def last_update(minute: int) -> float:
    """An agent that writes 40 s before each minute, but not in the bad ones."""
    return 60 * (BAD.start if minute in BAD else minute) - 40


SIDECAR = 'fsm_build_info{version="1.0",python="3.12"}'

SCENARIOS: dict[str, Scenario] = {
    "Down": Scenario({"up": gauge(1, 0)}),
    "MetricsMissing": Scenario({"up": always(1), SIDECAR: gauge(1, None)}),
    "CrashLooping": Scenario(
        {"fsm_created_timestamp_seconds": lambda minute: 60 * (minute - minute % (3 if minute in BAD else 7))}, "5"
    ),
    "NotInitialised": Scenario(
        {
            'fsm_health_check_ok{check="initialised",level="issue"}': gauge(1, 0),
            'fsm_health_check_ok{check="freshness",level="warning"}': always(1),
        }
    ),
    "Unhealthy": Scenario({"fsm_health_healthy": gauge(1, 0)}),
    "VersionConflictsHigh": Scenario(conflicts(0.6, 10), "50%", quiet_at=(*QUIET_AT, SOON_AFTER)),
    "SecondWriterSuspected": Scenario(conflicts(5, 10), "50%", quiet_at=(*QUIET_AT, SOON_AFTER)),
    "ConflictsMasked": Scenario(
        {
            'fsm_version_rewrites_total{writer="planner"}': counter(0, 2),
            'fsm_version_rewrites_total{writer="other"}': always(0),
        },
        "30",
        {"writer": "planner"},
    ),
    "VersionRegressed": Scenario({"fsm_version": lambda minute: minute % 8 if minute in BAD else minute}, "2"),
    "IllegalTransitions": Scenario(
        {
            'fsm_illegal_transitions_total{outcome="refused"}': counter(0, 1),
            'fsm_illegal_transitions_total{outcome="accepted"}': always(0),
        },
        "15",
        {"outcome": "refused"},
    ),
    "WritesOverloaded": Scenario({"fsm_writes_overloaded_total": counter(0, 1)}, "15"),
    "WriteQueueNearLimit": Scenario(
        {"fsm_writes_waiting": gauge(700, 1000), "fsm_journal_queue_limit": always(1024)}, "97.66%"
    ),
    "WriteSlow": Scenario(histogram("fsm_write_duration_seconds", fast=0.04, slow=0.1), "99.4ms"),
    "StateStale": Scenario(
        {"fsm_last_update_timestamp_seconds": last_update, "fsm_update_expected": always(1)}, "15m 40s", fires_at=85
    ),
    "StuckInFaultState": Scenario({"fsm_fault_state": gauge(0, 1)}),
    "StateStalled": Scenario({"fsm_state_stalled": gauge(0, 1)}),
    "AgentLost": Scenario(
        {
            'fsm_last_wills_total{outcome="executed"}': counter(0, 1),
            'fsm_last_wills_total{outcome="unneeded"}': counter(1, 1),
            'fsm_last_wills_total{outcome="refused"}': always(0),
        },
        "15",
        {"outcome": "executed"},
    ),
    "Flapping": Scenario(
        {
            'fsm_transitions_total{from_state="IDLE",to_state="ACTIVE"}': counter(20, 60),
            'fsm_transitions_total{from_state="ACTIVE",to_state="IDLE"}': counter(20, 60),
        },
        "2",
    ),
    "SubscriberEvicted": Scenario(
        {
            'fsm_subscribers_evicted_total{reason="failing"}': counter(0, 1),
            'fsm_subscribers_evicted_total{reason="gone"}': always(0),
            'fsm_subscribers_evicted_total{reason="unconfigured"}': counter(1, 1),
        },
        "15",
        {"reason": "failing"},
    ),
    "SubscriberSuspended": Scenario(
        {
            'fsm_subscribers{status="suspended"}': gauge(0, 1),
            'fsm_subscribers{status="degraded"}': always(0),
        },
        "1",
    ),
    "SubscriberLagging": Scenario({"fsm_subscriber_lag_max_revisions": gauge(50, 100)}, "100"),
    "SubscribersNearLimit": Scenario(
        {
            'fsm_subscribers{status="active"}': gauge(70, 85),
            'fsm_subscribers{status="degraded"}': always(5),
            'fsm_subscribers{status="evicted"}': always(40),
            "fsm_subscribers_limit": always(100),
        },
        "90%",
    ),
    "SubscriptionsRejected": Scenario(
        {
            'fsm_subscriptions_rejected_total{reason="limit"}': counter(0, 1),
            'fsm_subscriptions_rejected_total{reason="endpoint"}': always(0),
        },
        "10",
        {"reason": "limit"},
    ),
    "WebhookFailuresHigh": Scenario(attempts(0.6, 10), "50%", quiet_at=(*QUIET_AT, SOON_AFTER)),
    "WebhookGaps": Scenario(
        {
            'fsm_webhook_gaps_total{reason="max_lag"}': counter(0, 1),
            'fsm_webhook_gaps_total{reason="lost"}': always(0),
        },
        "15",
        {"reason": "max_lag"},
    ),
    "WebhookSlotsNearLimit": Scenario(
        {"fsm_webhook_attempts_in_flight": gauge(48, 64), "fsm_webhook_attempts_in_flight_limit": always(64)}, "100%"
    ),
    "PropagationSlow": Scenario(histogram("fsm_propagation_delay_seconds", fast=0.8, slow=2.5), "2.483s"),
    "StorageErrors": Scenario(
        {
            'fsm_storage_errors_total{kind="failed"}': counter(0, 1),
            'fsm_storage_errors_total{kind="full"}': always(0),
        },
        "15",
        {"kind": "failed"},
    ),
    "DiskLow": Scenario({"fsm_journal_disk_free_bytes": gauge(3e8, 1e8), "fsm_journal_disk_reserve_bytes": always(1e8)}, "1"),
    "ConfigInvalid": Scenario({"fsm_config_file_valid": gauge(1, 0)}),
    "ErrorsLogged": Scenario(
        {
            'fsm_log_messages_total{level="error"}': counter(0, 1),
            'fsm_log_messages_total{level="critical"}': always(0),
            'fsm_log_messages_total{level="info"}': counter(100, 100),
        },
        "15",
        {"level": "error"},
    ),
    "EventLoopBlocked": Scenario({"fsm_event_loop_lag_seconds": gauge(0.8, 2.5)}, "2.5s"),
    "SeriesBudgetExceeded": Scenario({"scrape_samples_scraped": gauge(1500, 2500), SIDECAR: always(1)}, "2500"),
}

# --- an event that happens once, to a counter that was there before ---


def once(alert: str, counter: str) -> Scenario:
    usual = SCENARIOS[alert]
    others = {name: series for name, series in usual.series.items() if name != counter}
    window = 11 if alert == "SubscriptionsRejected" else 16
    quiet = (5, BAD.start - 1, BAD.start + window)
    return Scenario({**others, counter: at(BAD.start)}, "1", usual.labels, fires_at=BAD.start + 1, quiet_at=quiet)


ONCE: dict[str, Scenario] = {
    alert: once(alert, counter)
    for alert, counter in (
        ("ConflictsMasked", 'fsm_version_rewrites_total{writer="planner"}'),
        ("IllegalTransitions", 'fsm_illegal_transitions_total{outcome="refused"}'),
        ("WritesOverloaded", "fsm_writes_overloaded_total"),
        ("AgentLost", 'fsm_last_wills_total{outcome="executed"}'),
        ("SubscriberEvicted", 'fsm_subscribers_evicted_total{reason="failing"}'),
        ("SubscriptionsRejected", 'fsm_subscriptions_rejected_total{reason="limit"}'),
        ("WebhookGaps", 'fsm_webhook_gaps_total{reason="max_lag"}'),
        ("StorageErrors", 'fsm_storage_errors_total{kind="failed"}'),
        ("ErrorsLogged", 'fsm_log_messages_total{level="error"}'),
    )
} | {
    "VersionRegressed": Scenario(
        {"fsm_version": lambda minute: minute - (BAD.start if minute >= BAD.start else 0)},
        "1",
        fires_at=BAD.start + 1,
        quiet_at=(5, BAD.start - 1, BAD.start + 16),
    ),
    "EventLoopBlocked": Scenario(
        {"fsm_event_loop_lag_seconds": lambda minute: 2.5 if minute == BAD.start else 0.01},
        "2.5s",
        fires_at=BAD.start + 1,
        quiet_at=(5, BAD.start - 1, BAD.start + 6),
    ),
}
"""Of every alert with `for: 0s`."""

# --- what must not fire, also beside a sidecar for which it does ---

QUIET: dict[str, list[Mapping[str, Series]]] = {
    "MetricsMissing": [{"up": always(0)}],
    "VersionConflictsHigh": [
        conflicts(0, 0, sets=0),
        conflicts(0, 0, sets=0) | {CONFLICT: at(100, 103, 106, 108)},
        conflicts(0, 0) | {CONFLICT: at(*5 * list(range(70, 80)))},
    ],
    "SecondWriterSuspected": [
        conflicts(0, 0, sets=0) | {CONFLICT: at(*range(97, 106))},
        conflicts(0, 0) | {CONFLICT: at(*10 * list(range(70, 86)))},
    ],
    "StateStale": [
        {"fsm_last_update_timestamp_seconds": last_update, "fsm_update_expected": always(0)},
        {"fsm_last_update_timestamp_seconds": always(0), "fsm_update_expected": always(1)},
    ],
    "WebhookFailuresHigh": [
        attempts(0, 0) | {DELIVERED: at(*range(80, 92)), TIMEOUT: at(100, 103, 106, 108)},
        attempts(0, 0) | {TIMEOUT: at(*5 * list(range(70, 80)))},
    ],
    "WriteSlow": [histogram("fsm_write_duration_seconds", fast=0.04, slow=0.1, observed=1)],
    "PropagationSlow": [histogram("fsm_propagation_delay_seconds", fast=0.8, slow=2.5, observed=1)],
    "SubscriberEvicted": [{'fsm_subscribers_evicted_total{reason="unconfigured"}': counter(1, 1)}],
    "DiskLow": [{"fsm_journal_disk_free_bytes": always(5), "fsm_journal_disk_reserve_bytes": always(0)}],
    "SeriesBudgetExceeded": [{"scrape_samples_scraped": always(9000)}],
}
