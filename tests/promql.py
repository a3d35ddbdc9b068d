"""Reads PromQL and holds it against the catalogue: which series, which labels, what is done with counters."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import promql_parser as parser

from sidecar.metrics import CATALOGUE, Family

TARGET_LABELS = {"cluster", "namespace", "pod", "instance", "job"}
"""What Prometheus adds to a series; any of them but the last two may be absent."""

FOREIGN = {
    "up": set(),
    "scrape_samples_scraped": set(),
    "scrape_duration_seconds": set(),
    "ALERTS": {"alertname", "alertstate", "severity"},
    "process_cpu_seconds_total": set(),
    "process_resident_memory_bytes": set(),
    "process_open_fds": set(),
    "process_max_fds": set(),
    "process_start_time_seconds": set(),
    "python_gc_collections_total": {"generation"},
}
"""Metrics that are not of the catalogue, with their labels."""

RISES = {"rate", "irate", "increase", "resets", "changes"}
_OWN = {"__rate_interval": "5m", "__range": "3h", "__interval": "15s"}
_LABELS_OF_CALLS = {"label_join", "label_replace"}


class Use(NamedTuple):
    """One selector: the metric (empty where only its name is matched), its matchers, and the function right around it."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]
    function: str


def filled_in(expr: str) -> str:
    """Without Grafana's variables."""
    return re.sub(r"\$\{?(\w+)\}?", lambda found: _OWN.get(found[1], ".*"), expr)


def parsed(expr: str) -> parser.Expr:
    """The tree. Raises ValueError."""
    return parser.parse(filled_in(expr))


def uses(expr: str) -> list[Use]:
    """All selectors."""
    return list(_uses(parsed(expr), ""))


def _uses(tree: parser.Expr, function: str) -> Iterator[Use]:
    match tree:
        case parser.VectorSelector():
            matchers = tuple((each.name, str(each.op).removeprefix("MatchOp."), each.value) for each in tree.matchers.matchers)
            yield Use(tree.name or "", matchers, function)
        case parser.MatrixSelector():
            yield from _uses(tree.vector_selector, function)
        case parser.Call():
            for argument in tree.args:
                yield from _uses(argument, tree.func.name)
        case parser.BinaryExpr():
            for side in (tree.lhs, tree.rhs):
                yield from _uses(side, "")
        case parser.AggregateExpr() | parser.ParenExpr() | parser.UnaryExpr() | parser.SubqueryExpr():
            yield from _uses(tree.expr, "")


def families(expr: str) -> set[Family]:
    """Those of the catalogue that it asks for."""
    return {family for use in uses(expr) for family in _families_of(use)}


def _families_of(use: Use) -> list[Family]:
    if not use.name:
        (pattern,) = [value for name, op, value in use.matchers if name == "__name__" and op == "Re"]
        return [family for family in CATALOGUE if re.fullmatch(pattern, family.name)]
    return [family for family in CATALOGUE if use.name in _series_of(family)]


def _series_of(family: Family) -> set[str]:
    if family.kind != "histogram":
        return {family.name}
    return {f"{family.name}_{part}" for part in ("bucket", "count", "sum")}


def problems(expr: str) -> list[str]:
    """What is wrong with it, in words; none: nothing."""
    return [problem for use in uses(expr) for problem in _problems(use)]


def _problems(use: Use) -> Iterator[str]:
    found = _families_of(use)
    if not found and use.name not in FOREIGN:
        yield f"{use.name}: no such metric"
        return
    counts = use.name.endswith(("_total", "_bucket", "_count", "_sum")) and all(each.kind != "gauge" for each in found)
    if counts and use.function not in RISES:
        yield f"{use.name}: a counter outside of {sorted(RISES)}"
    if use.function in ("rate", "irate", "increase") and not counts:
        yield f"{use.name}: {use.function} of what is no counter"
    known = TARGET_LABELS | {"__name__", "le"} | FOREIGN.get(use.name, set())
    closed = {label.name: label.values for family in found for label in family.labels}
    for name, op, value in use.matchers:
        if name not in known | set(closed):
            yield f"{use.name}: no such label: {name}"
        elif closed.get(name) and not _can_be(op, value, closed[name]):
            yield f"{use.name}: {name} is never {value}"


def _can_be(op: str, pattern: str, values: tuple[str, ...]) -> bool:
    """Whether each alternative that is asked for is one of the values."""
    if op in ("Equal", "NotEqual"):
        return pattern in values
    return all(any(re.fullmatch(part, value) for value in values) for part in pattern.split("|"))


def label_problems(expr: str) -> list[str]:
    """Labels that are asked for by name in `by`, `on` and `group_left`, but that no selector below has."""
    return list(_label_problems(parsed(expr)))


def _label_problems(tree: parser.Expr) -> Iterator[str]:
    match tree:
        case parser.AggregateExpr():
            if tree.modifier:
                have = _labels(tree.expr)
                yield from (f"no such label to sum up by: {name}" for name in tree.modifier.labels if name not in have)
            yield from _label_problems(tree.expr)
        case parser.BinaryExpr():
            for side in (tree.lhs, tree.rhs):
                yield from _label_problems(side)
        case parser.Call():
            for argument in tree.args:
                yield from _label_problems(argument)
        case parser.ParenExpr() | parser.UnaryExpr() | parser.SubqueryExpr():
            yield from _label_problems(tree.expr)


def _labels(tree: parser.Expr) -> set[str]:
    """Those that its series can have."""
    match tree:
        case parser.AggregateExpr() if tree.modifier:
            return set(tree.modifier.labels)
        case parser.Call() if tree.func.name in _LABELS_OF_CALLS:
            return _labels(tree.args[0]) | {tree.args[1].val}
        case _:
            labels = set(TARGET_LABELS) | {"__name__", "le"}
            for use in _uses(tree, ""):
                labels |= FOREIGN.get(use.name, set())
                labels |= {label.name for family in _families_of(use) for label in family.labels}
            return labels
