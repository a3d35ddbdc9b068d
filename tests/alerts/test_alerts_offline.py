"""Alerts judged from scrapes: the same verdicts as Prometheus gives, without one."""

import pytest
from scenarios import BAD, QUIET, SCENARIOS

from sidecar.alerts import offline
from sidecar.alerts.alert import PREFIX
from sidecar.alerts.catalogue import alerts
from sidecar.alerts.scrape import Scrape, Scrapes
from sidecar.alerts.selector import IDENTITY
from sidecar.alerts.settings import load
from sidecar.metrics import CATALOGUE

ALERTS = {alert.name.removeprefix(PREFIX): alert for alert in alerts(load())}
JUDGED = [name for name, alert in ALERTS.items() if not alert.unjudged]
KINDS = {family.name: family.kind for family in CATALOGUE}


def scrape(series, minute):
    """What the sidecar of a story answers at that minute."""
    lines, told = [], set()
    for name, values in series.items():
        family = name.partition("{")[0]
        for part in ("_bucket", "_count"):
            family = family.removesuffix(part) if family.removesuffix(part) in KINDS else family
        if family in KINDS and family not in told:
            lines.append(f"# TYPE {family} {KINDS[family]}")
            told.add(family)
        lines.append(f"{name} {values(minute)}")
    return Scrape.parse("\n".join([*lines, ""]), 60.0 * minute)


def verdict(name, series, minutes):
    before, now = (scrape(series, minute) for minute in minutes)
    (found,) = offline.judge([ALERTS[name]], Scrapes(now, before, 60.0 * (minutes[1] - minutes[0])))
    return found


def minutes_of(name, *, bad):
    """Two moments of a story, in its bad minutes or before them."""
    end = BAD.stop - 1 if bad else BAD.start - 1
    return (end - 35, end) if name != "VersionRegressed" else (BAD.start, BAD.start + 2) if bad else (10, 20)


@pytest.mark.parametrize("name", [name for name in JUDGED if name != "SeriesBudgetExceeded"])
def test_what_fires_in_prometheus_is_true_here(name):
    """With the labels that the alert has of its own, and only in the bad minutes."""
    scenario = SCENARIOS[name]
    bad = verdict(name, scenario.series, minutes_of(name, bad=True))
    assert "" == bad.unjudged
    assert [dict(labels) for labels in bad.beyond] == [dict(scenario.labels)]
    assert {} == verdict(name, scenario.series, minutes_of(name, bad=False)).beyond


@pytest.mark.parametrize("name", [name for name in QUIET if name in JUDGED and name != "SeriesBudgetExceeded"])
def test_what_is_quiet_there_is_not_true_here(name):
    """Over the longest window of the rule, so that events are as few as there."""
    limits = ALERTS[name].limits
    minutes = int(limits.long_seconds or limits.window_seconds or 3600) // 60
    for series in QUIET[name]:
        assert {} == verdict(name, series, (105 - minutes, 105)).beyond


def test_values_are_those_of_prometheus():
    """Shares, rates, ages, quantiles; an increase is not extrapolated here."""
    expected = {
        "VersionConflictsHigh": 0.5,
        "ConflictsMasked": 70,
        "StateStale": 39 * 60 + 40,
        "Flapping": 2,
        "SubscribersNearLimit": 0.9,
        "WriteSlow": 0.04 + 0.06 * 0.99,
        "PropagationSlow": 0.8 + 1.7 * 0.99,
        "DiskLow": 1,
        "WriteQueueNearLimit": 1000 / 1024,
    }
    for name, value in expected.items():
        found = verdict(name, SCENARIOS[name].series, minutes_of(name, bad=True))
        assert [pytest.approx(value)] == list(found.beyond.values()), name


def test_a_scrape_is_counted():
    """Its samples are what Prometheus would say in scrape_samples_scraped."""
    build = 'fsm_build_info{version="1",python="3"} 1\n'
    states = "".join(f'fsm_state{{state="S{number}"}} 0\n' for number in range(2000))
    for text, beyond in ((build + states, {(): 2001.0}), (states + "fsm_version 1\n", {})):
        text = "# TYPE fsm_build_info gauge\n" + text
        (found,) = offline.judge([ALERTS["SeriesBudgetExceeded"]], Scrapes(Scrape.parse(text, 0.0)))
        assert beyond == found.beyond


def test_a_counter_that_fell_has_started_again():
    """What it has counted since then is what it rose."""
    name = 'fsm_version_rewrites_total{writer="other"}'
    found = verdict("ConflictsMasked", {name: {1: 50, 2: 3}.get}, (1, 2))
    assert {(("writer", "other"),): 3.0} == found.beyond


def test_what_needs_a_second_scrape_is_not_judged_by_one():
    """Everything else is."""
    for name in JUDGED:
        now = scrape(SCENARIOS[name].series, BAD.stop - 1)
        (found,) = offline.judge([ALERTS[name]], Scrapes(now))
        rises = any(word in ALERTS[name].condition.promql(inline=True) for word in ("rate(", "increase(", "resets("))
        assert found.unjudged == ("needs two scrapes" if rises else "")


def test_what_the_sidecar_does_not_tell_is_not_judged():
    """A journal in memory has no disk; a counter without a sample yet is told."""
    now = Scrape.parse("# TYPE fsm_transitions_total counter\n", 0.0)
    found = {each.alert.name: each.unjudged for each in offline.judge(ALERTS.values(), Scrapes(now, now, 1.0))}
    assert found["FsmSidecarDiskLow"] == "the sidecar does not tell fsm_journal_disk_free_bytes, fsm_journal_disk_reserve_bytes"
    assert found["FsmSidecarFlapping"] == ""


def test_nothing_is_asked_by_labels_that_only_prometheus_knows():
    """A scrape has no pod: what an alert groups by beside that is a label of the sidecar's own."""
    for name in JUDGED:
        assert not set(SCENARIOS[name].labels) & set(IDENTITY)


@pytest.mark.parametrize(
    "text", ["<html></html>", "fsm_version", "fsm_version{", 'fsm_state{state="A} 1', "fsm_version one", "{} 1 2 3 4"]
)
def test_what_is_no_metric_is_refused(text):
    with pytest.raises(ValueError):
        Scrape.parse(text, 0.0)
