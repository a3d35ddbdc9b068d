"""Starts the real sidecar for tests, as a process or inside this one, and talks to it; and a webhook receiver.

All of it blocks, so that a test reads from top to bottom; the sidecar's event loop runs elsewhere.
"""

import asyncio
import contextlib
import functools
import gc
import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import described
import structlog
import uvloop
from receiver import Receiver
from secrecy import CANARY, keeps_secrets, keeps_tokens

from sidecar import config
from sidecar.service import Service
from sidecar.tasks import first_of

PATIENCE_SECONDS = 10.0
"""How long anything may take before a test gives up: far more than it should need."""

new_loop = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}[os.environ.get("LOOP", "uvloop")]
"""Makes the loop that this run of the tests is on: `make test LOOP=asyncio`."""

BASE = {
    "api": {"listen": "127.0.0.1:0"},
    "ops": {"listen": "127.0.0.1:0"},
    "journal": {"backend": "memory"},
    "shutdown": {"drain_delay": "0s", "flush_timeout": "0s"},
}


def written(folder, **sections):
    """A config file in the folder: free ports, a journal in memory and a quick end, but for the sections given."""
    path = folder / "sidecar.yaml"
    path.write_text(json.dumps(BASE | sections))  # JSON is YAML
    return path


def on_disk(folder):
    """The journal section for a file in the folder, which is not made large for nothing."""
    return {"path": str(folder / "journal.db"), "ballast": "64KiB"}


def eventually(look, seconds=PATIENCE_SECONDS):
    """The first true answer of `look`, which is asked again and again."""
    deadline = time.monotonic() + seconds
    while not (answer := look()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)
    return answer


# --- asking ---


class Answer(NamedTuple):
    """What came back. Header names may be written in any case."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def etag(self):
        return self.headers["ETag"]


class Client:
    """Asks one listener, each time on a new connection. A body that is not bytes is sent as JSON."""

    def __init__(self, address):
        self.address = address

    def get(self, path, **headers):
        return self.ask("GET", path, **headers)

    def put(self, path, body, **headers):
        return self.ask("PUT", path, body, **headers)

    def post(self, path, body=None, **headers):
        return self.ask("POST", path, body, **headers)

    def delete(self, path):
        return self.ask("DELETE", path)

    def ask(self, method, path, body=None, **headers):
        """Ask. Header names as keywords: `if_match='"k3f9-1"'`; a list sends the header more than once."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if content is not None:
            headers = {"content_type": "application/json"} | headers
        pairs = [(name.replace("_", "-"), value) for name, value in headers.items() if value is not None]
        return self.exchange(method, path, content, pairs)

    def exchange(self, method, path, content, headers):
        """Ask with exactly these headers, those that HTTP needs, and one that nothing may repeat."""
        with contextlib.closing(_connection(self.address)) as connection:
            connection.connect()  # not within what is suppressed below: without a connection there is no answer
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, values in headers:
                for value in values if isinstance(values, list) else [values]:
                    connection.putheader(name, value)
            connection.putheader("User-Agent", CANARY)
            if content is not None:
                connection.putheader("Content-Length", str(len(content)))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has answered before it had read all
                connection.endheaders(content)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        told = f"{answer.headers}{answer.body.decode('latin-1')}"
        assert keeps_tokens(told)
        assert (answer.status < 400 and path != "/metrics") or keeps_secrets(told)
        return answer


class Api(Client):
    """Asks the API, and holds each answer against the API's description."""

    def exchange(self, method, path, content, headers):
        answer = super().exchange(method, path, content, headers)
        described.check(method, path, answer)
        return answer


class _UnixConnection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


def _connection(address):
    if address.startswith("unix:"):
        connection = _UnixConnection("socket", timeout=PATIENCE_SECONDS)
        connection.host = address.removeprefix("unix:")
        return connection
    return http.client.HTTPConnection(address, timeout=PATIENCE_SECONDS)


# --- inside this process ---


class Sidecar(NamedTuple):
    """A running sidecar: its two listeners, and its log so far as a list of dicts."""

    api: Client
    ops: Client
    log: list


@contextlib.contextmanager
def served(config_file):
    """The whole sidecar on an event loop in a thread of this process: there within milliseconds."""
    started, stops, failures = threading.Event(), [], []

    async def serve():
        service = Service(config.load(str(config_file)))
        stopped = asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            await service.start(stack)
            stops.append(functools.partial(asyncio.get_running_loop().call_soon_threadsafe, stopped.set))
            started.set()
            await first_of(stopped, service.crashed)
        if service.crashed.done():
            service.crashed.result()

    def run():
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(serve())
        except BaseException as error:
            failures.append(error)
        finally:
            started.set()

    thread, thresholds = threading.Thread(target=run, name="sidecar"), gc.get_threshold()
    with structlog.testing.capture_logs() as log:
        thread.start()
        started.wait()
        try:
            if not failures:
                (ready,) = (line for line in log if line["event"] == "ready")
                yield Sidecar(Api(ready["api"]), Client(ready["ops"]), log)
        finally:
            for stop in stops:
                with contextlib.suppress(RuntimeError):  # it has crashed, and its loop is gone
                    stop()
            thread.join()
            gc.set_threshold(*thresholds)  # what the sidecar sets for a whole process is not for this one
            assert keeps_secrets(str(log))
    for failure in failures:
        raise failure


# --- as a process ---


class Process:
    """`python -m sidecar …`, perhaps with a command before it. Its standard error is read all the time; `log` has its lines."""

    def __init__(self, *arguments, before=(), cwd=None, env=None):
        self._popen = subprocess.Popen(
            [*before, sys.executable, "-m", "sidecar", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=os.environ | (env or {}),
            text=True,
        )
        self.pid = self._popen.pid
        self.lines = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self._popen.stderr:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        self._popen.stderr.close()
        with self._changed:
            self._reader = None
            self._changed.notify_all()

    @property
    def stderr(self):
        return "".join(self.lines)

    @property
    def log(self):
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def events(self, name):
        return [line for line in self.log if line["event"] == name]

    def wait_for(self, event, count=1):
        """The log lines of this event, once there are so many."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.events(event)) >= count or not self._reader, PATIENCE_SECONDS)
        assert len(self.events(event)) >= count, f"no {event} in: {self.stderr}"
        return self.events(event)

    api = property(lambda self: Api(self.wait_for("ready")[0]["api"]))
    ops = property(lambda self: Client(self.wait_for("ready")[0]["ops"]))

    def send(self, number):
        self._popen.send_signal(number)

    def exit_code(self):
        """Waits for the end."""
        code = self._popen.wait(PATIENCE_SECONDS)
        with self._changed:
            self._changed.wait_for(lambda: not self._reader, PATIENCE_SECONDS)
        return code

    def stop(self):
        """SIGTERM, and the exit code."""
        self.send(signal.SIGTERM)
        return self.exit_code()

    def kill(self):
        """SIGKILL, and wait until it is gone."""
        self._popen.kill()
        self.exit_code()


@contextlib.contextmanager
def process(*arguments, **options):
    """A process with these arguments. At the end it is killed if it still runs, and must never have shown a traceback."""
    started = Process(*arguments, **options)
    try:
        yield started
    finally:
        started.kill()
    assert "Traceback" not in started.stderr, started.stderr
    assert keeps_secrets(started.stderr)


def running(config_file, **options):
    """A process that runs on the config file."""
    return process("run", "--config", config_file, **options)


# --- the other side ---


class Hook:
    """A `Receiver` for tests that block: it answers 200 from a loop in a thread of its own. `url`: where."""

    def __init__(self, receiver, loop):
        self._receiver = receiver
        self._loop = loop
        self.url = receiver.url

    def answers(self, *answers):
        """From now on, these."""
        self.call(lambda: self._receiver.answers(*answers))

    def call(self, function):
        """Call it where the receiver runs: `hook.call(gate.set)`."""
        self._loop.call_soon_threadsafe(function)

    @property
    def got(self):
        """All requests so far."""
        return list(self._receiver.requests)

    def wait_for(self, count):
        """All requests, once there are so many."""
        return eventually(lambda: len(self.got) >= count and self.got)

    def wait_for_revision(self, revision):
        """The first request that carried it."""
        return eventually(lambda: [got for got in self.got if got.data.get("revision") == revision])[0]


@contextlib.contextmanager
def receiving():
    """A hook that listens while the block runs."""
    ready = queue.SimpleQueue()

    async def receive():
        stopped, loop = asyncio.Event(), asyncio.get_running_loop()
        async with Receiver(200) as receiver:
            ready.put((Hook(receiver, loop), lambda: loop.call_soon_threadsafe(stopped.set)))
            await stopped.wait()

    thread = threading.Thread(target=asyncio.run, args=(receive(),), name="hook")
    thread.start()
    hook, stop = ready.get()
    try:
        yield hook
    finally:
        stop()
        thread.join()


def free_port():
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def problem_of(answer, status, kind):
    """The problem in the answer, which must be a well-formed one of this status and type."""
    problem = answer.json
    assert (status, kind) == (answer.status, problem["type"]), answer
    assert "application/problem+json" == answer.headers["Content-Type"]
    assert (status, True, True) == (problem["status"], bool(problem["title"]), bool(problem["detail"]))
    return problem
