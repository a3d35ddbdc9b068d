"""GET and PUT /v1/state of this version beside another one, whose folder is given (`git worktree add`).

The rate, and the processor time per request, which other work on the machine hardly changes. Both get the same requests; with
`--tokens` this one checks each one's token.

Needs wrk. Usage: python -m benchmarks.against FOLDER [--tokens] [--rounds 5] [--seconds 3] [--connections 64]
"""

import argparse
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import Running, cpu_seconds, folder_on_disk, sidecar
from benchmarks.put import put_state
from benchmarks.wrk import Call, load, needed, spread

TOKEN = "0123456789abcdef" * 3


class Cost(NamedTuple):
    """Of one run: requests per second, and microseconds of processor time per request."""

    rate: float
    cpu: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    needed()
    with ExitStack() as stack:
        tokens = [token_file(Path(stack.enter_context(folder_on_disk())))] if options.tokens else []
        api = {"listen": "127.0.0.1:0", "tokens": tokens} if tokens else {"listen": "127.0.0.1:0"}
        for backend in ("sqlite", "memory"):
            with (
                sidecar(backend, checkout=options.folder, shutdown=None) as other,
                sidecar(backend, api=api) as this,
            ):
                for method in ("PUT", "GET"):
                    compare(f"{method}, {backend}", method, this, other, options)


def token_file(folder: Path) -> dict[str, object]:
    """An entry of `api.tokens`, its file written."""
    path = folder.resolve() / "token"
    path.touch(mode=0o600)
    path.write_text(TOKEN)
    return {"name": "agent", "file": str(path), "scopes": ["state:read", "state:write"]}


def compare(title: str, method: str, this: Running, other: Running, options: argparse.Namespace) -> None:
    """Both in turn, and who begins changes."""
    costs: dict[Running, list[Cost]] = {this: [], other: []}
    for running in costs:
        run(method, running, options.connections, 1)
    for n in range(options.rounds):
        for running in (this, other) if n % 2 else (other, this):
            costs[running].append(run(method, running, options.connections, options.seconds))
    pairs = list(zip(costs[this], costs[other], strict=True))
    by_rate = spread([mine.rate / theirs.rate for mine, theirs in pairs], ".2f")
    by_cpu = spread([theirs.cpu / mine.cpu for mine, theirs in pairs], ".2f")
    rate, cpu = (statistics.median(column) for column in zip(*costs[this], strict=True))
    print(f"| {title} | {rate:.0f}/s, {cpu:.1f} µs | {by_rate} | {by_cpu} |", flush=True)


def run(method: str, running: Running, connections: int, seconds: int) -> Cost:
    """One run. Every request has a token, whether or not it is looked at."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    url = f"{running.url}/v1/state"
    call = Call("GET", url, headers=headers) if method == "GET" else put_state(running.url, **headers)
    before = cpu_seconds(running.pid)
    rate = load(call, connections=connections, seconds=seconds).rate
    return Cost(rate, (cpu_seconds(running.pid) - before) / (rate * seconds) * 1e6)


if __name__ == "__main__":
    main()
