"""Resident memory and time to ready. Usage: python -m benchmarks.footprint [--rounds 5]"""

import argparse
import statistics
import subprocess
import sys
import time

from benchmarks.processes import call, get, resident_mib, sidecar

IMPORTS = "import aiohttp, aiohttp.web, uvloop, msgspec, prometheus_client, structlog, yaml, sqlite3, resource, sys"
SHOW = "; sys.stdout.write(open('/proc/self/statm').read().split()[1])"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ready, idle, used = [], [], []
    for _ in range(options.rounds):
        with sidecar() as running:
            ready.append(running.ready_seconds)
            time.sleep(1)
            idle.append(resident_mib(running.pid))
            for _ in range(1000):
                call("PUT", f"{running.url}/v1/state", {"state": "IDLE"})
            get(f"{running.ops_url}/metrics")
            used.append(resident_mib(running.pid))
    imports = []
    for _ in range(options.rounds):
        started = time.perf_counter()
        pages = int(subprocess.run([sys.executable, "-c", IMPORTS + SHOW], capture_output=True, check=True).stdout)
        imports.append((pages * 4096 / 2**20, time.perf_counter() - started))
    _show("ready", ready, "s")
    _show("idle", idle, "MiB")
    _show("after 1000 writes and a scrape", used, "MiB")
    _show("the libraries alone: memory", [row[0] for row in imports], "MiB")
    _show("the libraries alone: start", [row[1] for row in imports], "s")


def _show(name: str, values: list[float], unit: str) -> None:
    print(f"{name:32} {statistics.median(values):7.2f} {unit} ({min(values):.2f} … {max(values):.2f})")


if __name__ == "__main__":
    main()
