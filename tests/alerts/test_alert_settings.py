"""The thresholds: one file of the package, changed by what a file of the user says; a mistake has its place and its mend."""

import promql_parser
import pytest
import yaml

from sidecar.alerts import grafana, prometheus
from sidecar.alerts.catalogue import alerts
from sidecar.alerts.settings import DEFAULTS, load
from sidecar.errors import ConfigError
from sidecar.units import Seconds


@pytest.fixture
def file(tmp_path):
    """A file of thresholds; call it with the text to get the path."""

    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def problems(file):
    """The problems of a text, without the folder of the file."""

    def read(text):
        path = file(text)
        with pytest.raises(ConfigError) as refusal:
            load(path)
        return [problem.removeprefix(path.removesuffix("mine.yaml")) for problem in refusal.value.problems]

    return read


def rule(settings, name):
    rules = yaml.safe_load(prometheus.rules_file(settings))["groups"][0]["rules"]
    (found,) = [each for each in rules if each.get("alert") == f"FsmSidecar{name}"]
    return found


def test_the_package_gives_every_number(file):
    """A copy of its file, and an empty one, change nothing."""
    assert load(None) == load(str(DEFAULTS)) == load(file("")) == load(file("alerts: {}"))


def test_what_a_file_says_changes_that_only(file):
    """In the rules of both kinds; what it does not say stays."""
    settings = load(file("alerts: {SubscriberLagging: {above: 500, for: 1m, severity: info}}"))
    changed = rule(settings, "SubscriberLagging")
    assert changed["expr"].endswith(" > 500")
    assert "[5m]" in changed["expr"]
    assert ("1m", "info") == (changed["for"], changed["labels"]["severity"])
    assert {**load().alerts, "SubscriberLagging": settings.alerts["SubscriberLagging"]} == settings.alerts
    assert "params:\n                      - 500\n" in grafana.rules_file(settings)


def test_a_threshold_may_be_a_fraction(file):
    settings = load(file("alerts: {VersionConflictsHigh: {above: 0.025}, DiskLow: {below: 1.5}}"))
    assert rule(settings, "VersionConflictsHigh")["expr"].endswith(" > 0.025")
    assert rule(settings, "DiskLow")["expr"].endswith(" < 1.5")


def test_windows_take_the_recorded_ratios_with_them(file):
    """Another window is another recording rule, and the text says it."""
    settings = load(file("alerts: {VersionConflictsHigh: {short: 2m, long: 3h}}"))
    text = prometheus.rules_file(settings)
    assert "record: pod:fsm_version_conflicts:ratio_rate2m" in text
    assert "record: pod:fsm_version_conflicts:ratio_rate3h" in text
    assert "record: pod:fsm_version_conflicts:ratio_rate1h" not in text
    assert "rejected, and too many in 3h" in rule(settings, "VersionConflictsHigh")["annotations"]["description"]


def test_grafana_counts_in_tens_of_seconds(file):
    """It would refuse the whole file; Prometheus takes any interval."""
    settings = load(file("interval: 15s"))
    assert "interval: 15s" in prometheus.rules_file(settings)
    with pytest.raises(ConfigError, match="15s is no multiple of 10s"):
        grafana.rules_file(settings)


def test_an_alert_can_be_left_out(file):
    """Such as those that other rules of the cluster have already; what only it recorded goes with it."""
    settings = load(file("alerts: {Down: {enabled: false}, WebhookFailuresHigh: {enabled: false}}"))
    names = {alert.name for alert in alerts(settings)}
    assert {alert.name for alert in alerts(load())} - names == {"FsmSidecarDown", "FsmSidecarWebhookFailuresHigh"}
    assert "fsm_webhook_failures" not in prometheus.rules_file(settings)
    assert "FsmSidecarDown" not in grafana.rules_file(settings)


def test_pages_dashboards_and_targets_can_be_elsewhere(file):
    """A base URL may end with a slash or not."""
    text = (
        'runbooks: https://wiki.example.org/fsm\ngrafana: https://grafana.example.org/\ntarget: \'job=~"agents", env!="dev"\'\n'
    )
    settings = load(file(text + "interval: 1m\ndatasource: prom-1\n"))
    down = rule(settings, "Down")
    assert down["annotations"]["runbook_url"] == "https://wiki.example.org/fsm/fsmsidecardown.md"
    assert down["annotations"]["dashboard_url"].startswith("https://grafana.example.org/d/fsm-fleet?")
    assert 'up{job=~"agents", env!="dev"}' in down["expr"]
    promql_parser.parse(down["expr"])
    assert "datasourceUid: prom-1" in grafana.rules_file(settings)
    assert settings.interval_seconds == Seconds(60)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("alert: {}", "1: alert: unknown key; did you mean alerts?"),
        ("alerts:\n  Dwon: {for: 1m}", "2: alerts.Dwon: unknown key; did you mean Down?"),
        (
            "alerts: {Down: {above: 1}}",
            "1: alerts.Down.above: unknown key; known here: below, for, severity, enabled",
        ),
        ("alerts: {FsmSidecarDown: {for: 1m}}", "1: alerts.FsmSidecarDown: unknown key; here it is Down, without FsmSidecar"),
        ("alerts: {Down: {for: 500ms}}", '1: alerts.Down.for: expected whole seconds, at most 365d, got "500ms"'),
        (
            "alerts: {Unhealthy: {window: 9999d}}",
            '1: alerts.Unhealthy.window: expected whole seconds, at most 365d, got "9999d"',
        ),
        ("runbooks: 'https://a/{{x}}'", "1: runbooks: expected an http:// or https:// URL, got text that is not shown here"),
        (
            "target: 'job=~\"(a\"'",
            "1: target: expected a regular expression after ~ (missing ), unterminated subpattern at position 0),"
            ' got "job=~"(a""',
        ),
        (
            "alerts: {Down: {for: 5}}",
            "1: alerts.Down.for: expected a duration such as 250ms, 5s, 15m, 24h or 7d, got 5",
        ),
        (
            "alerts: {Unhealthy: {window: 0s}}",
            '1: alerts.Unhealthy.window: expected whole seconds, at least 1s, got "0s"',
        ),
        (
            "alerts: {Down: {severity: page}}",
            '1: alerts.Down.severity: expected one of critical, warning, info, got "page"',
        ),
        ("alerts: {Down: {below: -1}}", "1: alerts.Down.below: expected a number of at least 0, got -1"),
        ("alerts: {Down: {below: true}}", "1: alerts.Down.below: expected a number of at least 0, got true"),
        ("alerts: {Down: {enabled: off}}", '1: alerts.Down.enabled: expected true or false, got "off"'),
        ("alerts: [Down]", "1: alerts: expected keys and values, got a list"),
        ("- Down", "1: expected keys and values, got a list"),
        ("runbooks: docs", '1: runbooks: expected an http:// or https:// URL, got "docs"'),
        ("runbooks: ''", '1: runbooks: expected an http:// or https:// URL, got ""'),
        (
            "target: 'job=\"x'",
            '1: target: expected what goes between braces in PromQL, such as \'job="agents"\', got "job="x"',
        ),
        (
            "alerts: {VersionConflictsHigh: {short: 2h}}",
            "1: alerts.VersionConflictsHigh.short: 2h is not shorter than long, 1h",
        ),
    ],
)
def test_a_mistake_has_its_place_and_its_mend(problems, text, problem):
    assert [f"mine.yaml:{problem}"] == problems(text)


def test_all_mistakes_are_told_at_once(problems):
    assert len(problems("grafana: 7\nalerts:\n  Down: {for: x, severity: y}\n  Up: {}\n")) == 4


def test_a_file_that_is_not_there_is_a_mistake(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load(str(tmp_path / "none.yaml"))


def test_every_number_says_what_it_is():
    """The file is all that a user sees of them: each key at the top is explained, and each kind of key in its head."""
    text = DEFAULTS.read_text()
    head = text[: text.index("\nrunbooks:")]
    assert all(f"`{key}`" in head for key in ("above", "window", "short", "long", "for", "at_least"))
    assert all("#" in line for line in text.splitlines() if line and line[0].isalpha() and not line.startswith("alerts:"))
