"""Which series are meant: a family of the catalogue and label values. What does not exist there is refused."""

from collections.abc import Mapping
from typing import NamedTuple

from sidecar.metrics import CATALOGUE, Family, Label

IDENTITY = ("cluster", "namespace", "pod", "instance")
"""The labels that tell sidecars apart. Where a scrape does not set one of them, it is the same for all."""

UP = Family("up", "gauge", "1 if the scrape succeeded; added by Prometheus.")
SCRAPED_SAMPLES = Family("scrape_samples_scraped", "gauge", "Samples that the scrape gave; added by Prometheus.")
KNOWN = frozenset((*CATALOGUE, UP, SCRAPED_SAMPLES))

Wanted = str | tuple[str, ...] | frozenset[str]


def other_than(*values: str) -> frozenset[str]:
    """Any value but these, to select by."""
    return frozenset(values)


class Matcher(NamedTuple):
    """One label, and the values that match, or with `negated` do not."""

    label: str
    values: tuple[str, ...]
    negated: bool = False

    def matches(self, labels: Mapping[str, str]) -> bool:
        return (labels.get(self.label, "") in self.values) != self.negated

    def __str__(self) -> str:
        sign = ("=~", "!~")[self.negated] if len(self.values) > 1 else ("=", "!=")[self.negated]
        return f'{self.label}{sign}"{"|".join(self.values)}"'


class Selector(NamedTuple):
    """Series of one family. `targets`: PromQL that matches labels of the scrape target, which no scrape knows."""

    family: Family
    matchers: tuple[Matcher, ...] = ()
    targets: str = ""

    @property
    def counted(self) -> str:
        """The series that count: of a histogram, how many it has seen. Raises `ValueError` for a gauge."""
        if self.family.kind == "gauge":
            raise ValueError(f"{self.family.name} is a gauge: it has no rate")
        return self.promql("_count" if self.family.kind == "histogram" else "")

    @property
    def gauged(self) -> str:
        """The series that have a value of their own. Raises `ValueError` for others."""
        if self.family.kind != "gauge":
            raise ValueError(f"{self.family.name} is a {self.family.kind}: it only means something inside a rate")
        return self.promql()

    @property
    def buckets(self) -> str:
        """The series of a histogram's buckets. Raises `ValueError` for others."""
        if self.family.kind != "histogram":
            raise ValueError(f"{self.family.name} is a {self.family.kind}: it has no buckets")
        return self.promql("_bucket")

    def promql(self, suffix: str = "") -> str:
        matchers = ", ".join(filter(None, (*map(str, self.matchers), self.targets)))
        return f"{self.family.name}{suffix}{{{matchers}}}" if matchers else f"{self.family.name}{suffix}"


def select(family: Family, **wanted: Wanted) -> Selector:
    """The series whose labels have a value (text), one of some values (a tuple), or any but some (`other_than`)."""
    if family not in KNOWN:
        raise ValueError(f"{family.name} is not in the catalogue")
    labels = {label.name: label for label in family.labels}
    if strange := wanted.keys() - labels.keys():
        raise ValueError(f"{family.name} has no label {', '.join(sorted(strange))}")
    return Selector(family, tuple(_matcher(labels[name], values) for name, values in wanted.items()))


def _matcher(label: Label, wanted: Wanted) -> Matcher:
    values = (wanted,) if isinstance(wanted, str) else tuple(sorted(wanted)) if isinstance(wanted, frozenset) else wanted
    if strange := [value for value in values if label.values and value not in label.values]:
        raise ValueError(f"{label.name} is never {', '.join(strange)}; it is one of {', '.join(label.values)}")
    return Matcher(label.name, values, isinstance(wanted, frozenset))
