"""The sidecar's metrics, as Prometheus would read them."""

import math
from collections import Counter

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from demo.errors import DemoError


class Scrape:
    """The samples of one look at /metrics."""

    def __init__(self, text: str) -> None:
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def total(self, name: str, **labels: str) -> int:
        """The sum of the samples of this name that have these labels."""
        return int(sum(sample.value for sample in self._named(name) if labels.items() <= sample.labels.items()))

    def by(self, label: str, name: str) -> dict[str, int]:
        """The sums of this name by one label, without those that are 0."""
        sums: Counter[str] = Counter()
        for sample in self._named(name):
            sums[sample.labels[label]] += int(sample.value)
        return dict(+sums)

    def mean(self, histogram: str) -> float:
        count = self.total(f"{histogram}_count")
        return sum(sample.value for sample in self._named(f"{histogram}_sum")) / count if count else math.nan

    def quantile(self, q: float, histogram: str) -> float:
        """As PromQL's `histogram_quantile`: linear within the bucket."""
        buckets = sorted((float(sample.labels["le"]), sample.value) for sample in self._named(f"{histogram}_bucket"))
        rank = q * buckets[-1][1]
        low, below = 0.0, 0.0
        for bound, count in buckets:
            if count >= rank and count > below:
                return low if math.isinf(bound) else low + (bound - low) * (rank - below) / (count - below)
            low, below = bound, count
        return math.nan

    def _named(self, name: str) -> list[Sample]:
        return [sample for sample in self._samples if sample.name == name]


async def scrape(session: aiohttp.ClientSession, ops_url: str) -> Scrape:
    try:
        async with session.get(f"{ops_url}/metrics", raise_for_status=True) as response:
            return Scrape(await response.text())
    except (aiohttp.ClientError, TimeoutError) as error:
        raise DemoError(f"GET /metrics was not answered: {error or type(error).__name__}") from error
