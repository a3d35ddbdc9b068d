"""The dashboards against Grafana's published schemas, where these lie beside the repository (they are not part of it)."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from grafana.build import boards

SCHEMAS = Path(__file__).parents[2] / "shared" / "schemas" / "grafana"
FILES = sorted(boards.FOLDER.glob("*.json"))
PANELS = {"state-timeline": "statetimeline"}
ANYTHING = {"type": "object", "additionalProperties": {}}
"""How the schemas write a value of any type."""

each_dashboard = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def schema(name, definition=None):
    """A checker for one of the files, or for one definition in it; None where the files are not there."""
    path = SCHEMAS / f"{name}.jsonschema.json"
    if not path.exists():
        print(f"not checked, for there is no {path.name} in ../shared/schemas/grafana")
        return None
    tree = _loosened(json.loads(path.read_text()))
    if definition:
        tree["$ref"] = f"#/definitions/{definition}"
    return jsonschema.Draft7Validator(tree)


def _loosened(tree):
    if isinstance(tree, dict):
        if {key: value for key, value in tree.items() if key != "description"} == ANYTHING:
            return {}
        # The kinds of a table's cells overlap: one of them is enough.
        return {"anyOf" if key == "oneOf" else key: _loosened(value) for key, value in tree.items()}
    return [_loosened(each) for each in tree] if isinstance(tree, list) else tree


def misfits(checker, value):
    """What does not fit, in words; nothing where there is no checker."""
    return [_told(error) for error in checker.iter_errors(value)] if checker else []


def _told(error):
    best = jsonschema.exceptions.best_match([error])
    return f"{'.'.join(map(str, best.absolute_path))}: {best.message[:200]}"


def panels(path):
    for panel in json.loads(path.read_text())["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


@each_dashboard
def test_a_dashboard_is_one(path):
    """As a whole, with its variables, annotations and links."""
    assert [] == misfits(schema("dashboard"), json.loads(path.read_text()))


@each_dashboard
def test_panels_have_only_options_that_their_kind_knows(path):
    """Where Grafana would drop a misspelt one without a word."""
    for panel in panels(path):
        kind = PANELS.get(panel["type"], panel["type"])
        custom = panel.get("fieldConfig", {}).get("defaults", {}).get("custom")
        found = misfits(schema(kind, "Options"), panel["options"])
        if custom is not None:
            found += misfits(schema(kind, "FieldConfig"), custom)

        assert [] == found, panel["title"]


@each_dashboard
def test_queries_have_only_fields_that_prometheus_knows(path):
    """Format, legend, exemplars: all spelt right."""
    checker = schema("prometheus")
    for panel in panels(path):
        for target in panel.get("targets") or ():
            assert [] == misfits(checker, target), panel["title"]


@each_dashboard
def test_units_are_units(path):
    """An unknown unit is shown as a word behind the number."""
    path_of_units = SCHEMAS / "units.jsonschema.json"
    text = path_of_units.read_text() if path_of_units.exists() else ""
    known = set(re.findall(r'"const": ?"([^"]*)"', text)) or None
    used = set(re.findall(r'"unit": "([^"]*)"', path.read_text()))
    used |= set(re.findall(r'"id": "unit",\s*"value": "([^"]*)"', path.read_text()))

    assert used
    assert known is None or used <= known
