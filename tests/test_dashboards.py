"""The dashboards: what is committed is what the code builds, every query is sound, and everything a user needs is there."""

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from promql import families, label_problems, problems, uses

from grafana.build import boards, reference
from sidecar.alerts import settings
from sidecar.metrics import CATALOGUE

FILES = sorted(boards.FOLDER.glob("*.json"))
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in FILES}
VARIABLES = ["datasource", "cluster", "namespace", "agent", "pod", "instance"]
NARROWED_BY = {"cluster": "$cluster", "namespace": "$namespace", "pod": "$pod", "instance": "$instance"}
WINDOWS = {"$__rate_interval", "$__range"}
"""What `rate` may look over; besides the windows of the alert that a panel shows."""

each_dashboard = pytest.mark.parametrize("uid", DASHBOARDS)


def panels(uid):
    """All panels, those in folded rows too, but not the rows."""
    for panel in DASHBOARDS[uid]["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def drawn(uid):
    """Those that show data."""
    return [panel for panel in panels(uid) if panel["type"] != "text"]


def queries(uid):
    """(where, expression) of each panel and annotation."""
    for panel in drawn(uid):
        for target in panel["targets"]:
            yield f"{panel['title']} [{target['refId']}]", target["expr"]
    for annotation in DASHBOARDS[uid]["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def variables(uid):
    return {variable["name"]: variable for variable in DASHBOARDS[uid]["templating"]["list"]}


# --- as built ---


def test_what_is_committed_is_what_the_code_builds():
    """`make grafana` changes nothing; nor is there a dashboard that nobody builds."""
    assert boards.files() == {path: path.read_text() for path in FILES}
    assert ["fsm-agent", "fsm-fleet", "fsm-webhooks"] == sorted(DASHBOARDS)
    assert reference.PAGE.read_text() == reference.page()


@each_dashboard
def test_the_sdk_reads_what_it_wrote(uid):
    """Decoded and encoded again it is the same: no field that the models do not know."""
    plugins.register_default_plugins()
    read = boards.models.Dashboard.from_json(DASHBOARDS[uid])

    assert DASHBOARDS[uid] == json.loads(json.dumps(read, cls=JSONEncoder))


# --- every query ---


@each_dashboard
def test_every_query_asks_for_what_there_is(uid):
    """It parses; its metrics, labels and label values are in the catalogue; counters only rise inside rate and the like."""
    found = {where: problems(expr) + label_problems(expr) for where, expr in queries(uid)}

    assert {} == {where: problem for where, problem in found.items() if problem}


@each_dashboard
def test_rates_look_over_the_interval_that_grafana_chooses(uid):
    """Or over the range on show, or over a window of the alert."""
    limits = settings.load().alerts["VersionConflictsHigh"]
    allowed = WINDOWS | {str(limits.short_seconds), str(limits.long_seconds)}
    found = {where: re.findall(r"\b(?:i?rate|increase)\([^\[\]]*\[([^\]]*)\]", expr) for where, expr in queries(uid)}

    assert set().union(*found.values()) <= allowed
    assert any(found.values())


@each_dashboard
def test_every_selector_carries_every_variable(uid):
    """Whatever is chosen above holds for each panel, and for each series in it."""
    for where, expr in queries(uid):
        selectors = re.findall(r"\{([^{}]*=[^{}]*)\}", expr)
        assert len(selectors) == len(uses(expr)), where
        for selector in selectors:
            assert [] == [label for label, variable in NARROWED_BY.items() if f'{label}=~"{variable}"' not in selector], where


@each_dashboard
def test_no_query_is_asked_twice(uid):
    """Two panels with one query: one of them is wrong."""
    asked = Counter((target["expr"], target["format"], panel["type"]) for panel in drawn(uid) for target in panel["targets"])

    assert [] == [query for query, count in asked.items() if count > 1]


def test_every_family_is_on_a_panel():
    """What nobody looks at is marked debug, or is not there."""
    shown = {family.name for uid in DASHBOARDS for _, expr in queries(uid) for family in families(expr)}

    assert [] == [family.name for family in CATALOGUE if not family.debug and family.name not in shown]


# --- every panel ---


@each_dashboard
def test_every_panel_says_what_it_shows(uid):
    """A title of its own, a description, a unit, and series that have names."""
    titles = [panel["title"] for panel in panels(uid)]

    assert len(set(titles)) == len(titles)
    for panel in panels(uid):
        assert panel["description"].endswith("."), panel["title"]
    for panel in drawn(uid):
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        if panel["type"] != "table":
            assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


@each_dashboard
def test_every_panel_asks_the_chosen_datasource(uid):
    """Nothing is tied to a datasource of somebody's own."""
    datasource = {"type": "prometheus", "uid": "${datasource}"}
    for panel in drawn(uid):
        assert datasource == panel["datasource"]
        assert all(datasource == target["datasource"] for target in panel["targets"])
    for name, variable in variables(uid).items():
        assert name == "datasource" or datasource == variable["datasource"]
    assert all(datasource == annotation["datasource"] for annotation in DASHBOARDS[uid]["annotations"]["list"])


@each_dashboard
def test_panels_and_queries_have_lasting_names(uid):
    """An id for each panel, of its own; a letter for each query."""
    every = [*DASHBOARDS[uid]["panels"], *(inner for row in DASHBOARDS[uid]["panels"] for inner in row.get("panels") or ())]
    ids = [panel["id"] for panel in every]

    assert len(set(ids)) == len(ids)
    for panel in drawn(uid):
        assert "ABCDEFGHIJKLMNOPQRSTUVWXYZ".startswith("".join(target["refId"] for target in panel["targets"]))


@each_dashboard
def test_panels_lie_side_by_side(uid):
    """None over another, none beyond the edge."""
    places = [panel["gridPos"] for panel in (*DASHBOARDS[uid]["panels"], *panels(uid)) if panel["type"] == "row"]
    places = places + [panel["gridPos"] for panel in panels(uid)]

    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert [] == [pair for pair in combinations(places, 2) if _overlap(*pair)]


def _overlap(one, other):
    return all(one[at] < other[at] + other[size] and other[at] < one[at] + one[size] for at, size in (("x", "w"), ("y", "h")))


@each_dashboard
def test_panels_are_of_kinds_that_grafana_still_has(uid):
    """None of the removed ones."""
    kinds = {"bargauge", "heatmap", "stat", "state-timeline", "table", "text", "timeseries"}

    assert {panel["type"] for panel in panels(uid)} <= kinds


def test_state_timelines_name_the_states_of_any_machine():
    """The words come from the label `state`, not from numbers that mean something else for every machine."""
    for uid in ("fsm-fleet", "fsm-agent"):
        (timeline,) = [panel for panel in panels(uid) if panel["title"] in ("States", "State over time")]
        steps = {step["id"]: step["options"] for step in timeline["transformations"]}

        assert "state-timeline" == timeline["type"]
        assert "table" == timeline["targets"][0]["format"]
        assert "state" in steps["filterFieldsByName"]["include"]["names"]
        assert ["cluster", "namespace", "pod", "instance", "who"] == steps["partitionByValues"]["fields"]
        assert "${__field.labels.who}" == timeline["fieldConfig"]["defaults"]["displayName"]


# --- every dashboard ---


@each_dashboard
def test_a_dashboard_is_set_up_as_shipped_ones_are(uid):
    """Read-only, findable by a fixed uid and a tag, in UTC, nothing to be filled in at import."""
    dashboard = DASHBOARDS[uid]

    assert (uid, False, "1m", "utc", ["fsm-sidecar"]) == tuple(
        dashboard[key] for key in ("uid", "editable", "refresh", "timezone", "tags")
    )
    assert {"from": "now-3h", "to": "now"} == dashboard["time"]
    assert 1 == dashboard["graphTooltip"]
    assert len(uid) <= 40
    assert "__inputs" not in dashboard
    assert dashboard["title"].startswith("FSM sidecar / ")
    assert dashboard["description"]


@each_dashboard
def test_variables_narrow_each_other_down(uid):
    """In their order, each by those before it; found anew with each time range; several, or all, can be chosen."""
    found = variables(uid)
    names = list(found)

    assert VARIABLES == names[:6]
    assert (["subscriber"] if uid == "fsm-webhooks" else []) == names[6:]
    for index, name in enumerate(names[1:], 1):
        variable = found[name]
        before = [each for each in names[1:index] if each != "agent" or name in ("pod", "instance")]
        assert (True, True, 2) == (variable["multi"], variable["includeAll"], variable["refresh"])
        assert [] == [each for each in before if f'{each}=~"${each}"' not in variable["query"]["query"]]
        assert variable["query"]["query"].endswith(f", {name})")


@each_dashboard
def test_an_absent_label_hides_nothing(uid):
    """All of a label means: also without it. All instances are those listed, so that choosing an agent chooses something."""
    found = {name: variable.get("allValue") for name, variable in variables(uid).items() if name not in ("datasource", "agent")}

    assert found == {name: None if name == "instance" else ".*" for name in found}


@each_dashboard
def test_links_keep_what_was_chosen(uid):
    """Between the dashboards time and variables stay; a link, or a name, takes nothing that may be absent."""
    (link,) = DASHBOARDS[uid]["links"]
    text = Path(boards.FOLDER / f"{uid}.json").read_text()
    urls = re.findall(r'"url": "(/d/[^"]*)"', text)

    assert (["fsm-sidecar"], True, True) == (link["tags"], link["includeVars"], link["keepTime"])
    assert not re.search(r"(labels|fields)\.(cluster|namespace|pod)\b", text)
    for url in urls:
        assert url.split("?")[0].removeprefix("/d/") in DASHBOARDS
        assert "${__url_time_range}" in url


@each_dashboard
def test_events_are_marked_at_their_own_time(uid):
    """A transition and a start when they were, not when they were scraped."""
    marks = {annotation["name"]: annotation for annotation in DASHBOARDS[uid]["annotations"]["list"]}

    assert ["State transitions", "Restarts", "Rollouts", "Alerts"] == list(marks)
    for name in ("State transitions", "Restarts"):
        assert marks[name]["useValueForTime"]
        assert marks[name]["expr"].endswith("* 1000")
