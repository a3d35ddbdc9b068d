"""Starting and stopping the processes that are measured."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import yaml


class Running(NamedTuple):
    """A process that answers at `url`, and the seconds from its start until it did."""

    url: str
    pid: int
    ready_seconds: float
    ops_url: str = ""


@contextmanager
def sidecar(
    backend: str = "sqlite",
    journal: Mapping[str, Any] = MappingProxyType({}),
    *,
    checkout: Path | None = None,
    before: Sequence[str] = (),
    **sections: Mapping[str, Any] | None,
) -> Iterator[Running]:
    """The real sidecar on free ports, with its journal in a temporary folder of the working directory (a real disk).

    `checkout`: the folder of another version, run with this one's libraries; `before`: what the command is an argument of. A
    section that is None is left out.
    """
    with folder_on_disk() as folder:
        config = {
            "journal": {"backend": backend, "path": str(Path(folder, "journal.db").resolve()), **journal},
            "api": {"listen": "127.0.0.1:0"},
            "ops": {"listen": "127.0.0.1:0"},
            "shutdown": {"drain_delay": "0s"},
            **sections,
        }
        path = Path(folder, "sidecar.yaml")
        path.write_text(yaml.safe_dump({name: section for name, section in config.items() if section is not None}))
        started = time.perf_counter()
        command = [*before, sys.executable, "-m", "sidecar", "run", "--config", str(path.resolve())]
        with _process(command, stderr=subprocess.PIPE, cwd=checkout) as process:
            ready = next(line for line in _logged(process.stderr) if line["event"] == "ready")
            seconds = time.perf_counter() - started
            with _drained(process.stderr):
                yield Running(f"http://{ready['api']}", process.pid, seconds, f"http://{ready['ops']}")


def _logged(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The log's lines, without those of whoever ran it."""
    return (json.loads(line) for line in lines if line.startswith(b"{"))


def folder_on_disk() -> "tempfile.TemporaryDirectory[str]":
    """A temporary folder where the disk is that matters."""
    return tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR", "."))


@contextmanager
def bare() -> Iterator[Running]:
    """The bare aiohttp handler."""
    port = free_port()
    with listening([sys.executable, "-m", "benchmarks.bare", str(port)], port) as running:
        yield running


@contextmanager
def listening(command: list[str], port: int, **options: Any) -> Iterator[Running]:
    """A process, once it listens on the port."""
    started = time.perf_counter()
    with _process(command, **options) as process:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                if process.poll() is not None:
                    sys.exit(f"{command[0]} ended with {process.returncode}")
                time.sleep(0.01)
        yield Running(f"http://127.0.0.1:{port}", process.pid, time.perf_counter() - started)


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def _process(command: list[str], **options: Any) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@contextmanager
def _drained(stream: Any) -> Iterator[None]:
    """Keep the pipe empty: a full one would stop the sidecar at its next log line."""
    threading.Thread(target=stream.read, daemon=True).start()
    yield


def resident_mib(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu_seconds(pid: int) -> float:
    """What a process has taken of the processors so far, all its threads and the kernel for it."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def get(url: str) -> bytes:
    """A GET's body."""
    with urllib.request.urlopen(url) as response:
        return response.read()


def call(method: str, url: str, body: Any) -> Any:
    """A JSON request's JSON answer."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request) as response:
        return json.load(response)
