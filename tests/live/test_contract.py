"""What rules, dashboards, runbooks and documents name exists: in the data of a real session, not in a list that we keep."""

import re
from pathlib import Path

import promql
import pytest
import yaml

from live.boards import DASHBOARDS, annotations_of, queries_of, variables_of

ROOT = Path(__file__).parents[2]
RULES = ROOT / "grafana" / "prometheus" / "fsm-sidecar-rules.yaml"
RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "grafana" / "README.md", *sorted((ROOT / "docs").glob("*.md")), *RUNBOOKS]
OF_THE_STORE = {"fsm_handler", "fsm_instance_id"}
"""Words of a snapshot, not metrics."""
NOT_SCRAPED = {"ALERTS", "up", "scrape_samples_scraped", "scrape_duration_seconds"}


def _rules():
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]


def _runbook_queries():
    for path in RUNBOOKS:
        for block in re.findall(r"```promql\n(.*?)```", path.read_text(), re.DOTALL):
            yield path.name, block


def _boards():
    for path in DASHBOARDS:
        for query in (*queries_of(path), *annotations_of(path)):
            yield query.place, query.expr
        for variable in variables_of(path):
            yield variable.place, variable.selector


SOURCES = {"rules": _rules, "dashboards": _boards, "runbooks": _runbook_queries}


@pytest.mark.parametrize("source", SOURCES)
def test_every_series_that_is_asked_for_exists(lived, source):
    """Each metric, and each value that a label is compared with."""
    asked = {
        (use.name, label, value)
        for _, expr in SOURCES[source]()
        for use in promql.uses(expr)
        if use.name and use.name not in NOT_SCRAPED and not use.name.startswith("pod:")
        for label, value in _compared(use)
    }
    missing = [each for each in sorted(asked) if not lived.has(*each)]

    assert len(asked) > 10
    assert [] == missing


def _compared(use):
    """Each label of the metric's own with each value that it is compared with; and a label that all have."""
    yield "instance", "static:8471"
    own = {label.name for family in promql.families(use.name) for label in family.labels if label.values}
    for label, _, pattern in use.matchers:
        if label in own:
            yield from ((label, value) for value in pattern.split("|"))


def test_every_metric_that_a_document_names_exists(lived):
    """By its whole name."""
    named = {
        (name, path.name)
        for path in DOCUMENTS
        for name in re.findall(r"(?<![\w/:])fsm_[a-z0-9_]*[a-z0-9](?![\w*…<:])", path.read_text())
        if name not in OF_THE_STORE
    }
    missing = [(name, path) for name, path in sorted(named) if not lived.has_family(name)]

    assert len(named) > 50
    assert [] == missing
