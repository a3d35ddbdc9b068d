"""Throughput and latency of PUT /v1/state, side by side: SQLite journal, memory journal, bare aiohttp handler.

The three run at once and are measured in turn, so that they share the machine's good and bad moments.
Needs wrk (Debian: apt-get install wrk). Usage: python -m benchmarks.put [--rounds 5] [--seconds 4]
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import fsync
from benchmarks.processes import bare, sidecar

BODY = (
    '{"state":"ACTIVE","reason":"take-off confirmed by the commander","source_module":"commander","attempt_count":1,'
    '"context_data":{"nav_state":"AUTO_TAKEOFF","arming_state":"ARMED","landed":false,"failsafe":false,"altitude_m":12.25,'
    '"battery":{"volts":15.9,"remaining":0.87,"cells":[3.97,3.98,3.97,3.98]},"home":{"lat":47.3977419,"lon":8.5455938}},'
    '"state_metadata":{"mission":"survey-17","operator":"field-team-2","link":"telemetry-1"}}'
)
_LUA = f"""
wrk.method = "PUT"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [[{BODY}]]
"""
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def load(url: str, script: str, *, connections: int, seconds: float) -> tuple[float, float, float]:
    """Requests per second, p50 and p99 in milliseconds."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script, f"{url}/v1/state"]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in report:
        sys.exit(f"not every answer was 2xx:\n{report}")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", report)[1])
    p50, p99 = (_milliseconds(re.search(rf"{share}%\s+([\d.]+)(us|ms|s)", report)) for share in (50, 99))
    return rate, p50, p99


def _milliseconds(match: re.Match) -> float:
    return float(match[1]) * _UNITS[match[2]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("needs wrk: apt-get install wrk")
    with ExitStack() as stack:
        script = str(Path(stack.enter_context(tempfile.TemporaryDirectory()), "put.lua"))
        Path(script).write_text(_LUA)
        urls = {
            "sqlite": stack.enter_context(sidecar("sqlite")).url,
            "memory": stack.enter_context(sidecar("memory")).url,
            "bare": stack.enter_context(bare()).url,
        }
        print(f"body {len(BODY)} bytes, {options.rounds} rounds of {options.seconds} s, each in turn")
        for connections in (64, 1):
            _compare(urls, script, connections, options)
    print(f"fsync of an append here: {fsync.append_milliseconds():.3f} ms (p50)")


def _compare(urls: dict[str, str], script: str, connections: int, options: argparse.Namespace) -> None:
    for url in urls.values():
        load(url, script, connections=connections, seconds=1)
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in urls}
    for _ in range(options.rounds):
        for name, url in urls.items():
            results[name].append(load(url, script, connections=connections, seconds=options.seconds))
    print(f"\n{connections} connection(s)     req/s (min … max)          p50 ms   p99 ms   of bare (min … max)")
    for name, rows in results.items():
        rates = [row[0] for row in rows]
        ratios = [row[0] / yardstick[0] for row, yardstick in zip(rows, results["bare"], strict=True)]
        print(
            f"  {name:12} {statistics.median(rates):10.0f} ({min(rates):6.0f} … {max(rates):6.0f})"
            f" {statistics.median(row[1] for row in rows):9.3f} {statistics.median(row[2] for row in rows):8.3f}"
            f"   {statistics.median(ratios):5.2f} ({min(ratios):.2f} … {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
