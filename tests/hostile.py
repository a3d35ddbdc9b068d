"""Receivers that do what they should not: each kind by name, as an answer; and a process that serves many dead ones."""

import asyncio
import contextlib
import gzip
import json
import subprocess
import sys
from pathlib import Path

from receiver import Answer, Receiver, answer, endless, hang, partly, raw, reset

OK = b"HTTP/1.1 200 OK\r\n"
BLOCK = b"10000\r\n" + bytes(1 << 16) + b"\r\n"

NEVER_ACKNOWLEDGE: dict[str, tuple[Answer, str]] = {
    "hung": (hang, "timeout"),
    "trickling headers": (partly(OK + b"A: ", endless(b"a", 0.01)), "timeout"),
    "100 without an end": (endless(b"HTTP/1.1 100 Continue\r\n\r\n", 0.001), "timeout"),
    "too many headers": (raw(OK + b"".join(b"A%d: %s\r\n" % (n, b"a" * 99) for n in range(5000)) + b"\r\n"), "protocol"),
    "reset": (reset, "disconnected"),
    "reset in the headers": (partly(OK + b"A: 1\r\n", reset), "disconnected"),
    "closed early": (raw(b""), "disconnected"),
    "not HTTP": (raw(b"\x00\xff" * 999), "protocol"),
    "switching protocols": (raw(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"), "protocol"),
    "bad chunk": (raw(OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n"), "protocol"),  # together with its head
    "more than announced": (raw(OK + b"Content-Length: 1\r\n\r\n" + b"a" * 999, close=False), "protocol"),
    "status 999": (answer(999), "protocol"),
    "status 404": (answer(404), "client_error"),
    "status 500": (answer(500), "server_error"),
    "429 and a garbled wait": (answer(429, Retry_After="-1e9 soon"), "busy"),
    "503 and a year of waiting": (answer(503, Retry_After="31536000"), "server_error"),
    "500 and a trickling body": (partly(b"HTTP/1.1 500 X\r\nContent-Length: 999\r\n\r\n", endless(b"a", 0.01)), "server_error"),
}
"""The answer, and the outcome that it must have."""

ACKNOWLEDGE: dict[str, Answer] = {
    "trickling body": partly(OK + b"Content-Length: 999\r\n\r\n", endless(b"a", 0.01)),
    "endless body": partly(OK + b"Transfer-Encoding: chunked\r\n\r\n", endless(BLOCK)),
    "gzip bomb": answer(200, gzip.compress(bytes(32 << 20)), Content_Encoding="gzip"),
    "body cut off": raw(OK + b"Content-Length: 999\r\n\r\nabc"),
}
"""They say 200, and then spoil the rest: the message was acknowledged all the same."""


async def without_reading(reader, writer):
    """For `asyncio.start_server`: answers 200 before it has read anything, and closes."""
    writer.write(OK + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
    writer.close()


# --- many dead ones, at an address of 127.0.0.0/8 each, as if they were different machines ---

DEAD = ("hung", "refused", "trickling", "reset", "500", "tls", "redirect", "unknown name")


class _Everywhere(Receiver):
    """At every address of this machine."""

    async def __aenter__(self):
        await super().__aenter__()
        self._server.close()
        self._server = await asyncio.start_server(self._serve, "0.0.0.0", 0, backlog=1024)  # noqa: S104  (in 127.0.0.0/8)
        self.port = self._server.sockets[0].getsockname()[1]
        return self


async def _serve_dead():
    async with contextlib.AsyncExitStack() as stack:
        canary = await stack.enter_async_context(Receiver())
        answers = {
            "hung": hang,
            "trickling": NEVER_ACKNOWLEDGE["trickling headers"][0],
            "reset": reset,
            "500": answer(500),
            "tls": answer(200),  # in plain text, where TLS is asked for
            "redirect": answer(302, Location=canary.url),
        }
        opened = {kind: await stack.enter_async_context(_Everywhere(give)) for kind, give in answers.items()}
        print(json.dumps({kind: receiver.port for kind, receiver in opened.items()}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(json.dumps({"canary": canary.connections}), flush=True)


class Dead:
    """The dead ones' ports, and their process."""

    def __init__(self, process, ports, refused):
        self._process = process
        self._ports = {**ports, "refused": refused}

    def url(self, kind, number):
        """Where this one is, or would be."""
        if kind == "unknown name":
            return f"http://dead-{number}.invalid/hook"
        scheme = "https" if kind == "tls" else "http"
        return f"{scheme}://127.0.{1 + number // 250}.{1 + number % 250}:{self._ports[kind]}/hook"

    def redirected(self):
        """Ends them; how many connections came to where they redirect to."""
        told, _ = self._process.communicate()
        return json.loads(told)["canary"]


@contextlib.contextmanager
def dead(refused, env):
    """They are served by a process of their own while the block runs. `refused`: a port where nobody listens."""
    command = [sys.executable, Path(__file__)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            yield Dead(process, json.loads(process.stdout.readline()), refused)
        finally:
            process.kill()


if __name__ == "__main__":
    asyncio.run(_serve_dead())
