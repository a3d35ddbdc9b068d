"""What the alerts ask: the few forms of a question that most of them have."""

from collections.abc import Callable
from typing import Literal

from sidecar import metrics
from sidecar.alerts.expression import By, Condition, Gauge, Node, OverTime, Quantile, Ratio, Recorded, Rise, Sum, Where
from sidecar.alerts.selector import UP, Selector, Wanted, other_than, select
from sidecar.alerts.settings import Limits, Settings
from sidecar.metrics import Family
from sidecar.units import Seconds

Ask = Callable[[Limits, Settings], Node]

FAILED_ATTEMPTS = select(metrics.ATTEMPTS, outcome=other_than("delivered"))
SIDECARS = Gauge(select(metrics.BUILD))


def total(of: Selector, how: Literal["increase", "rate"], window: Seconds, *labels: str) -> Node:
    """How much or how fast the counters of one sidecar rose together."""
    return By("sum", Rise(how, of, window), labels)


def events(family: Family, *labels: str, **wanted: Wanted) -> Ask:
    """How many there were in the window, one number for each value of the labels."""
    return lambda limits, _: total(select(family, **wanted), "increase", limits.window_seconds, *labels)


def highest(family: Family, **wanted: Wanted) -> Ask:
    """The gauge at its highest in the window."""
    return lambda limits, _: By("max", OverTime("max", select(family, **wanted), limits.window_seconds))


def lowest(family: Family, **wanted: Wanted) -> Ask:
    """The gauge at its lowest in the window."""
    return lambda limits, _: By("min", OverTime("min", select(family, **wanted), limits.window_seconds))


def share_of_limit(used: Family, limit: Family) -> Ask:
    """How much of a limit was used all the time."""
    return lambda limits, _: Ratio(
        By("min", OverTime("min", select(used), limits.window_seconds)), By("max", Gauge(select(limit)))
    )


def slowest_hundredth(family: Family) -> Ask:
    """What one in a hundred exceeded, if there were enough of them to say so."""

    def ask(limits: Limits, _: Settings) -> Node:
        window = limits.window_seconds
        enough = Condition(total(select(family), "increase", window), ">=", limits.at_least)
        return Where(Quantile(0.99, select(family), window), enough)

    return ask


def in_both_windows(share: Callable[[Seconds], Node], counted: Selector) -> Ask:
    """A share that is high now and has been for some time, of more than a few: neither a moment nor one bad write at night."""

    def ask(limits: Limits, _: Settings) -> Node:
        lasting = Where(share(limits.short_seconds), Condition(share(limits.long_seconds), ">", limits.above))
        return Where(lasting, Condition(total(counted, "increase", limits.long_seconds), ">=", limits.at_least))

    return ask


def conflict_share(window: Seconds) -> Node:
    """Rejected writes among all."""
    lost, won = (total(select(family), "rate", window) for family in (metrics.CONFLICTS, metrics.SETS))
    return Recorded(f"pod:fsm_version_conflicts:ratio_rate{window}", Ratio(lost, Sum(won, lost)))


def failure_share(window: Seconds) -> Node:
    """Failed attempts among all."""
    failed, every = (total(selector, "rate", window) for selector in (FAILED_ATTEMPTS, select(metrics.ATTEMPTS)))
    return Recorded(f"pod:fsm_webhook_failures:ratio_rate{window}", Ratio(failed, every))


def targets_up(settings: Settings) -> Node:
    """Whether Prometheus reaches what should be a sidecar."""
    return By("max", Gauge(Selector(UP, targets=settings.target)))
