"""The rules for Grafana: the same alerts as for Prometheus, in a file as its provisioning reads it."""

import json
import re
from pathlib import Path

import jsonschema
import promtool
import pytest
import yaml

from sidecar.alerts import grafana, prometheus
from sidecar.alerts.alert import PREFIX
from sidecar.alerts.catalogue import alerts
from sidecar.alerts.settings import load

HERE = Path(__file__).parents[2]
SETTINGS = load()
TEXT = grafana.rules_file(SETTINGS)
TREE = yaml.safe_load(TEXT)
(GROUP,) = TREE["groups"]
RULES = {rule["title"].removeprefix(PREFIX): rule for rule in GROUP["rules"]}
THEIRS = {alert.name.removeprefix(PREFIX): prometheus.tree(SETTINGS, [alert])["groups"][0] for alert in alerts(SETTINGS)}

KEYS = {
    "group": {"orgId": int, "name": str, "folder": str, "interval": str, "rules": list},
    "rule": {
        "uid": str,
        "title": str,
        "condition": str,
        "data": list,
        "noDataState": str,
        "execErrState": str,
        "for": str,
        "annotations": dict,
        "labels": dict,
        "dashboardUid": str,
        "isPaused": bool,
    },
    "query": {"refId": str, "relativeTimeRange": dict, "datasourceUid": str, "model": dict},
}
"""As Grafana's files spell them, which its API does not. What is spelt otherwise, Grafana drops without a word."""


def types(tree):
    return {key: type(value) for key, value in tree.items()}


def test_keys_are_spelt_as_in_files():
    """All of them, and no others; neither contact points nor policies, which would replace those of the user."""
    assert {"apiVersion": 1, "groups": [GROUP]} == TREE
    assert KEYS["group"] == types(GROUP)
    for rule in RULES.values():
        assert KEYS["rule"] == types(rule)
        assert [KEYS["query"]] * 2 == [types(query) for query in rule["data"]]


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_one_query_and_its_threshold(name):
    """The query compares nothing at its outside, so that Grafana can show the value."""
    rule = RULES[name]
    query, threshold = rule["data"]
    assert ("A", "fsm-prometheus", True) == (query["refId"], query["datasourceUid"], query["model"]["instant"])
    assert ("C", "__expr__", "C") == (threshold["refId"], threshold["datasourceUid"], rule["condition"])
    assert ("threshold", "A") == (threshold["model"]["type"], threshold["model"]["expression"])
    assert "datasource" not in query["model"]
    assert query["relativeTimeRange"]["from"] > query["relativeTimeRange"]["to"]


@pytest.mark.parametrize(("ref", "file", "definition"), [("A", "prometheus", "Dataquery"), ("C", "expr", "TypeThreshold")])
def test_queries_are_as_grafana_publishes_them(ref, file, definition):
    """Checked where its schemas lie beside the repository; they are not part of it. It has a place for `refId` elsewhere."""
    path = HERE.parent / "shared/schemas/grafana" / f"{file}.jsonschema.json"
    if not path.exists():
        print(f"not checked, for there is no {path.name} in ../shared/schemas/grafana")
        return
    checker = jsonschema.Draft7Validator(json.loads(path.read_text()) | {"$ref": f"#/definitions/{definition}"})
    for rule in RULES.values():
        (model,) = [query["model"] for query in rule["data"] if query["refId"] == ref]
        assert [] == [error.message for error in checker.iter_errors(model)]


def test_uids_are_short_and_their_own():
    """At most 40 characters, and the same for ever: they are made of the name."""
    uids = [rule["uid"] for rule in RULES.values()]
    assert [f"{PREFIX}{name}".lower() for name in RULES] == uids
    assert all(re.fullmatch(r"[a-z0-9_-]{1,40}", uid) for uid in uids)


def test_no_result_is_no_alert():
    """And Prometheus itself being away is told by one alert, not by each."""
    states = {(rule["noDataState"], rule["execErrState"]) for name, rule in RULES.items() if name != "Down"}
    assert {("OK", "KeepLast")} == states
    assert ("NoData", "Error") == (RULES["Down"]["noDataState"], RULES["Down"]["execErrState"])


def test_grafana_finds_no_variable_of_its_environment_to_expand():
    """It looks for $NAME in all texts but queries and annotations, and for ${NAME} in annotations."""
    for rule in RULES.values():
        assert not any("${" in text for text in rule["annotations"].values())
        others = {key: value for key, value in rule.items() if key not in ("annotations", "data")}
        assert "$" not in str(others)
    assert {"fsm-prometheus", "__expr__"} == {query["datasourceUid"] for rule in RULES.values() for query in rule["data"]}


@pytest.mark.parametrize("name", THEIRS)
def test_both_say_the_same(name):
    """Name, time to wait, labels, texts, pages; `$value` has another name in Grafana."""
    theirs, ours = THEIRS[name]["rules"][-1], RULES[name]
    same = {key: value.replace("$values.A.Value", "$value") for key, value in ours["annotations"].items()}
    assert theirs["annotations"] == same
    assert (theirs["alert"], theirs["for"], theirs["labels"]) == (ours["title"], ours["for"], ours["labels"])
    assert f"/d/{ours['dashboardUid']}?" in same["dashboard_url"]
    assert THEIRS[name]["interval"] == GROUP["interval"]


@pytest.mark.parametrize("name", THEIRS)
def test_both_ask_the_same(name):
    """The query and the threshold together are the rule of Prometheus with what it records written out."""
    *kept, theirs = THEIRS[name]["rules"]
    expr = theirs["expr"]
    for recording in kept:
        expr = expr.replace(recording["record"], f"({recording['expr']})")
    assert normal(expr) == normal(compared(RULES[name]))


def compared(rule):
    """The rule as one expression of PromQL."""
    query, threshold = (each["model"] for each in rule["data"])
    (evaluator,) = [each["evaluator"] for each in threshold["conditions"]]
    (limit,) = evaluator["params"]
    return f"({query['expr']}) { {'gt': '>', 'lt': '<'}[evaluator['type']] } {limit}"


def normal(expr):
    """Without spaces, and without brackets around all that is compared."""
    left, sign, limit = re.fullmatch(r"(.*?) ([<>]) ([0-9.]+)", expr, re.S).groups()
    left = "".join(left.split())
    return f"{left.removeprefix('(').removesuffix(')')}{sign}{limit}" if whole(left) else f"{left}{sign}{limit}"


def whole(text):
    """Whether the first bracket closes at the end."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return place == len(text) - 1
    return False


def test_they_fire_and_fall_silent_too(tmp_path):
    """Query and threshold of each, evaluated by Prometheus."""
    trials = []
    for name, rule in RULES.items():
        annotations = {key: text.replace("$values.A.Value", "$value") for key, text in rule["annotations"].items()}
        theirs = {"alert": rule["title"], "expr": compared(rule), "annotations": annotations}
        theirs |= {key: rule[key] for key in ("for", "labels")}
        tree = {"groups": [{"name": "grafana", "rules": [theirs]}]}
        trials.append(promtool.Trial(name, tree, promtool.stories(name, theirs, promtool.TARGETS[0])))
    assert promtool.failures(promtool.start(tmp_path, trials)) == ""


@pytest.mark.parametrize("kind", [prometheus, grafana], ids=["prometheus", "alerting"])
def test_the_committed_file_is_what_the_package_gives(kind):
    """`make grafana` writes it."""
    folder = {prometheus: "prometheus", grafana: "alerting"}[kind]
    assert (HERE / "grafana" / folder / "fsm-sidecar-rules.yaml").read_text() == kind.rules_file(SETTINGS)
