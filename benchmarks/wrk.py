"""The load generator: wrk, one thread, keep-alive connections (Debian: apt-get install wrk)."""

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

BODY = (
    '{"state":"ACTIVE","reason":"take-off confirmed by the commander","source_module":"commander","attempt_count":1,'
    '"context_data":{"nav_state":"AUTO_TAKEOFF","arming_state":"ARMED","landed":false,"failsafe":false,"altitude_m":12.25,'
    '"battery":{"volts":15.9,"remaining":0.87,"cells":[3.97,3.98,3.97,3.98]},"home":{"lat":47.3977419,"lon":8.5455938}},'
    '"state_metadata":{"mission":"survey-17","operator":"field-team-2","link":"telemetry-1"}}'
)
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


class Call(NamedTuple):
    """A request that is sent again and again."""

    method: str
    url: str
    body: str = ""
    headers: Mapping[str, str] = {}

    @property
    def script(self) -> str:
        headers = "".join(f'wrk.headers["{name}"] = [[{value}]]\n' for name, value in self.headers.items())
        return f'wrk.method = "{self.method}"\n{headers}' + (f"wrk.body = [[{self.body}]]\n" if self.body else "")


class Load(NamedTuple):
    """What one run gave: requests per second, and milliseconds."""

    rate: float
    p50: float
    p99: float


def needed(*programs: str) -> None:
    """End with a hint when one of the programs is not installed."""
    missing = [program for program in ("wrk", *programs) if not shutil.which(program)]
    if missing:
        sys.exit(f"needs {', '.join(missing)} (see benchmarks/README.md)")


def load(call: Call, *, connections: int, seconds: int) -> Load:
    """One run. Every answer must be 2xx."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(call.script)
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script.name, call.url]
        report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in report or "Socket errors" in report:
        sys.exit(f"not every answer was 2xx:\n{report}")
    p50, p99 = (re.search(rf"{share}%\s+([\d.]+)(us|ms|s)", report) for share in (50, 99))
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", report)[1])
    return Load(rate, float(p50[1]) * _UNITS[p50[2]], float(p99[1]) * _UNITS[p99[2]])


def in_turn(calls: Mapping[str, Call], *, connections: int, rounds: int, seconds: int) -> dict[str, list[Load]]:
    """All of them, one after the other, round by round: they share the machine's good and bad moments."""
    for call in calls.values():
        load(call, connections=connections, seconds=1)
    results: dict[str, list[Load]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            results[name].append(load(call, connections=connections, seconds=seconds))
    return results


def ratios(rows: Sequence[Load], yardstick: Sequence[Load]) -> list[float]:
    """How much more of the one, round by round."""
    return [mine.rate / other.rate for mine, other in zip(rows, yardstick, strict=True)]


def spread(values: Sequence[float], form: str) -> str:
    """The median, with the range."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} … {max(values):{form}})"


def line(name: str, rows: Sequence[Load]) -> str:
    """A row of a Markdown table: rate, p50, p99."""
    p50, p99 = (statistics.median(column) for column in ([row.p50 for row in rows], [row.p99 for row in rows]))
    return f"| {name} | {spread([row.rate for row in rows], '.0f')} | {p50:.2f} | {p99:.2f} |"
