"""The session that all live tests look at: everything happens to a sidecar, and Prometheus and a pager see it."""

import contextlib
import subprocess
import sys
import time
from typing import Any, NamedTuple

import pytest
from sidecar_process import receiving

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

    def has(self, name, label, value):
        """Whether there was such a series at any time."""
        return bool(self.ask(f'last_over_time({{__name__="{name}",{label}="{value}"}}[{self.seconds}s])', instant=True))

    def has_family(self, name):
        """Whether there was such a metric: the name as it is documented, without the endings of a histogram."""
        return bool(self.ask(f'last_over_time({{__name__=~"{name}(_bucket)?"}}[{self.seconds}s])', instant=True))

    def ask(self, expr, *, instant=False):
        if instant:
            return self.prometheus.at(expr, self.ended)
        return self.prometheus.over(expr, self.began, self.ended)


@pytest.fixture(scope="session")
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
