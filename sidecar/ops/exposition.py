"""A scrape: everything is read at one moment, and written in the form that was asked for.

Reading happens on the event loop, without awaiting. Writing takes longer and happens in a thread, one scrape at a time, so that
probes are answered meanwhile.
"""

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
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


class _Read(Collector):
    """Families that have been read: what the writers of all forms ask for."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class Exposition(Collector):
    """Makes scrapes of a registry, and tells in it how long the one before took. `prepare` is awaited before each."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.prepare: Sequence[Callable[[], Awaitable[None]]] = ()
        self._registry = registry
        self._one_at_a_time = asyncio.Lock()
        self._errors = metrics.COLLECT_ERRORS.counter(registry)
        self._seconds = 0.0
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Its own family."""
        return [metrics.COLLECT_SECONDS.sample([((), self._seconds)])]

    def describe(self) -> Iterable[Metric]:
        """As `collect`: the registry wants to know the names."""
        return self.collect()

    async def scrape(self, accept: str | None, accept_encoding: str | None, names: Sequence[str] = ()) -> Scrape | None:
        """One scrape in the form that `accept` asks for; of the families with these names, or of all.

        None when it could not be made, which is counted, and logged with its cause.
        """
        for prepare in self.prepare:  # not one at a time: those who wait for a disk that hangs wait together
            await prepare()
        async with self._one_at_a_time:
            started = time.perf_counter()
            try:
                registry = self._registry.restricted_registry(names) if names else self._registry
                return await asyncio.to_thread(_written, _Read(list(registry.collect())), accept, accept_encoding)
            except Exception:
                self._errors.inc()
                _log.exception("scrape_failed")
                return None
            finally:
                self._seconds = time.perf_counter() - started


def _form(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """How to write, and its Content-Type. What asks for a version that is none gets the plain text."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        return choose_encoder("")


def _written(read: Collector, accept: str | None, accept_encoding: str | None) -> Scrape:
    encode, content_type = _form(accept or "")
    body, headers = encode(read), {"Content-Type": content_type}
    if gzip_accepted(accept_encoding or ""):
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body, _GZIP_LEVEL)
    return Scrape(body, headers)
