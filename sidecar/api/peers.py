"""Who may connect to a Unix socket, by what the kernel says of the other end."""

import asyncio
import socket
import struct
from collections.abc import Callable, Collection
from typing import NamedTuple

_UCRED = struct.Struct("3i")


class Peers(NamedTuple):
    """These users, and those whose primary group is one of these. Both empty: everybody."""

    uids: Collection[int] = ()
    gids: Collection[int] = ()

    def admit(self, transport: asyncio.BaseTransport) -> bool:
        """Whether the other end is one of them."""
        if not (self.uids or self.gids):
            return True
        connection = transport.get_extra_info("socket")
        _, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return uid in self.uids or gid in self.gids


class Doorkeeper(asyncio.Protocol):
    """Stands before the protocol that `serve` makes. A stranger's connection is closed unread, and `refused` called."""

    def __init__(self, peers: Peers, refused: Callable[[], None], serve: Callable[[], asyncio.Protocol]) -> None:
        self._peers = peers
        self._refused = refused
        self._serve = serve

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # all of ours are such
        """The first thing that happens on a connection."""
        if self._peers.admit(transport):
            protocol = self._serve()
            transport.set_protocol(protocol)
            protocol.connection_made(transport)
        else:
            self._refused()
            transport.abort()
