"""A scrape: what is counted anyway, and what is read for it at one moment, written in the form that was asked for.

Reading happens on the event loop, without awaiting: all values are of one moment. Writing takes longer and happens in a
thread, one scrape at a time, so that probes are answered meanwhile.
"""

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.registry import Collector

from sidecar import metrics

_log = structlog.get_logger("ops")
_GZIP_LEVEL = 5


class Scrape(NamedTuple):
    """The answer to one scrape."""

    body: bytes
    headers: dict[str, str]


class _Sampled(Collector):
    """The families as they were read last."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterable[Metric]:
        return self.families

    def describe(self) -> Iterable[Metric]:
        return self.families


class Exposition:
    """Makes scrapes of a registry. Its own cost is in the next one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._one_at_a_time = asyncio.Lock()
        self._errors = metrics.COLLECT_ERRORS.counter(registry)
        self._seconds = 0.0
        self._read: Callable[[], Iterator[Metric]] = lambda: iter(())
        self._prepare: Sequence[Callable[[], Awaitable[None]]] = ()
        self._sampled = _Sampled(())

    def sample(self, read: Callable[[], Iterator[Metric]], *prepare: Callable[[], Awaitable[None]]) -> None:
        """From now on, read these families for each scrape as well; `prepare` is awaited before, and may take its time."""
        self._read, self._prepare = read, prepare
        self._sampled.families = self._families()
        self._registry.register(self._sampled)  # after the first reading: it tells the registry the names

    def _families(self) -> list[Metric]:
        return [*self._read(), metrics.COLLECT_SECONDS.sample([((), self._seconds)])]

    async def scrape(self, accept: str | None, accept_encoding: str | None, names: Sequence[str] = ()) -> Scrape:
        """One scrape in the form that `accept` asks for; of these families, or of all."""
        async with self._one_at_a_time:
            for prepare in self._prepare:
                await prepare()
            started = time.perf_counter()
            try:
                self._sampled.families = self._families()
                return await asyncio.to_thread(self._write, accept, accept_encoding, names)
            except Exception:
                self._errors.inc()
                _log.exception("scrape_failed")
                raise
            finally:
                self._seconds = time.perf_counter() - started

    def _write(self, accept: str | None, accept_encoding: str | None, names: Sequence[str]) -> Scrape:
        encode, content_type = choose_encoder(accept or "")
        body = encode(self._registry.restricted_registry(names) if names else self._registry)
        headers = {"Content-Type": content_type}
        if gzip_accepted(accept_encoding or ""):
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, _GZIP_LEVEL)
        return Scrape(body, headers)
