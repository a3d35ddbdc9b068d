"""What a scrape costs: samples, bytes, milliseconds, with 0 to 1000 subscribers; and how long probes wait meanwhile.

The scrapes are as Prometheus asks for them (OpenMetrics, gzip), back to back; a second connection asks /livez all the
time, once with and once without scrapes. Usage: python -m benchmarks.scrape [--scrapes 200] [--write]
--write puts the table into docs/metrics.md.
"""

import argparse
import gzip
import http.client
import statistics
import threading
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.fanout import Receivers
from benchmarks.processes import Running, call, get, sidecar

PAGE = Path("docs/metrics.md")
BEGIN, END = "<!-- cost: made by `python -m benchmarks.scrape --write` -->\n", "<!-- end of the cost -->"
ROWS = ((0, 50), (10, 50), (50, 50), (100, 50), (100, 100), (1000, 50), (1000, 1000))
ACCEPT = {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"}


class Cost(NamedTuple):
    """One row of the table. Times in milliseconds."""

    subscribers: int
    series: int
    samples: int
    size: int
    packed: int
    scrape: list[float]
    probe: list[float]
    probe_alone: list[float]

    def row(self) -> str:
        return (
            f"| {self.subscribers} | {self.series} | {self.samples} | {self.size / 1000:.0f} / {self.packed / 1000:.1f} kB"
            f" | {_quantiles(self.scrape)} | {_quantiles(self.probe_alone)} | {_quantiles(self.probe)} |"
        )


def _quantiles(values: list[float]) -> str:
    cuts = statistics.quantiles(values, n=100)
    return f"{cuts[49]:.1f} / {cuts[94]:.1f} / {cuts[98]:.1f} ms"


def measure(subscribers: int, series: int, scrapes: int, url: str) -> Cost:
    """One sidecar with so many subscribers, all of them well."""
    with sidecar(metrics={"subscriber_series": series}, webhooks={"max_in_flight": 256}) as running:
        for n in range(subscribers):
            call("PUT", f"{running.url}/v1/subscribers/subscriber-{n}", {"url": url})
        call("PUT", f"{running.url}/v1/state", {"state": "IDLE"})
        time.sleep(2 + subscribers / 500)
        alone = Probing(running)
        time.sleep(1.5)
        alone.stop()
        probing, times, packed = Probing(running), [], b""
        for _ in range(scrapes):
            started = time.perf_counter()
            packed = _scrape(running)
            times.append((time.perf_counter() - started) * 1000)
        probing.stop()
        body = gzip.decompress(packed)
        samples = sum(not line.startswith(b"#") for line in body.splitlines())
        get(f"{running.ops_url}/livez")
    listed = min(subscribers, series)
    return Cost(subscribers, listed, samples, len(body), len(packed), times, probing.times, alone.times)


def _scrape(running: Running) -> bytes:
    connection = http.client.HTTPConnection(running.ops_url.removeprefix("http://"))
    connection.request("GET", "/metrics", headers=ACCEPT)
    body = connection.getresponse().read()
    connection.close()
    return body


class Probing:
    """Asks /livez every 2 ms in a thread, until it is stopped."""

    def __init__(self, running: Running) -> None:
        self.times: list[float] = []
        self._done = threading.Event()
        self._address = running.ops_url.removeprefix("http://")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._address)
        while not self._done.wait(0.002):
            started = time.perf_counter()
            connection.request("GET", "/livez")
            connection.getresponse().read()
            self.times.append((time.perf_counter() - started) * 1000)

    def stop(self) -> None:
        self._done.set()
        self._thread.join()


def main() -> None:
    """Measure, print, and perhaps write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scrapes", type=int, default=200)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    receivers = Receivers()
    lines = [
        "| subscribers | with series | samples | OpenMetrics / gzip | a scrape | a probe alone | a probe meanwhile |",
        "|---|---|---|---|---|---|---|",
    ]
    try:
        for subscribers, series in ROWS:
            lines.append(measure(subscribers, series, options.scrapes, receivers.url).row())
            print(lines[-1], flush=True)
    finally:
        receivers.close()
    if options.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}" + "\n".join(lines) + f"\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
