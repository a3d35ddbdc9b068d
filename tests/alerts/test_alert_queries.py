"""What the alerts ask for exists, and whatever asks for something else is refused where it is written."""

import promql
import pytest

from sidecar import metrics
from sidecar.alerts.alert import PREFIX
from sidecar.alerts.catalogue import DECLARED, alerts
from sidecar.alerts.expression import By, Gauge, OverTime, Quantile, Rise
from sidecar.alerts.selector import IDENTITY, Matcher, other_than, select
from sidecar.alerts.settings import load
from sidecar.units import Seconds

ALERTS = {alert.name.removeprefix(PREFIX): alert for alert in alerts(load())}
FIVE_MINUTES = Seconds(300)


@pytest.mark.parametrize("name", ALERTS)
def test_what_is_asked_for_exists(name):
    """Metrics, labels and their values, with counters inside a rate only; nothing of the layer that repeats the store."""
    expr = ALERTS[name].condition.promql(inline=True)
    assert [] == promql.problems(expr) + promql.label_problems(expr)
    assert "fsm_store_" not in expr


@pytest.mark.parametrize("name", ALERTS)
def test_its_texts_are_whole(name):
    """A sentence for the summary, nothing left in brackets, and only labels that the query has."""
    alert = ALERTS[name]
    assert alert.summary.endswith(".")
    assert "{{" not in alert.summary
    assert "[" not in alert.description.replace("[count]", "")
    own = [label for label in ("writer", "outcome", "reason", "kind", "level") if f"$labels.{label}" in alert.description]
    by = ", ".join((*IDENTITY, *own))
    assert f"by ({by})" in alert.condition.promql(inline=True)


def test_names_are_told_once():
    """No two alerts have one name; the order of the thresholds is free."""
    assert len({each.name for each in DECLARED}) == len(DECLARED)
    assert {each.name for each in DECLARED} == set(load().alerts)


def test_a_label_that_the_family_has_not_is_refused():
    with pytest.raises(ValueError, match="fsm_version_conflicts_total has no label outcome"):
        select(metrics.CONFLICTS, outcome="rejected")


def test_a_value_that_a_label_never_has_is_refused():
    with pytest.raises(ValueError, match="reason is never tired; it is one of failing, gone, unconfigured"):
        select(metrics.EVICTIONS, reason=("failing", "tired"))


def test_a_family_that_is_not_in_the_catalogue_is_refused():
    with pytest.raises(ValueError, match="fsm_moods is not in the catalogue"):
        select(metrics.Family("fsm_moods", "gauge", "Nobody tells."))


def test_a_counter_has_no_value_of_its_own():
    """What it has counted since some start means nothing."""
    for question in (Gauge(select(metrics.SETS)), OverTime("max", select(metrics.SETS), FIVE_MINUTES)):
        with pytest.raises(ValueError, match="only means something inside a rate"):
            question.promql()


def test_a_gauge_has_no_rate():
    with pytest.raises(ValueError, match="fsm_version is a gauge: it has no rate"):
        Rise("rate", select(metrics.VERSION), FIVE_MINUTES).promql()


def test_only_a_histogram_has_quantiles():
    with pytest.raises(ValueError, match="fsm_sets_total is a counter: it has no buckets"):
        Quantile(0.99, select(metrics.SETS), FIVE_MINUTES).promql()


def test_a_selector_says_which_values_match():
    """One, some of them, all but one, all but some."""
    for wanted, text in (
        ("gone", '{reason="gone"}'),
        (("failing", "gone"), '{reason=~"failing|gone"}'),
        (other_than("gone"), '{reason!="gone"}'),
        (other_than("failing", "gone"), '{reason!~"failing|gone"}'),
    ):
        assert f"fsm_subscribers_evicted_total{text}" == select(metrics.EVICTIONS, reason=wanted).promql()
        matcher = select(metrics.EVICTIONS, reason=wanted).matchers[0]
        assert [reason for reason in metrics.EVICTIONS.labels[0].values if matcher.matches({"reason": reason})] == {
            "gone": ["gone"],
            ("failing", "gone"): ["failing", "gone"],
            other_than("gone"): ["failing", "unconfigured"],
            other_than("failing", "gone"): ["unconfigured"],
        }[wanted]


def test_a_label_that_is_not_there_is_empty():
    assert not Matcher("reason", ("gone",)).matches({})
    assert Matcher("reason", ("gone",), negated=True).matches({})


def test_sums_are_by_what_names_the_sidecar():
    question = By("sum", Rise("increase", select(metrics.REWRITES), FIVE_MINUTES), ("writer",))
    assert "sum by (cluster, namespace, pod, instance, writer) (increase(fsm_version_rewrites_total[5m]))" == question.promql()
