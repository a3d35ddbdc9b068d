"""Instructions that GET and PUT /v1/state take of this version beside another one, whose folder is given.

Counted by callgrind in the process, without the kernel: the same whatever else the machine does, to about one percent. What
the start takes is taken off.

Needs valgrind. Usage: python -m benchmarks.instructions FOLDER [--tokens] [--requests 2000]
"""

import argparse
import shutil
import socket
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.against import TOKEN, token_file
from benchmarks.processes import folder_on_disk, sidecar
from benchmarks.put import put_state
from benchmarks.wrk import Call

_AT_ONCE = 8


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", action="store_true")
    parser.add_argument("--requests", type=int, default=2000)
    options = parser.parse_args()
    if not shutil.which("valgrind"):
        sys.exit("needs valgrind (see benchmarks/README.md)")
    with ExitStack() as stack:
        tokens = [token_file(Path(stack.enter_context(folder_on_disk())))] if options.tokens else []
        api = {"listen": "127.0.0.1:0"} | ({"tokens": tokens} if tokens else {})
        for method, backend in (("PUT", "sqlite"), ("GET", "sqlite"), ("PUT", "memory"), ("GET", "memory")):
            mine = per_request(method, options.requests, backend, api=api)
            theirs = per_request(method, options.requests, backend, checkout=options.folder, shutdown=None)
            print(f"| {method}, {backend} | {mine:.0f} k | {theirs:.0f} k | {theirs / mine:.2f} |", flush=True)


def per_request(method: str, requests: int, backend: str, **options: object) -> float:
    """Thousands of instructions that each one takes."""
    few, many = (counted(method, count, backend, **options) for count in (requests // 5, requests + requests // 5))
    return (many - few) / requests / 1000


def counted(method: str, requests: int, backend: str, **options: object) -> int:
    """What a whole process takes that answers so many."""
    with tempfile.NamedTemporaryFile() as out:
        watched = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}")
        with sidecar(backend, before=watched, **options) as running:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            url = f"{running.url}/v1/state"
            call = Call("GET", url, headers=headers) if method == "GET" else put_state(running.url, **headers)
            answer(call, requests)
        lines = Path(out.name).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(("totals:", "summary:")))


def answer(call: Call, requests: int) -> None:
    """Send it so many times, a few at once, each time on the same connections."""
    place = urlsplit(call.url)
    length = {"Content-Length": str(len(call.body))} if call.body else {}
    lines = [f"{name}: {value}\r\n" for name, value in {"Host": place.netloc, **call.headers, **length}.items()]
    request = f"{call.method} {place.path} HTTP/1.1\r\n{''.join(lines)}\r\n{call.body}".encode()
    with ExitStack() as stack:
        connect = socket.create_connection
        connections = [stack.enter_context(connect((place.hostname, place.port))) for _ in range(_AT_ONCE)]
        for _ in range(requests // _AT_ONCE):
            for connection in connections:
                connection.sendall(request)
            for connection in connections:
                if not connection.recv(1 << 16).startswith(b"HTTP/1.1 20"):
                    sys.exit("not every answer was 2xx")


if __name__ == "__main__":
    main()
