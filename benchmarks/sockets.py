"""How long a request takes over a Unix socket, and over TCP on loopback: one connection each, in turn.

Usage: python -m benchmarks.sockets [--rounds 10] [--count 1000]
"""

import argparse
import socket
import statistics
import time
from pathlib import Path

from benchmarks.processes import folder_on_disk, sidecar
from benchmarks.wrk import BODY, spread

GET = b"GET /v1/state HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = "PUT /v1/state HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
PUT = f"{HEAD}{len(BODY)}\r\n\r\n{BODY}".encode()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    with folder_on_disk() as folder:
        path = Path(folder).resolve() / "api.sock"
        with sidecar(api={"listen": f"unix:{path}"}) as _, sidecar() as by_tcp, socket.socket(socket.AF_UNIX) as unix:
            unix.connect(str(path))
            host, port = by_tcp.url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as tcp:
                tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for name, request in (("PUT", PUT), ("GET", GET)):
                    compare(name, request, unix, tcp, options)


def compare(name: str, request: bytes, unix: socket.socket, tcp: socket.socket, options: argparse.Namespace) -> None:
    """Both in turn, and who begins changes."""
    medians: dict[socket.socket, list[float]] = {unix: [], tcp: []}
    for n in range(options.rounds):
        for each in (unix, tcp) if n % 2 else (tcp, unix):
            medians[each].append(statistics.median(latency(each, request) for _ in range(options.count)))
    ratio = spread([mine / theirs for mine, theirs in zip(medians[unix], medians[tcp], strict=True)], ".2f")
    print(f"| {name} | {spread(medians[unix], '.0f')} µs | {spread(medians[tcp], '.0f')} µs | {ratio} |", flush=True)


def latency(connection: socket.socket, request: bytes) -> float:
    """Of one request, in microseconds. Its answer comes in one piece."""
    started = time.perf_counter()
    connection.sendall(request)
    answer = connection.recv(65536)
    seconds = time.perf_counter() - started
    if not answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 201 ")):
        raise SystemExit(answer.decode())
    return seconds * 1e6


if __name__ == "__main__":
    main()
