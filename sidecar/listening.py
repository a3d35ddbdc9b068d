"""Opening the listeners: on TCP or on a Unix socket, with a gate before them where one is configured."""

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import cast

from aiohttp import web

from sidecar.errors import ConfigError
from sidecar.units import Listen

_BACKLOG = 1024
"""So many connections may wait to be accepted. Beyond that the kernel lets clients wait for a second and more."""

Serve = Callable[[], asyncio.Protocol]
Gate = Callable[[Serve], asyncio.Protocol]


async def listen(
    stack: AsyncExitStack,
    name: str,
    runner: web.BaseRunner,
    at: Listen,
    *,
    mode: int = 0o600,
    gate: Gate | None = None,
) -> Listen:
    """Serve until the stack unwinds. Returns where it listens; raises `ConfigError`.

    `mode`: of a Unix socket. `gate`: makes what stands before each connection.
    """
    stack.push_async_callback(runner.cleanup)  # before the setup: a failed start unwinds too
    await runner.setup()
    loop, serve = asyncio.get_running_loop(), cast(Serve, runner.server)
    serve = partial(gate, serve) if gate else serve
    try:
        if at.socket_path:
            bound = _bound(at.socket_path, mode)
            stack.callback(_remove, at.socket_path, os.stat(at.socket_path))
            site = _Site(runner, serve, partial(loop.create_unix_server, sock=bound, backlog=1))
        else:
            site = _Site(runner, serve, partial(loop.create_server, host=at.host, port=at.port, backlog=1))
        await site.start()
    except OSError as error:
        raise ConfigError([f"{name}.listen: cannot listen on {at}: {error.strerror or error}"]) from error
    if at.socket_path:
        return at
    host, port = runner.addresses[0][:2]
    return Listen(host=host, port=port)


def _remove(path: str, ours: os.stat_result) -> None:
    """Not the socket of another process that has taken the path since."""
    with suppress(OSError):
        if os.path.samestat(ours, os.stat(path)):
            os.unlink(path)


class _Site(web.BaseSite):
    """Opened as it is told. aiohttp's own for a Unix socket removes a file that is in the way, even where somebody listens."""

    def __init__(self, runner: web.BaseRunner, serve: Serve, create: Callable[[Serve], Awaitable[asyncio.Server]]) -> None:
        super().__init__(runner)
        self._serve = serve
        self._create = create

    @property
    def name(self) -> str:
        return ""  # nobody asks

    async def start(self) -> None:
        await super().start()
        self._server = await self._create(self._serve)
        for each in self._server.sockets:  # asyncio takes its `backlog` for how many to accept before it looks at any of them
            with socket.socket(fileno=os.dup(each.fileno())) as same:
                same.listen(_BACKLOG)


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
