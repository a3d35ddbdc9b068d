"""Every alert: what it asks, and what it says. From which number on it fires is in `thresholds.yaml`."""

from sidecar import metrics
from sidecar.alerts.alert import Alert, Declared
from sidecar.alerts.expression import Age, By, Condition, Gauge, OverTime, Ratio, Turns, Unless, Where
from sidecar.alerts.questions import (
    FAILED_ATTEMPTS,
    SIDECARS,
    conflict_share,
    events,
    failure_share,
    highest,
    in_both_windows,
    lowest,
    share_of_limit,
    slowest_hundredth,
    targets_up,
    total,
)
from sidecar.alerts.selector import SCRAPED_SAMPLES, other_than, select
from sidecar.alerts.settings import Settings


def alerts(settings: Settings) -> tuple[Alert, ...]:
    """The alerts that are enabled."""
    return tuple(each.with_numbers(settings) for each in DECLARED if settings.alerts[each.name].enabled)


DECLARED = (
    Declared(
        "Down",
        "fsm-fleet",
        "A sidecar does not answer Prometheus.",
        "its metrics cannot be scraped: the sidecar is down, or something is between it and Prometheus.",
        lambda _, settings: targets_up(settings),
        unjudged="who answers is not down",
    ),
    Declared(
        "MetricsMissing",
        "fsm-fleet",
        "A target answers Prometheus, but not with the metrics of a sidecar.",
        "there is no fsm_build_info in what it answers: it has not finished its start, or it is something else.",
        lambda _, settings: Unless(targets_up(settings), SIDECARS),
        unjudged="without these metrics there is nothing to judge",
    ),
    Declared(
        "CrashLooping",
        "fsm-fleet",
        "A sidecar starts again and again.",
        "[count] starts in [window].",
        lambda limits, _: By("max", Turns("changes", select(metrics.CREATED), limits.window_seconds)),
        unjudged="two scrapes see one start at most",
    ),
    Declared(
        "NotInitialised",
        "fsm-agent",
        "A sidecar has no state of its agent.",
        "there is no state yet: readers get 404, and subscribers hear nothing.",
        highest(metrics.CHECK_OK, check="initialised"),
    ),
    Declared(
        "Unhealthy",
        "fsm-agent",
        "A sidecar's health check fails.",
        "a check of level issue fails; /v1/health says which.",
        highest(metrics.HEALTHY),
    ),
    Declared(
        "VersionConflictsHigh",
        "fsm-agent",
        "Many writes of an agent's state are rejected because another came first.",
        "{{ $value | humanizePercentage }} of the writes in [short] were rejected, and too many in [long]: another writer was "
        "faster, or this one goes on from an old state. /v1/conflicts says who lost against whom.",
        in_both_windows(conflict_share, select(metrics.CONFLICTS)),
    ),
    Declared(
        "SecondWriterSuspected",
        "fsm-agent",
        "Two writers seem to fight over one agent's state.",
        "{{ $value | humanizePercentage }} of the writes in [short] were rejected, and as many in [long], as when two writers "
        "each take themselves for the only one. /v1/conflicts says who they are.",
        in_both_windows(conflict_share, select(metrics.CONFLICTS)),
    ),
    Declared(
        "ConflictsMasked",
        "fsm-agent",
        "A stale write was accepted and has overwritten a newer state.",
        "[count] stale writes by {{ $labels.writer }} in [window] were accepted under a new version, for want of a check. "
        "/v1/conflicts says what they have overwritten.",
        events(metrics.REWRITES, "writer"),
    ),
    Declared(
        "VersionRegressed",
        "fsm-agent",
        "The version of an agent's state fell.",
        "the version fell [count] times in [window]: the journal was lost, replaced or restored.",
        lambda limits, _: By("max", Turns("resets", select(metrics.VERSION), limits.window_seconds)),
    ),
    Declared(
        "IllegalTransitions",
        "fsm-agent",
        "A writer asked for a transition that the machine does not allow.",
        "[count] transitions in [window] that the machine does not allow were {{ $labels.outcome }}.",
        events(metrics.ILLEGAL, "outcome"),
    ),
    Declared(
        "WritesOverloaded",
        "fsm-agent",
        "Writes were refused because too many waited for the disk.",
        "[count] writes in [window] were refused with 503: writes.max_queue others waited for the disk.",
        events(metrics.OVERLOADS),
    ),
    Declared(
        "WriteQueueNearLimit",
        "fsm-agent",
        "Nearly as many writes wait for the disk as may.",
        "{{ $value | humanizePercentage }} of writes.max_queue or more wait, for [window] and longer; beyond it none is taken.",
        share_of_limit(metrics.WRITES_WAITING, metrics.QUEUE_LIMIT),
    ),
    Declared(
        "WriteSlow",
        "fsm-agent",
        "Writes of the agent's state take long.",
        "one write in a hundred took longer than {{ $value | humanizeDuration }} in [window], most likely for its fsync.",
        slowest_hundredth(metrics.WRITE_SECONDS),
    ),
    Declared(
        "StateStale",
        "fsm-agent",
        "An agent has not written its state for a while.",
        "no write for {{ $value | humanizeDuration }}, and health.update_expected says that this is abnormal.",
        lambda limits, _: Where(
            By("max", Age(select(metrics.LAST_UPDATE))), Condition(Gauge(select(metrics.UPDATE_EXPECTED)), ">", 0)
        ),
    ),
    Declared(
        "StuckInFaultState",
        "fsm-agent",
        "An agent stays in a fault state.",
        "its current state is one of fsm.fault_states, and it has not left them for [window] and longer.",
        lowest(metrics.FAULT_STATE),
    ),
    Declared(
        "StateStalled",
        "fsm-agent",
        "An agent stays in a state for longer than it may.",
        "it is in its current state for longer than fsm.max_dwell allows, and has not left it for [window] and longer.",
        lowest(metrics.STATE_STALLED),
    ),
    Declared(
        "AgentLost",
        "fsm-agent",
        "An agent has gone silent, and its last will was due.",
        "[count] times in [window] the agent's heartbeat did not come in time; its last will was {{ $labels.outcome }}.",
        events(metrics.LAST_WILLS, "outcome", outcome=("executed", "refused", "failed")),
    ),
    Declared(
        "Flapping",
        "fsm-agent",
        "An agent changes its state all the time.",
        "{{ $value | humanize }} transitions a second over [window].",
        lambda limits, _: total(select(metrics.TRANSITIONS), "rate", limits.window_seconds),
    ),
    Declared(
        "SubscriberEvicted",
        "fsm-webhooks",
        "A subscriber was evicted and hears nothing any more.",
        "[count] subscribers evicted in [window] ({{ $labels.reason }}). Registering one again resumes it.",
        events(metrics.EVICTIONS, "reason", reason=("failing", "gone")),
    ),
    Declared(
        "SubscriberSuspended",
        "fsm-webhooks",
        "A subscriber is suspended: it is only probed.",
        "[count] subscribers have failed so long that they are only probed, with the newest state. Those of the config file "
        "are never evicted: they stay like this.",
        lowest(metrics.SUBSCRIBERS, status="suspended"),
    ),
    Declared(
        "SubscriberLagging",
        "fsm-webhooks",
        "A subscriber is far behind.",
        "the subscriber furthest behind has not acknowledged [count] revisions, for [window] and longer. Beyond its max_lag "
        "it skips revisions.",
        lowest(metrics.LAG_MAX),
    ),
    Declared(
        "SubscribersNearLimit",
        "fsm-webhooks",
        "The places for subscribers are nearly used up.",
        "{{ $value | humanizePercentage }} of store.max_subscribers are taken; beyond it registrations are refused.",
        lambda _, __: Ratio(
            By("sum", Gauge(select(metrics.SUBSCRIBERS, status=other_than("evicted")))),
            By("max", Gauge(select(metrics.SUBSCRIBERS_LIMIT))),
        ),
    ),
    Declared(
        "SubscriptionsRejected",
        "fsm-webhooks",
        "A registration of a subscriber was refused.",
        "[count] registrations refused in [window] ({{ $labels.reason }}).",
        events(metrics.SUBSCRIPTIONS_REJECTED, "reason"),
    ),
    Declared(
        "WebhookFailuresHigh",
        "fsm-webhooks",
        "Many attempts at webhooks fail.",
        "{{ $value | humanizePercentage }} of the attempts in [short] failed, and too many in [long].",
        in_both_windows(failure_share, FAILED_ATTEMPTS),
    ),
    Declared(
        "WebhookGaps",
        "fsm-webhooks",
        "A subscriber was told of a gap: it will not get some revisions.",
        "[count] deliveries in [window] told of a gap ({{ $labels.reason }}).",
        events(metrics.GAPS, "reason"),
    ),
    Declared(
        "WebhookSlotsNearLimit",
        "fsm-webhooks",
        "Nearly as many attempts at webhooks are under way as may.",
        "{{ $value | humanizePercentage }} of webhooks.max_in_flight or more are in use, for [window] and longer: others wait.",
        share_of_limit(metrics.IN_FLIGHT, metrics.IN_FLIGHT_LIMIT),
    ),
    Declared(
        "PropagationSlow",
        "fsm-webhooks",
        "A new state takes long to reach its subscribers.",
        "one delivery in a hundred took longer than {{ $value | humanizeDuration }} from the write to the 2xx in [window].",
        slowest_hundredth(metrics.PROPAGATION_SECONDS),
    ),
    Declared(
        "StorageErrors",
        "fsm-agent",
        "The journal could not be written.",
        "[count] commits or checkpoints failed in [window] ({{ $labels.kind }}). After an error other than full the sidecar "
        "takes no more writes until it is started again.",
        events(metrics.STORAGE_ERRORS, "kind"),
    ),
    Declared(
        "DiskLow",
        "fsm-agent",
        "The journal's disk is nearly full.",
        "the room left is {{ $value | humanize }} times journal.min_free; below it writes are refused.",
        lambda limits, _: Ratio(
            By("max", OverTime("max", select(metrics.FREE_BYTES), limits.window_seconds)),
            By("max", Gauge(select(metrics.RESERVE_BYTES))),
        ),
    ),
    Declared(
        "ConfigInvalid",
        "fsm-fleet",
        "A sidecar's config file cannot be loaded: its next start would fail.",
        "the config file as it is now cannot be loaded; what runs is the old one. fsm-sidecar check-config says why.",
        highest(metrics.CONFIG_VALID),
    ),
    Declared(
        "ErrorsLogged",
        "fsm-agent",
        "A sidecar has logged errors.",
        "[count] log lines of level {{ $labels.level }} in [window].",
        events(metrics.LOG_MESSAGES, "level", level=("error", "critical")),
    ),
    Declared(
        "EventLoopBlocked",
        "fsm-fleet",
        "A sidecar did nothing else for a while: its event loop was blocked.",
        "for {{ $value | humanizeDuration }} nothing else could run, neither a write nor a probe.",
        highest(metrics.LOOP_LAG),
    ),
    Declared(
        "SeriesBudgetExceeded",
        "fsm-fleet",
        "A sidecar exposes more series than planned.",
        "[count] samples in one scrape. States, writers, subscribers and routes are what multiplies them.",
        lambda limits, _: Where(By("max", OverTime("max", select(SCRAPED_SAMPLES), limits.window_seconds)), SIDECARS),
    ),
)
