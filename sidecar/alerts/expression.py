"""Questions about a sidecar's metrics. One tree is both written as PromQL and answered from scrapes.

A counter can only be asked how much it rose. All that is aggregated is aggregated by what names the sidecar, `IDENTITY`.
"""

import math
import operator
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import msgspec

from sidecar.alerts.scrape import Labels, Scrapes, Vector
from sidecar.alerts.selector import IDENTITY, Selector
from sidecar.units import Seconds

_ON = f"on ({', '.join(IDENTITY)})"


def number(value: float) -> str:
    """As people write it."""
    return str(int(value)) if value == int(value) else repr(value)


class Node(msgspec.Struct, frozen=True):
    """A question."""

    def promql(self, *, inline: bool = False) -> str:
        """As PromQL. `inline`: without the help of recording rules."""
        raise NotImplementedError

    def value(self, scrapes: Scrapes) -> Vector:
        """The answer as far as scrapes have it. Raises `OneScrapeError` where one is not enough."""
        raise NotImplementedError


# --- of one family ---


class Gauge(Node, frozen=True):
    """The value now."""

    of: Selector

    def promql(self, *, inline: bool = False) -> str:
        return self.of.gauged

    def value(self, scrapes: Scrapes) -> Vector:
        return scrapes.now.read(self.of)


class OverTime(Node, frozen=True):
    """The greatest or least value of a gauge within the window: one failed scrape changes nothing."""

    how: Literal["max", "min"]
    of: Selector
    window: Seconds

    def promql(self, *, inline: bool = False) -> str:
        return f"{self.how}_over_time({self.of.gauged}[{self.window}])"

    def value(self, scrapes: Scrapes) -> Vector:
        before = scrapes.before.read(self.of) if scrapes.before else {}
        choose = max if self.how == "max" else min
        return {key: choose(value, before.get(key, value)) for key, value in scrapes.now.read(self.of).items()}


class Rise(Node, frozen=True):
    """How much a counter rose within the window (`increase`), or how fast (`rate`)."""

    how: Literal["increase", "rate"]
    of: Selector
    window: Seconds

    def promql(self, *, inline: bool = False) -> str:
        return f"{self.how}({self.of.counted}[{self.window}])"

    def value(self, scrapes: Scrapes) -> Vector:
        rise = scrapes.increase(self.of, "_count" if self.of.family.kind == "histogram" else "")
        return rise if self.how == "increase" else {key: value / scrapes.seconds for key, value in rise.items()}


class Turns(Node, frozen=True):
    """How often a gauge changed within the window, or fell (`resets`)."""

    how: Literal["changes", "resets"]
    of: Selector
    window: Seconds

    def promql(self, *, inline: bool = False) -> str:
        return f"{self.how}({self.of.gauged}[{self.window}])"

    def value(self, scrapes: Scrapes) -> Vector:
        before, now = (scrape.read(self.of) for scrape in scrapes.pair)
        turned = operator.ne if self.how == "changes" else operator.gt
        return {key: float(turned(before[key], value)) for key, value in now.items() if key in before}


class Age(Node, frozen=True):
    """Seconds since an instant that a gauge tells; nothing where it is 0, which means never."""

    of: Selector

    def promql(self, *, inline: bool = False) -> str:
        return f"time() - ({self.of.gauged} > 0)"

    def value(self, scrapes: Scrapes) -> Vector:
        return {key: scrapes.now.at - instant for key, instant in scrapes.now.read(self.of).items() if instant > 0}


class Quantile(Node, frozen=True):
    """The value that this share of a histogram's observations within the window did not exceed."""

    share: float
    of: Selector
    window: Seconds

    def promql(self, *, inline: bool = False) -> str:
        by = ", ".join((*IDENTITY, "le"))
        return f"histogram_quantile({self.share}, sum by ({by}) (rate({self.of.buckets}[{self.window}])))"

    def value(self, scrapes: Scrapes) -> Vector:
        counts: dict[float, float] = {}
        for key, count in scrapes.increase(self.of, "_bucket").items():
            bound = float(dict(key)["le"])
            counts[bound] = counts.get(bound, 0.0) + count
        estimate = _quantile(self.share, sorted(counts.items()))
        return {} if estimate is None else {(): estimate}


def _quantile(share: float, buckets: list[tuple[float, float]]) -> float | None:
    """As Prometheus does it: evenly spread within a bucket, and the last bound for what lies beyond it."""
    if not buckets or not buckets[-1][1]:
        return None
    rank = share * buckets[-1][1]
    for (low, below), (high, count) in pairwise([(0.0, 0.0), *buckets]):
        if count >= rank:
            return low if math.isinf(high) else low + (high - low) * (rank - below) / (count - below)
    return None


# --- of several ---


class By(Node, frozen=True):
    """Summed up, or the greatest or least of it: for each sidecar, and each value of the labels."""

    how: Literal["sum", "max", "min"]
    of: Node
    labels: tuple[str, ...] = ()

    def promql(self, *, inline: bool = False) -> str:
        return f"{self.how} by ({', '.join((*IDENTITY, *self.labels))}) ({self.of.promql(inline=inline)})"

    def value(self, scrapes: Scrapes) -> Vector:
        groups: dict[Labels, list[float]] = {}
        for key, value in self.of.value(scrapes).items():
            groups.setdefault(tuple(pair for pair in key if pair[0] in self.labels), []).append(value)
        return {key: _TOGETHER[self.how](values) for key, values in groups.items()}


_TOGETHER: dict[str, Callable[[list[float]], float]] = {"sum": sum, "max": max, "min": min}


class Sum(Node, frozen=True):
    """Two together."""

    one: Node
    other: Node

    def promql(self, *, inline: bool = False) -> str:
        return f"{self.one.promql(inline=inline)} + {self.other.promql(inline=inline)}"

    def value(self, scrapes: Scrapes) -> Vector:
        one, other = self.one.value(scrapes), self.other.value(scrapes)
        return {key: one[key] + other[key] for key in one if key in other}


class Ratio(Node, frozen=True):
    """A part of a whole; nothing where there is no whole."""

    part: Node
    whole: Node

    def promql(self, *, inline: bool = False) -> str:
        return f"{self.part.promql(inline=inline)} / ({self.whole.promql(inline=inline)} > 0)"

    def value(self, scrapes: Scrapes) -> Vector:
        part, whole = self.part.value(scrapes), self.whole.value(scrapes)
        return {key: part[key] / whole[key] for key in part if whole.get(key, 0) > 0}


class Recorded(Node, frozen=True):
    """What a recording rule keeps under a name."""

    name: str
    of: Node

    def promql(self, *, inline: bool = False) -> str:
        return f"({self.of.promql(inline=True)})" if inline else self.name

    def value(self, scrapes: Scrapes) -> Vector:
        return self.of.value(scrapes)


# --- conditions ---


class Condition(Node, frozen=True):
    """What of it is beyond a number."""

    of: Node
    sign: Literal[">", "<", ">="]
    limit: float

    def promql(self, *, inline: bool = False) -> str:
        text = self.of.promql(inline=inline)
        text = f"(\n  {text}\n)" if isinstance(self.of, Where | Unless) else text
        return f"{text} {self.sign} {number(self.limit)}"

    def value(self, scrapes: Scrapes) -> Vector:
        return {key: value for key, value in self.of.value(scrapes).items() if self.holds(value)}

    def holds(self, value: float) -> bool:
        return value < self.limit if self.sign == "<" else value > self.limit or (self.sign == ">=" and value == self.limit)


class Where(Node, frozen=True):
    """The same, where of the same sidecar something else is true."""

    of: Node
    condition: Node

    def promql(self, *, inline: bool = False) -> str:
        return f"{self.of.promql(inline=inline)}\n  and {_ON} ({self.condition.promql(inline=inline)})"

    def value(self, scrapes: Scrapes) -> Vector:
        return self.of.value(scrapes) if self.condition.value(scrapes) else {}


class Unless(Node, frozen=True):
    """The same, where of the same sidecar there is nothing of the other."""

    of: Node
    other: Node

    def promql(self, *, inline: bool = False) -> str:
        return f"{self.of.promql(inline=inline)}\n  unless {_ON} ({self.other.promql(inline=inline)})"

    def value(self, scrapes: Scrapes) -> Vector:
        return {} if self.other.value(scrapes) else self.of.value(scrapes)
