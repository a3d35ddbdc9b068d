"""The values: a wrong one ends with a message that says what to do, and what is made from other files is as it has to be."""

import json

import jsonschema
import pytest
import yaml
from helms import CHART, OPERATOR, each_helm, only, refused, rendered, values
from helms import helm as run

from helm.build import copies, readme, schema

DEMO = {"demo": {"enabled": True}}
SECRET = "/run/secrets/fsm-sidecar/console/secret"
SUBSCRIBER = {"id": "console", "url": "http://console.ops.svc/hook"}

WRONG = {
    "a key of the chart that is misspelt": ({"podMonitor": {}}, "podMonitor"),
    "one further down": ({"sidecar": {"natve": True}}, "natve"),
    "a key of the sidecar that is misspelt": ({"config": {"webhooks": {"retries": 3}}}, "retries"),
    "a duration without a unit": ({"config": {"webhooks": {"timeout": 5}}}, "timeout"),
    "a size that is none": ({"config": {"writes": {"max_body": "256K"}}}, "max_body"),
    "a number out of bounds": ({"config": {"fsm": {"history_limit": 1001}}}, "history_limit"),
    "a word that is none of those": ({"config": {"journal": {"backend": "postgres"}}}, "backend"),
    "a state that is none": ({"config": {"fsm": {"states": ["2FAST"]}}}, "states"),
    "a state that YAML 1.1 reads as true": ({"config": {"fsm": {"states": [True]}}}, "states"),
    "a URL that is none": ({"config": {"subscribers": [{"id": "a", "url": "ftp://a"}]}}, "url"),
    "a subscriber without a URL": ({"config": {"subscribers": [{"id": "a"}]}}, "url"),
    "a flavour that is none": ({"alerts": {"flavour": "email"}}, "flavour"),
    "a journal of many writers": ({"journal": {"accessMode": "ReadWriteMany"}}, "accessMode"),
    "secrets that are no names": ({"webhookSecrets": ["Console"]}, "webhookSecrets"),
    "a transition from a state that YAML 1.1 made of ON": (
        {"config": {"fsm": {"states": ["ON", "OFF"], "initial": "ON", "transitions": {True: ["OFF"]}}}},
        'config.fsm.transitions: "true" is not one of fsm.states; put names such as ON',
    ),
    "a grace period that is too short for the config": (
        {"config": {"shutdown": {"drain_delay": "500ms", "flush_timeout": "0.5m", "grace_period": "35500ms"}}},
        "grace_period (35500ms) must be more than drain_delay (500ms) + flush_timeout (0.5m) + 5s for open requests",
    ),
    "a pod that is killed before": (
        {"terminationGracePeriodSeconds": 20},
        "config.shutdown.grace_period (30s) is more than terminationGracePeriodSeconds (20)",
    ),
    "probes that nobody can ask": (
        {"config": {"ops": {"listen": "127.0.0.1:8471"}}},
        "config.ops.listen must be reachable from outside the pod",
    ),
    "a journal without a folder": ({"config": {"journal": {"path": "journal.db"}}}, "config.journal.path must begin with /"),
    "a journal over the config": (
        {"config": {"journal": {"path": "/etc/fsm-sidecar/journal.db"}}},
        "config.journal.path needs a folder of its own",
    ),
    "a secret that is not mounted": (
        {"config": {"subscribers": [{**SUBSCRIBER, "secret_file": SECRET}]}},
        "the secret_file of console is in the Secret console; add it to webhookSecrets",
    ),
    "a token that is not mounted": (
        {"config": {"api": {"tokens": [{"name": "agent", "file": SECRET, "scopes": ["admin"]}]}}},
        "the file of agent is in the Secret console; add it to webhookSecrets",
    ),
    "a Service for pods that are not there": (
        {"demo": {"enabled": False}, "monitoring": {"scrape": "serviceMonitor", "operator": True}},
        "write podMonitor, or none",
    ),
}


@each_helm
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_refused(version, name, tmp_path):
    """With a message that names it."""
    tree, message = WRONG[name]

    assert message in refused(*values(tmp_path, **{**DEMO, **tree}), version=version).replace('\\"', '"')


@each_helm
def test_all_wrong_values_are_told_at_once(version, tmp_path):
    """Those that the schema knows."""
    told = refused(*values(tmp_path, sidecar={"natve": True}, alerts={"flavour": "email"}), version=version)

    assert "natve" in told
    assert "flavour" in told


@each_helm
def test_a_parent_chart_may_share_values(version, parent):
    """`global` and `enabled` come to every dependency."""
    said = run(version, "template", "robot", parent, "--set", "global.team=robots,fsm-sidecar.enabled=true")

    assert ("", 0) == (said.stderr, said.returncode)


@each_helm
@pytest.mark.parametrize("template", ["container", "initContainer", "volumes", "podLabels", "podAnnotations", "agentEnv"])
@pytest.mark.parametrize("scope", [".", "$", ".Values", '(index .Values "fsm-sidecar")', "dict", "nil"])
def test_a_wrong_scope_is_refused(version, template, scope, parent):
    """Instead of half a container: the message says what to write."""
    wrong = parent / "templates" / "wrong.yaml"
    wrong.write_text(f'{{{{- include "fsm-sidecar.{template}" {scope} }}}}\n')
    try:
        told = refused(version=version, chart=parent)
    finally:
        wrong.unlink()

    assert '(index .Subcharts \\"fsm-sidecar\\")' in told or '(index .Subcharts "fsm-sidecar")' in told


# --- what is made ---


def test_the_schema_is_that_of_the_structs():
    """If not: `make chart`."""
    assert schema.text() == schema.FILE.read_text()


def test_the_readme_has_the_values_as_they_are():
    """If not: `make chart`."""
    assert readme.text() == readme.FILE.read_text()


def test_rules_and_dashboards_are_those_of_grafana():
    """Byte for byte, and no others. If not: `make chart`."""
    assert {path: path.read_text() if path.exists() else "" for path in copies.files()} == copies.files()
    assert [] == copies.superfluous()


def test_every_value_is_explained():
    """By a comment above it, or above the branch that it is in."""
    assert [] == [value.key for value in readme.values() if not value.meaning]


def test_every_value_is_known_to_the_schema():
    """And has one that the schema takes; what the schema knows has a default, but for the sidecar's own keys."""
    known = json.loads(schema.FILE.read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    jsonschema.Draft7Validator.check_schema(known)
    jsonschema.validate(defaults, known)

    for name, section in known["properties"].items():
        assert name in defaults
        if name != "config" and "properties" in section:
            assert set(section["properties"]) == set(defaults[name])


def test_the_rules_can_be_ones_of_your_own(tmp_path):
    """Made with thresholds of yours, and given by `--set-file`; a template in them stays what it is."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "groups:\n  - name: mine\n    rules:\n      - {alert: A, expr: up < 1, annotations: {a: '{{ $labels.pod }}'}}\n"
    )
    objects = rendered(*OPERATOR, "--set-file", f"alerts.prometheusRules={rules}")

    assert yaml.safe_load(rules.read_text()) == only("PrometheusRule", objects)["spec"]
