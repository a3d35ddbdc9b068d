"""Rules and dashboards, as they come out of the chart."""

import json
import subprocess

import pytest
import yaml
from helms import ROOT, each_helm, only, rendered
from matrix import flags

GRAFANA = ROOT / "grafana"


def boards(objects):
    return {
        name: text
        for each in objects
        if each["kind"] == "ConfigMap"
        for name, text in each["data"].items()
        if name.endswith(".json")
    }


@each_helm
def test_the_rules_are_those_of_grafana(version):
    """Nothing of their own templates was taken for one of Helm's; Grafana's ask the datasource that the values name."""
    objects = rendered(*flags("forced"), "--set", "alerts.runbookBaseUrl=", version=version)
    prometheus = yaml.safe_load((GRAFANA / "prometheus/fsm-sidecar-rules.yaml").read_text())
    grafana = (GRAFANA / "alerting/fsm-sidecar-rules.yaml").read_text().replace("fsm-prometheus", "prometheus")
    data = only("ConfigMap", objects, "-grafana-alerts")["data"]

    assert prometheus == only("PrometheusRule", objects)["spec"]
    assert [yaml.safe_load(grafana)] == [yaml.safe_load(text) for text in data.values()]


@each_helm
def test_promtool_takes_the_rules(version, tmp_path):
    """As they are in the object, also with runbooks elsewhere."""
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(only("PrometheusRule", rendered(*flags("forced"), version=version))["spec"]))
    said = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True, check=False)

    assert 0 == said.returncode, said.stderr


@pytest.mark.parametrize("case", ["grafana", "forced"])
def test_runbooks_can_be_elsewhere(case):
    """Every alert of either kind leads to the page of its own name there."""
    for each in rendered(*flags(case)):
        if each["kind"] == "PrometheusRule" or "grafana-alerts" in each["metadata"]["name"]:
            tree = each["spec"] if "spec" in each else yaml.safe_load(next(iter(each["data"].values())))
            alerts = [rule for rule in tree["groups"][0]["rules"] if "annotations" in rule]
            expected = [
                f"https://runbooks.example.org/fsm/{(rule.get('alert') or rule['title']).lower()}.md" for rule in alerts
            ]
            assert expected == [rule["annotations"]["runbook_url"] for rule in alerts]


@each_helm
def test_the_dashboards_are_those_of_grafana(version):
    """Each in a ConfigMap of its own, well below the size that one may have."""
    originals = {path.name: path.read_text() for path in (GRAFANA / "dashboards").glob("*.json")}
    found = boards(rendered(*flags("alone"), version=version))

    assert {name: json.loads(text) for name, text in originals.items()} == {
        name: json.loads(text) for name, text in found.items()
    }
    assert max(len(text) for text in found.values()) < 256 * 1024  # what `kubectl apply` can write into an annotation


def test_dashboards_go_where_grafana_looks():
    """Label, folder, namespace: by default those of Grafana's chart."""
    usual = only("ConfigMap", rendered(*flags("alone")), "fsm-fleet")["metadata"]
    other = only("ConfigMap", rendered(*flags("grafana")), "fsm-fleet")["metadata"]

    assert ("1", "agents") == (usual["labels"]["grafana_dashboard"], usual["namespace"])
    assert {"grafana_folder": "fsm-sidecar"} == usual["annotations"]
    assert ("monitoring", {"grafana_dashboard_folder": "Agents", "owner": "robots"}) == (
        other["namespace"],
        other["annotations"],
    )


@pytest.mark.parametrize(("flavour", "kinds"), [("none", []), ("prometheus", ["p"]), ("grafana", ["g"]), ("both", ["g", "p"])])
def test_alerts_come_in_the_flavour_that_is_asked_for(flavour, kinds):
    """By default Prometheus evaluates them, and nobody is paged twice."""
    objects = rendered(*flags("alone"), "--set", f"alerts.flavour={flavour}")
    found = ["p" for each in objects if each["kind"] == "PrometheusRule"]
    found += ["g" for each in objects if each["metadata"]["name"].endswith("-grafana-alerts")]

    assert kinds == sorted(found)
