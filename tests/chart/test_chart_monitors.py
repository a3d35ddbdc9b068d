"""Who scrapes the sidecar, and what an installation tells of that."""

import re

import pytest
import yaml
from helms import CHART, NEWEST, OPERATOR, ROOT, helm, only, rendered, values
from matrix import flags
from pods import pod, sidecar

DEMO = ("--set", "demo.enabled=true")
CLASSIC = ("--values", CHART / "ci" / "classic.yaml")


def targets():
    """What the alerts know targets by."""
    thresholds = yaml.safe_load((ROOT / "sidecar/alerts/thresholds.yaml").read_text())
    return re.compile(re.fullmatch(r'job=~"(.*)"', thresholds["target"])[1])


@pytest.mark.parametrize("name", [{}, {"fullnameOverride": "watch"}, {"nameOverride": "state"}, {"fullnameOverride": "x" * 80}])
def test_the_alerts_know_the_targets_by_their_job(name, tmp_path):
    """Which is `namespace/name` of a PodMonitor, and the name of its Service for a ServiceMonitor, whatever that is."""
    tree = {"demo": {"enabled": True}, **name}
    by_pod = only("PodMonitor", rendered(*OPERATOR, *values(tmp_path, **tree)))
    by_service = rendered(*OPERATOR, *values(tmp_path, **tree, monitoring={"scrape": "serviceMonitor"}))

    assert "jobLabel" not in by_pod["spec"]
    assert targets().fullmatch(f"agents/{by_pod['metadata']['name']}")
    assert targets().fullmatch(only("Service", by_service)["metadata"]["name"])
    assert "jobLabel" not in only("ServiceMonitor", by_service)["spec"]


def matches(selector, labels):
    return selector["matchLabels"].items() <= labels.items()


def test_a_monitor_finds_the_pods_of_the_demo_and_of_parent_charts(parent):
    """In all namespaces, by a label and the name of the port."""
    monitor = only("PodMonitor", rendered(*flags("alone")))["spec"]
    for objects in (rendered(*DEMO), rendered(chart=parent), rendered(*CLASSIC)):
        container, _ = sidecar(objects)
        assert matches(monitor["selector"], pod(objects)["metadata"]["labels"])
        assert [container["ports"][0]["name"]] == [endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]]
    assert {"any": True} == monitor["namespaceSelector"]


def test_a_monitor_of_a_parent_chart_finds_its_own_pods_only(parent):
    """So that two of them never scrape one pod twice."""
    watch = (*OPERATOR, "--set", "fsm-sidecar.monitoring.enabled=true")
    mine, other = (rendered(*watch, chart=parent, release=release) for release in ("robot", "rover"))
    monitor = only("PodMonitor", mine)["spec"]

    assert "namespaceSelector" not in monitor
    assert matches(monitor["selector"], pod(mine)["metadata"]["labels"])
    assert not matches(monitor["selector"], pod(other)["metadata"]["labels"])


def test_a_service_finds_the_pod_also_while_it_is_not_ready():
    """Its metrics matter most then; the ServiceMonitor finds the Service, and no other object."""
    objects = rendered(*flags("classic"))
    service = only("Service", objects)

    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"].items() <= pod(objects)["metadata"]["labels"].items()
    assert matches(only("ServiceMonitor", objects)["spec"]["selector"], service["metadata"]["labels"])


def test_what_prometheus_selects_by_is_on_its_objects():
    """kube-prometheus-stack looks for its own release."""
    for each in rendered(*flags("alone")):
        if each["apiVersion"].startswith("monitoring"):
            assert "kube-prometheus-stack" == each["metadata"]["labels"]["release"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            "demo.enabled=true,monitoring.operator=true",
            ["StatefulSet robot-fsm-sidecar", "podMonitor robot-fsm-sidecar", "helm -n x test robot"],
        ),
        ("demo.enabled=false", ["this release only watches", "does not know Prometheus Operator's kinds", "docs/deploy.md"]),
        ("monitoring.enabled=false", ["not installed: monitoring.enabled is false"]),
        (
            "alerts.flavour=both,monitoring.operator=true",
            ["paged twice", "PrometheusRule robot-fsm-sidecar", "-grafana-alerts"],
        ),
    ],
)
def test_the_notes_tell_what_is_there_and_what_comes_next(settings, told):
    """And what is not, and why."""
    said = helm(NEWEST, "install", "robot", CHART, "--namespace", "x", "--dry-run=client", "--set", settings)
    notes = said.stdout.partition("NOTES:")[2]

    assert [] == [words for words in told if words not in notes]
