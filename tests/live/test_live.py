"""Everything together, for real: a sidecar to which everything happens, scraped by Prometheus, whose alerts reach a pager.

One scripted session of about twenty seconds; the tests of this folder look at it from all sides.
"""

import pytest

from live.boards import DASHBOARDS, annotations_of, filled_in, queries_of, shows_something, variables_of
from live.conftest import PAGED
from live.jobs import SHAPES


@pytest.mark.parametrize("name", PAGED)
def test_an_alert_reaches_the_pager_and_is_taken_back(lived, name, capsys):
    """Through the real Prometheus and the real Alertmanager; with what whoever is woken needs."""
    alert, _ = lived.pager.told(f"FsmSidecar{name}", "firing")
    with capsys.disabled():
        fired, resolved = lived.took[name]
        print(f"\n{name}: paged {fired:.1f} s after its cause, taken back {resolved:.1f} s after its end", end="")

    assert {"fsm-sidecar"} == {alert["labels"]["product"]}
    assert {"summary", "description", "runbook_url", "dashboard_url"} <= set(alert["annotations"])
    assert alert["annotations"]["runbook_url"].endswith(f"/fsmsidecar{name.lower()}.md")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_no_panel_is_empty(lived, path, shape):
    """However the sidecar is scraped: each query of each panel has something to draw."""
    empty = []
    for query in queries_of(path):
        expr = filled_in(query.expr, lived.seconds, instance=lived.instances[shape])
        if not shows_something(lived.ask(expr, instant=query.instant)):
            empty.append((query.place, expr))

    assert [] == empty


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_no_variable_is_empty(lived, path):
    """Neither with everything selected, nor, for what every target has, with nothing but an address."""
    static = lived.instances["static"]
    found = {
        each.place: lived.prometheus.label_values(each.label, filled_in(each.selector, lived.seconds))
        for each in variables_of(path)
    }
    bare = {
        each.place: lived.prometheus.label_values(each.label, filled_in(each.selector, lived.seconds, instance=static))
        for each in variables_of(path)
        if each.label in ("agent", "instance", "subscriber")
    }

    assert [] == [place for place, values in (found | bare).items() if not values]
    assert len(found) >= 4


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_no_annotation_is_empty(lived, path):
    """Transitions, restarts, alerts: they happened, so they are marked."""
    empty = [
        query.place for query in annotations_of(path) if not shows_something(lived.ask(filled_in(query.expr, lived.seconds)))
    ]

    assert [] == empty


def test_a_conflict_leads_to_who_overwrote_whom(lived):
    """By the exemplar at the counter, as Prometheus keeps it."""
    found = lived.prometheus.exemplars("fsm_version_conflicts_total", lived.began, lived.ended)
    told = [exemplar["labels"] for series in found for exemplar in series["exemplars"]]

    assert told
    assert {("planner", "pilot")} == {(each["writer"], each["against"]) for each in told}


def test_every_target_answered_as_openmetrics_wants_it(lived):
    """No scrape was refused for its form, in any of the shapes."""
    targets = lived.prometheus.targets()

    assert len(SHAPES) == len(targets)
    assert {("up", "")} == {(target["health"], target["lastError"]) for target in targets}
    assert lived.ask("min(up) == 1", instant=True)
