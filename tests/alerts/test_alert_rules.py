"""The rules for Prometheus: every alert is quiet, fires and is quiet again, with what a person then reads."""

import subprocess
from pathlib import Path

import promtool
import pytest
from scenarios import ONCE, SCENARIOS

from sidecar.alerts import prometheus
from sidecar.alerts.alert import PREFIX
from sidecar.alerts.catalogue import alerts
from sidecar.alerts.settings import load

HERE = Path(__file__).parents[2]
SETTINGS = load()
ALERTS = {alert.name.removeprefix(PREFIX): alert for alert in alerts(SETTINGS)}
TREES = {name: prometheus.tree(SETTINGS, [alert]) for name, alert in ALERTS.items()}


def last_rule(tree):
    """The alert in a file of one."""
    return tree["groups"][0]["rules"][-1]


def test_every_alert_has_its_stories():
    """One in which it fires; another with a single event where it does not wait."""
    assert list(ALERTS) == list(SCENARIOS)
    assert {name for name, alert in ALERTS.items() if not alert.limits.for_seconds} == set(ONCE)


each_target = pytest.mark.parametrize("target", promtool.TARGETS, ids=lambda target: target.name)
"""With and without a cluster: as a pod, behind a service, written down."""


@each_target
def test_alerts_fire_and_fall_silent(target, tmp_path):
    """However the sidecar was found."""
    trials = [promtool.Trial(name, tree, promtool.stories(name, last_rule(tree), target)) for name, tree in TREES.items()]
    assert promtool.failures(promtool.start(tmp_path, trials)) == ""


@each_target
def test_a_sidecar_is_not_taken_for_its_neighbour(target, tmp_path):
    """An alert is about the one that it names, also where all that tells the two apart is their address."""
    trials = [promtool.Trial(name, tree, promtool.beside(name, last_rule(tree), target)) for name, tree in TREES.items()]
    assert promtool.failures(promtool.start(tmp_path, trials)) == ""


def test_promtool_accepts_the_committed_file():
    """As it is, without a warning."""
    promtool.needed()
    file = HERE / "grafana/prometheus/fsm-sidecar-rules.yaml"
    check = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert (0, "") == (check.returncode, check.stderr)
