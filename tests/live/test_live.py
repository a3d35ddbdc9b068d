"""Everything together, for real: a sidecar to which everything happens, scraped by Prometheus, whose alerts reach a pager.

One scripted session of about a minute; the tests of this file look at it from all sides.
"""

import contextlib
import subprocess
import sys
import time
from typing import Any, NamedTuple

import pytest
from sidecar_process import receiving

from live.boards import DASHBOARDS, annotations_of, filled_in, queries_of, shows_something, variables_of
from live.jobs import SHAPES, job
from live.monitoring import Pager, alertmanager, prometheus
from live.session import Session

THRESHOLDS = """
interval: 1s
alerts:
  Down: {for: 1s}
  NotInitialised: {window: 3s, for: 1s}
  VersionConflictsHigh: {short: 5s, long: 10s, for: 1s}
  ConflictsMasked: {window: 10s}
  SubscriberEvicted: {window: 10s}
  WebhookGaps: {window: 10s}
"""
"""The shipped alerts with short windows, as a user would shorten them."""

PAGED = ("NotInitialised", "VersionConflictsHigh", "ConflictsMasked", "SubscriberEvicted", "WebhookGaps", "Down")


class Lived(NamedTuple):
    """What is left of the session: Prometheus with its data, the pager, and when it was. `took`: alert → detection times."""

    prometheus: Any
    pager: Pager
    began: float
    ended: float
    took: dict[str, tuple[float, float]]
    instances: dict[str, str]

    @property
    def seconds(self):
        """What Grafana would show: the whole session."""
        return int(self.ended - self.began) + 1

    def ask(self, expr, *, instant=False):
        if instant:
            return self.prometheus.at(expr, self.ended)
        return self.prometheus.over(expr, self.began, self.ended)


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    (folder / "thresholds.yaml").write_text(THRESHOLDS)
    command = [sys.executable, "-m", "sidecar", "rules", "prometheus", "--thresholds", folder / "thresholds.yaml"]
    rules = folder / "rules.yaml"
    rules.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    with contextlib.ExitStack() as stack:
        pages, hook = stack.enter_context(receiving()), stack.enter_context(receiving())
        session = Session(folder, hook)
        jobs = {shape: job(shape, session.ops_address) for shape in SHAPES}
        at = stack.enter_context(alertmanager(folder, pages.url))
        prom = stack.enter_context(prometheus(folder, [each for each, _ in jobs.values()], [rules], at))
        stack.enter_context(session.begun())
        pager, began = Pager(pages), time.time()
        took = live(session, hook, pager)
        ended = time.time()
        yield Lived(prom, pager, began, ended, took, {shape: instance for shape, (_, instance) in jobs.items()})


def live(session, hook, pager):
    """The script. Returns for each alert the seconds from its cause to the page, and from its end to the all-clear."""
    caused, ended = {"NotInitialised": time.monotonic()}, {}
    pager.wait_for("FsmSidecarNotInitialised", "firing")
    session.write("BOOTING")
    ended["NotInitialised"] = time.monotonic()

    session.subscribe("console", hook.url)
    session.write("IDLE")
    session.fly()
    caused["VersionConflictsHigh"] = time.monotonic()
    session.lose(3)
    pager.wait_for("FsmSidecarVersionConflictsHigh", "firing")
    ended["VersionConflictsHigh"] = caused["ConflictsMasked"] = time.monotonic()
    session.overwrite_unseen()
    ended["ConflictsMasked"] = time.monotonic()
    session.be_refused()
    session.fill_up()
    session.fly()
    session.evict()
    caused["SubscriberEvicted"] = ended["SubscriberEvicted"] = time.monotonic()
    caused["WebhookGaps"] = ended["WebhookGaps"] = time.monotonic()
    session.make_a_gap()
    for name in ("ConflictsMasked", "SubscriberEvicted", "WebhookGaps"):
        pager.wait_for(f"FsmSidecar{name}", "firing")
    session.crash()
    caused["Down"] = time.monotonic()
    pager.wait_for("FsmSidecarDown", "firing")
    session.start_again()
    ended["Down"] = time.monotonic()
    session.fly()
    session.restart()
    session.fly()
    for name in PAGED:
        pager.wait_for(f"FsmSidecar{name}", "resolved")
    session.fly()
    return {
        name: (
            pager.told(f"FsmSidecar{name}", "firing")[1] - caused[name],
            pager.told(f"FsmSidecar{name}", "resolved")[1] - ended[name],
        )
        for name in PAGED
    }


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
