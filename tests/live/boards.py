"""The committed dashboards, as Grafana would ask Prometheus for them: each query of each panel, variable and annotation."""

import json
import math
import re
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[2] / "grafana" / "dashboards"
DASHBOARDS = sorted(FOLDER.glob("*.json"))
EVERYTHING = ".*"


class Query(NamedTuple):
    """One query and where it stands. `instant`: of the end alone."""

    place: str
    expr: str
    instant: bool


def panels(dashboard):
    """All panels that show something, also those in collapsed rows."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels") or ()
        elif panel["type"] != "text":
            yield panel


def queries_of(path):
    """Those of the panels."""
    dashboard = json.loads(path.read_text())
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield Query(f"{path.stem}: {panel['title']} [{target['refId']}]", target["expr"], bool(target.get("instant")))


def annotations_of(path):
    """Those of the annotations that ask Prometheus."""
    for annotation in json.loads(path.read_text())["annotations"]["list"]:
        if "expr" in annotation:
            yield Query(f"{path.stem}: annotation {annotation['name']}", annotation["expr"], False)


class Variable(NamedTuple):
    """`label_values(selector, label)`, and where it stands."""

    place: str
    selector: str
    label: str


def variables_of(path):
    for variable in json.loads(path.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            query = variable["query"] if isinstance(variable["query"], str) else variable["query"]["query"]
            selector, label = re.fullmatch(r"label_values\((.*),\s*(\w+)\)", query).groups()
            yield Variable(f"{path.stem}: ${variable['name']}", selector, label)


def filled_in(expr, seconds, **selected):
    """The expression with its variables: the selected ones, and everything for the others."""
    own = {"__rate_interval": "5s", "__interval": "1s", "__range": f"{seconds}s", "__range_s": str(seconds)}
    return re.sub(r"\$\{?(\w+)(?::\w+)?\}?", lambda found: (own | selected).get(found[1], EVERYTHING), expr)


def shows_something(result):
    """Whether at least one point of the result could be drawn."""
    points = [point for series in result for point in series.get("values") or [series["value"]]]
    return any(math.isfinite(float(value)) for _, value in points)
