"""What a sidecar answered at /metrics, once or twice, to be asked for values."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from sidecar.alerts.selector import SCRAPED_SAMPLES, UP, Selector

Labels = tuple[tuple[str, str], ...]
Vector = Mapping[Labels, float]
"""Values by their labels, without those that name the sidecar: there is one."""


class OneScrapeError(Exception):
    """What is asked for happens between two scrapes, and there is one."""


class Scrape(NamedTuple):
    """The samples of one answer by name, the families it tells of, and when it was taken."""

    samples: Mapping[str, Vector]
    families: frozenset[str]
    at: float

    @classmethod
    def parse(cls, text: str, at: float) -> "Scrape":
        """From the text format. Raises `ValueError` for what is not in it."""
        samples: dict[str, dict[Labels, float]] = {}
        families = {UP.name, SCRAPED_SAMPLES.name}
        for family in _families(text):
            families.add(family.name)
            for sample in family.samples:
                samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        told = {UP.name: 1.0, SCRAPED_SAMPLES.name: float(sum(map(len, samples.values())))}
        return cls(samples | {name: {(): value} for name, value in told.items()}, frozenset(families), at)

    def tells(self, selector: Selector) -> bool:
        """Whether the family is there, be it without a sample so far."""
        return selector.family.name.removesuffix("_total") in self.families

    def read(self, selector: Selector, suffix: str = "") -> Vector:
        series = self.samples.get(selector.family.name + suffix, {})
        return {key: value for key, value in series.items() if all(each.matches(dict(key)) for each in selector.matchers)}


def _families(text: str) -> Iterator[Metric]:
    try:
        yield from text_string_to_metric_families(text)
    except IndexError as error:  # its way to say that a line is cut short
        raise ValueError(str(error)) from None


class Scrapes(NamedTuple):
    """The newest scrape, the one before it, and the seconds in between."""

    now: Scrape
    before: Scrape | None = None
    seconds: float = 0.0

    @property
    def pair(self) -> tuple[Scrape, Scrape]:
        """Both, the earlier first. Raises `OneScrapeError`."""
        if self.before is None:
            raise OneScrapeError
        return self.before, self.now

    def increase(self, selector: Selector, suffix: str = "") -> Vector:
        """By how much counters rose in between; one that fell had started again."""
        before, now = (scrape.read(selector, suffix) for scrape in self.pair)
        return {key: value - before[key] if before[key] <= value else value for key, value in now.items() if key in before}
