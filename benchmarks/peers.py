"""Durable PUT and compare-and-set, and GET, over HTTP, side by side with what else could keep a state.

etcd behind its JSON gateway, Redis with `appendfsync always` behind webdis, and bare aiohttp handlers. All run at once, each
with its files on the same disk, and are measured in turn. Every write is on the disk before it is answered (but for the bare
handler). Needs etcd, redis-server, webdis and wrk. Usage: python -m benchmarks.peers [--rounds 5] [--seconds 3]
"""

import argparse
import json
import statistics
import subprocess
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import Running, bare, folder_on_disk, free_port, listening, sidecar
from benchmarks.put import put_state
from benchmarks.wrk import BODY, Call, Load, in_turn, line, load, needed, ratios, spread

QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


class Goal(NamedTuple):
    """At least so many times the rate of the peer."""

    work: str
    connections: int
    peer: str
    least: float


GOALS = (
    Goal("CAS", 64, "etcd", 3.0),
    Goal("PUT", 64, "etcd", 1.8),
    Goal("PUT", 1, "etcd", 1.3),
    Goal("GET", 64, "etcd", 3.0),
    Goal("PUT", 64, "webdis", 0.6),
    Goal("PUT", 1, "webdis", 0.9),
    Goal("PUT", 64, "bare", 0.55),
)


@contextmanager
def etcd() -> Iterator[Running]:
    """One member; by default it answers a write once its log is synced."""
    with folder_on_disk() as folder:
        port, peers = free_port(), free_port()
        client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peers}"
        command = ["etcd", "--data-dir", folder, "--log-level", "error"]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        with listening(command, port, **QUIET) as running:
            yield running


@contextmanager
def webdis() -> Iterator[Running]:
    """Redis that syncs its log before each answer, and webdis in front of it."""
    with folder_on_disk() as folder:
        redis, http = free_port(), free_port()
        settings = {"redis_host": "127.0.0.1", "redis_port": redis, "http_host": "127.0.0.1", "http_port": http}
        path = Path(folder, "webdis.json")
        path.write_text(json.dumps(settings | {"threads": 2, "daemonize": False, "logfile": "/dev/null"}))
        command = ["redis-server", "--port", str(redis), "--bind", "127.0.0.1", "--dir", folder]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        with listening(command, redis, **QUIET), listening(["webdis", str(path)], http, **QUIET) as running:
            yield running


def of_sidecar(url: str) -> dict[str, Call]:
    """`If-Match: *`: there must be a state."""
    return {"PUT": put_state(url), "CAS": put_state(url, **{"If-Match": "*"}), "GET": Call("GET", f"{url}/v1/state")}


def of_etcd(url: str) -> dict[str, Call]:
    """The transaction compares as well: the key must exist. The range is linearizable, as it is by default."""
    key, value = (b64encode(text.encode()).decode() for text in ("state", BODY))
    put = {"key": key, "value": value}
    compare = {"key": key, "target": "VERSION", "result": "GREATER", "version": "0"}
    bodies = {
        "PUT": ("put", put),
        "CAS": ("txn", {"compare": [compare], "success": [{"requestPut": put}]}),
        "GET": ("range", {"key": key}),
    }
    json_type = {"Content-Type": "application/json"}
    return {work: Call("POST", f"{url}/v3/kv/{path}", json.dumps(body), json_type) for work, (path, body) in bodies.items()}


def of_webdis(url: str) -> dict[str, Call]:
    """It has no compare-and-set of its own."""
    return {"PUT": Call("PUT", f"{url}/SET/state", BODY), "GET": Call("GET", f"{url}/GET/state")}


def of_bare(url: str) -> dict[str, Call]:
    """Parses and answers."""
    return {"PUT": put_state(url), "GET": Call("GET", f"{url}/v1/state")}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    needed("etcd", "redis-server", "webdis")
    with ExitStack() as stack:
        start = stack.enter_context
        calls = {
            "sidecar": of_sidecar(start(sidecar()).url),
            "etcd": of_etcd(start(etcd()).url),
            "webdis": of_webdis(start(webdis()).url),
            "bare": of_bare(start(bare()).url),
        }
        for peer in calls.values():
            load(peer["PUT"], connections=1, seconds=1)  # from now on there is a state
        print(f"body {len(BODY)} bytes, {options.rounds} rounds of {options.seconds} s, each in turn")
        measured = {}
        for connections in (64, 1):
            for work in ("PUT", "CAS", "GET"):
                these = {name: peer[work] for name, peer in calls.items() if work in peer}
                results = in_turn(these, connections=connections, rounds=options.rounds, seconds=options.seconds)
                measured[work, connections] = results
                _show(work, connections, results)
    _judge(measured)


def _show(work: str, connections: int, results: Mapping[str, list[Load]]) -> None:
    print(f"\n| {work}, {connections} conn. | req/s | p50 ms | p99 ms | sidecar / it |\n|---|---|---|---|---|", flush=True)
    for name, rows in results.items():
        print(line(name, rows), spread(ratios(results["sidecar"], rows), ".2f"), "|", flush=True)


def _judge(measured: Mapping[tuple[str, int], Mapping[str, list[Load]]]) -> None:
    print("\n| goal | measured | |\n|---|---|---|")
    for goal in GOALS:
        results = measured[goal.work, goal.connections]
        found = ratios(results["sidecar"], results[goal.peer])
        verdict = "reached" if statistics.median(found) >= goal.least else "missed"
        what = f"{goal.work}, {goal.connections} conn.: ≥ {goal.least} × {goal.peer}"
        print(f"| {what} | {spread(found, '.2f')} | {verdict} |")
    for (work, connections), results in measured.items():
        mine, theirs = (statistics.median(row.p99 for row in results[name]) for name in ("sidecar", "etcd"))
        verdict = "reached" if mine < theirs else "missed"
        print(f"| {work}, {connections} conn.: p99 below etcd's | {mine:.2f} ms, etcd {theirs:.2f} ms | {verdict} |")


if __name__ == "__main__":
    main()
