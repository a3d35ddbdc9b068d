"""What attackers cost a healthy client: its p99 alone and beside each of them, and the memory of idle connections.

The attackers are a process of their own. Usage: python -m benchmarks.hostile [--seconds 4]
"""

import argparse
import http.client
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, contextmanager, suppress

from benchmarks.processes import Running, get, resident_mib, sidecar
from benchmarks.wrk import BODY

IDLE = 10_000
LIMITS = {"connections": IDLE + 500, "header_timeout": "1m", "request_timeout": "1m", "keep_alive": "1m"}
GET = b"GET /v1/state HTTP/1.1\r\nHost: localhost\r\n"
PUT = b"PUT /v1/state HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4)
    options = parser.parse_args()
    print("| beside | PUT p50 ms | PUT p99 ms | of alone | longest | MiB more |\n|---|---|---|---|---|---|")
    with sidecar("sqlite", api={"listen": "127.0.0.1:0", "limits": LIMITS}) as running:
        for name, attack in ATTACKS.items():
            alone = puts(running, options.seconds / 2)
            before = resident_mib(running.pid)
            with attacked(running.url, attack):
                beside, grown = puts(running, options.seconds), resident_mib(running.pid) - before
            alone += puts(running, options.seconds / 2)
            p50, p99, at_rest = statistics.median(beside), percentile(beside), percentile(alone)
            print(f"| {name} | {p50:.2f} | {p99:.2f} | {p99 / at_rest:.2f} | {max(beside):.1f} | {grown:.1f} |")
        print(f"\nper idle connection: {idle_kib(running):.1f} KiB")


def puts(running: Running, seconds: float) -> list[float]:
    """Milliseconds of each durable write on one connection, with a pause of 2 ms in between."""
    took, until = [], time.perf_counter() + seconds
    with closing(http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=30)) as connection:
        while time.perf_counter() < until:
            started = time.perf_counter()
            connection.request("PUT", "/v1/state", BODY, {"Content-Type": "application/json"})
            connection.getresponse().read()
            took.append((time.perf_counter() - started) * 1000)
            time.sleep(0.002)
    return took


def percentile(values: list[float]) -> float:
    """The 99th."""
    return statistics.quantiles(values, n=100)[-1]


# --- attackers ---

Attack = Callable[[tuple[str, int]], None]


def holding(count: int, first: bytes, trickle: bytes = b"") -> Attack:
    """So many connections that stay, and send a little every second."""

    def attack(address: tuple[str, int]) -> None:
        with ExitStack() as stack:
            held = [stack.enter_context(connected(address, n)) for n in range(count)]
            for connection in held:
                connection.sendall(first)
            while True:
                time.sleep(1)
                for connection in held if trickle else ():
                    with suppress(OSError):
                        connection.sendall(trickle)

    return attack


def repeating(data: bytes, pause: float = 0.01) -> Attack:
    """A connection every 10 ms that sends this, and reads the answer."""

    def attack(address: tuple[str, int]) -> None:
        while True:
            with suppress(OSError), connected(address) as connection:
                connection.sendall(data)
                while connection.recv(1 << 16):
                    pass
            time.sleep(pause)

    return attack


def never_reading(address: tuple[str, int]) -> None:
    """A connection that asks, and reads nothing."""
    while True:
        with suppress(OSError), connected(address) as connection:
            while True:
                connection.sendall((GET + b"\r\n") * 100)


def connected(address: tuple[str, int], n: int = 0) -> socket.socket:
    """From 127.0.0.2 and so on: 200 connections from each."""
    return socket.create_connection(address, 10, (f"127.0.{n // 50_000}.{n // 200 % 250 + 2}", 0))


ATTACKS: dict[str, Attack] = {
    "1000 silent": holding(1000, b""),
    "1000 slow heads": holding(1000, GET, b"X: y\r\n"),
    "1000 slow bodies": holding(1000, PUT + b"Content-Length: 9999\r\n\r\n{", b" "),
    "what is no HTTP": repeating(GET + b"a b\r\n\r\n"),
    "headers of 1 MiB": repeating(GET + b"X: " + b"a" * (1 << 20)),
    "packed bodies": repeating(PUT + b"Content-Encoding: gzip\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000)),
    "wrong methods": repeating(GET.replace(b"GET", b"BREW") + b"\r\n"),
    "never reading": never_reading,
}


@contextmanager
def attacked(url: str, attack: Attack):
    """The attack goes on while the block runs."""
    host, port = url.removeprefix("http://").split(":")
    attacker = multiprocessing.get_context("fork").Process(target=attack, args=((host, int(port)),), daemon=True)
    attacker.start()
    time.sleep(1)
    try:
        yield
    finally:
        attacker.kill()
        attacker.join()
        time.sleep(1)


def idle_kib(running: Running) -> float:
    """Memory of one of 10000 connections that say nothing."""
    before = resident_mib(running.pid)
    with attacked(running.url, holding(IDLE, b"")):
        while f'fsm_http_connections{{listener="api"}} {IDLE}' not in get(f"{running.ops_url}/metrics").decode():
            time.sleep(0.1)
        return (resident_mib(running.pid) - before) * 1024 / IDLE


if __name__ == "__main__":
    main()
