"""Opening the listeners: on TCP or on a Unix socket, and in TLS where it is configured."""

import asyncio
import errno
import os
import socket
import ssl
import stat
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import cast

from aiohttp import web

from sidecar.errors import ConfigError
from sidecar.units import Listen

_BACKLOG = 1024
"""So many connections may wait to be accepted. Beyond that the kernel lets clients wait for a second and more."""

Serve = Callable[[], asyncio.Protocol]


async def listen(
    stack: AsyncExitStack,
    name: str,
    runner: web.BaseRunner,
    at: Listen,
    *,
    mode: int = 0o600,
    gate: Callable[[Serve], asyncio.Protocol] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Listen:
    """Serve until the stack unwinds. Returns where it listens; raises `ConfigError`.

    `mode`: of a Unix socket. `gate`: makes what stands before each of its connections.
    """
    stack.push_async_callback(runner.cleanup)  # before the setup: a failed start unwinds too
    await runner.setup()
    try:
        if at.socket_path:
            site: web.BaseSite = _UnixSite(runner, _bound(at.socket_path, mode), gate, tls)
            stack.callback(Path(at.socket_path).unlink, missing_ok=True)
        else:
            site = web.TCPSite(runner, at.host, at.port, ssl_context=tls, backlog=_BACKLOG)
        await site.start()
    except OSError as error:
        raise ConfigError([f"{name}.listen: cannot listen on {at}: {error.strerror or error}"]) from error
    if at.socket_path:
        return at
    host, port = runner.addresses[0][:2]
    return Listen(host=host, port=port)


class _UnixSite(web.BaseSite):
    """On a socket that is bound already. aiohttp's own removes a file that is in the way, also under somebody who listens."""

    def __init__(
        self,
        runner: web.BaseRunner,
        bound: socket.socket,
        gate: Callable[[Serve], asyncio.Protocol] | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        super().__init__(runner, ssl_context=tls)
        serve = cast(Serve, runner.server)
        self._bound = bound
        self._serve: Serve = partial(gate, serve) if gate else serve

    @property
    def name(self) -> str:
        return f"unix:{self._bound.getsockname()}"

    async def start(self) -> None:
        await super().start()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._serve, sock=self._bound, ssl=self._ssl_context, backlog=_BACKLOG)


def _bound(path: str, mode: int) -> socket.socket:
    """The socket file with its mode; nobody can connect before `listen`, and so not before it has that mode."""
    _remove_stale(path)
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(path)
        os.chmod(path, mode)
    except BaseException:
        bound.close()
        raise
    return bound


def _remove_stale(path: str) -> None:
    """What a killed process left. Raises `OSError` where somebody listens."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "there is a file which is no socket")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
            else:
                raise OSError(errno.EADDRINUSE, "another process listens there")
