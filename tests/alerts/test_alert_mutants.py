"""The stories of the alerts are worth something: every alert that is a little wrong is caught by them."""

import math
from collections.abc import Iterator
from itertools import chain

import promtool
import pytest
from msgspec.structs import replace

from sidecar.alerts import prometheus
from sidecar.alerts.alert import Alert, Declared
from sidecar.alerts.catalogue import DECLARED
from sidecar.alerts.expression import Node, Recorded, Unless, Where
from sidecar.alerts.selector import Selector
from sidecar.alerts.settings import Limits, load
from sidecar.units import Seconds

SETTINGS = load()
FAR = 10**18


def mutants(declared: Declared) -> Iterator[tuple[str, Alert]]:
    """The alert with one fault each, by what the fault is."""
    right = declared.with_numbers(SETTINGS)
    condition, above = right.condition, right.condition.sign == ">"
    for name, changed in (
        ("never", replace(condition, limit=FAR if above else -FAR)),
        ("always", replace(condition, limit=-FAR if above else FAR)),
        ("flipped", replace(condition, sign="<" if above else ">")),
        *((f"unguarded{number}", node) for number, node in enumerate(simpler(condition))),
    ):
        yield name, replace(right, condition=changed)
    for name, limits in chain(numbers(right.limits), times(right.limits)):
        wrong = declared.with_numbers(replace(SETTINGS, alerts={**SETTINGS.alerts, declared.name: limits}))
        yield name, replace(wrong, description=right.description)


def numbers(limits: Limits) -> Iterator[tuple[str, Limits]]:
    if math.isnan(limits.above):
        flag = limits.below == 1  # of a gauge that is 0 or 1: any number between means the same
        yield "numb", replace(limits, below=0 if flag else limits.below / 20)
        yield "touchy", replace(limits, below=limits.below * 2)
    else:
        yield "numb", replace(limits, above=limits.above * 20 or 50)
        if limits.above:
            yield "touchy", replace(limits, above=limits.above / 2)
    if limits.at_least:
        yield "patient", replace(limits, at_least=limits.at_least * 200)


def times(limits: Limits) -> Iterator[tuple[str, Limits]]:
    yield "late", replace(limits, for_seconds=Seconds(6 * 3600))
    for field in ("window_seconds", "short_seconds"):
        if seconds := getattr(limits, field):
            yield "remembering", replace(limits, **{field: Seconds(10 * seconds)})


def simpler(node: Node) -> Iterator[Node]:
    """The question without one of its guards, or without one of its label matchers."""
    if isinstance(node, Where | Unless):
        yield node.of
    for name in node.__struct_fields__:
        part = getattr(node, name)
        if isinstance(part, Node):
            yield from (_renamed(replace(node, **{name: each})) for each in simpler(part))
        elif isinstance(part, Selector) and part.matchers:
            yield replace(node, **{name: part._replace(matchers=())})


def _renamed(node: Node) -> Node:
    """What is recorded needs a name of its own beside the right one."""
    return replace(node, name=f"{node.name}_wrong") if isinstance(node, Recorded) else node


def trial(declared: Declared, target: promtool.Target) -> tuple[promtool.Trial, set[str]]:
    right = declared.with_numbers(SETTINGS)
    wrong = [replace(alert, name=f"{alert.name}_{fault}") for fault, alert in mutants(declared)]
    (rule,) = prometheus.tree(SETTINGS, [right])["groups"][0]["rules"][-1:]
    names = [alert.name for alert in wrong]
    stories = promtool.stories(declared.name, rule, target, of=names)
    return promtool.Trial(declared.name, prometheus.tree(SETTINGS, wrong), stories), set(names)


def test_every_mutant_is_caught(tmp_path):
    """Alerts that never or always fire, that compare the other way round, with other numbers, times or without a guard."""
    trials, names = zip(*(trial(declared, promtool.TARGETS[0]) for declared in DECLARED), strict=True)
    halves = [promtool.start(tmp_path, trials[half::2]) for half in (0, 1)]  # one for each core
    caught = set().union(*(promtool.caught(promtool.failures(half)) for half in halves))
    assert set() == set().union(*names) - caught


@pytest.mark.parametrize("declared", DECLARED, ids=lambda declared: declared.name)
def test_every_alert_has_mutants(declared):
    """At least these."""
    assert {"never", "always", "flipped", "numb", "late"} <= {name for name, _ in mutants(declared)}
