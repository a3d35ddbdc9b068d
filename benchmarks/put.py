"""Throughput and latency of PUT /v1/state, side by side: SQLite journal, memory journal, bare aiohttp handler.

The three run at once and are measured in turn. Needs wrk. Usage: python -m benchmarks.put [--rounds 5] [--seconds 4]
"""

import argparse
from contextlib import ExitStack

from benchmarks import fsync
from benchmarks.processes import bare, sidecar
from benchmarks.wrk import BODY, Call, in_turn, line, needed, ratios, spread


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    needed()
    with ExitStack() as stack:
        starts = {"SQLite": sidecar("sqlite"), "memory": sidecar("memory"), "bare": bare()}
        urls = {name: stack.enter_context(start).url for name, start in starts.items()}
        calls = {name: put_state(url) for name, url in urls.items()}
        print(f"body {len(BODY)} bytes, {options.rounds} rounds of {options.seconds} s, each in turn")
        for connections in (64, 1):
            results = in_turn(calls, connections=connections, rounds=options.rounds, seconds=options.seconds)
            print(f"\n| PUT, {connections} conn. | req/s | p50 ms | p99 ms | of bare |\n|---|---|---|---|---|")
            for name, rows in results.items():
                print(line(name, rows), spread(ratios(rows, results["bare"]), ".2f"), "|")
    print(f"\nfsync of an append here: {fsync.append_milliseconds():.3f} ms (p50)")


def put_state(url: str, **headers: str) -> Call:
    """PUT /v1/state."""
    return Call("PUT", f"{url}/v1/state", BODY, {"Content-Type": "application/json", **headers})


if __name__ == "__main__":
    main()
