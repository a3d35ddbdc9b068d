"""The sessions that all attempts share: they look names up within bounds, and ask at each connection whether it may."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import aiodns
import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import AddrInfoType, Connection
from aiohttp.tracing import Trace

from sidecar.dispatch.target import Rule, Targets, refused
from sidecar.dispatch.webhook import connections_noted


class Sessions(NamedTuple):
    """`kept` keeps connections open, for receivers that are well; `fresh` makes a new one for each attempt: to all those
    that fail they would be too many."""

    kept: aiohttp.ClientSession
    fresh: aiohttp.ClientSession


@asynccontextmanager
async def client_sessions(targets: Targets, *, dns_timeout_seconds: float = 2.0) -> AsyncIterator[Sessions]:
    """Both sessions, as `client_session` makes them."""
    async with (
        client_session(targets, dns_timeout_seconds=dns_timeout_seconds) as kept,
        client_session(targets, dns_timeout_seconds=dns_timeout_seconds, keep=False) as fresh,
    ):
        yield Sessions(kept, fresh)


@asynccontextmanager
async def client_session(
    targets: Targets, *, dns_timeout_seconds: float = 2.0, nameservers: Sequence[str] | None = None, keep: bool = True
) -> AsyncIterator[aiohttp.ClientSession]:
    """No redirects, no cookies, no proxy of the environment, nothing decompressed. `nameservers`: not the system's."""
    resolver = _Resolver(dns_timeout_seconds, nameservers)
    try:
        async with aiohttp.ClientSession(
            connector=_Connector(targets, resolver, keep=keep),
            trace_configs=[connections_noted()],
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding"),
        ) as session:
            yield session
    finally:
        await resolver.close()  # a connector closes only one of its own


class _Resolver(AbstractResolver):
    """Looks names up without threads, so that hung lookups delay nobody. One that takes too long has failed."""

    def __init__(self, seconds: float, nameservers: Sequence[str] | None) -> None:
        self._seconds = seconds
        self._resolver = aiodns.DNSResolver(nameservers, timeout=seconds, tries=2)

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        try:
            async with asyncio.timeout(self._seconds):
                found = await self._resolver.getaddrinfo(
                    host, port=port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
                )
        except TimeoutError:  # as it is, it would be taken for the connection's
            raise OSError(None, f"the lookup took longer than {self._seconds:g} s") from None
        except aiodns.error.DNSError as error:
            raise OSError(None, f"the lookup failed: {error}") from error
        return [_result(host, node) for node in found.nodes]

    async def close(self) -> None:
        await self._resolver.close()


def _result(host: str, node: Any) -> ResolveResult:
    address, port = node.addr[:2]
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=address.decode(), port=port, family=node.family, proto=0, flags=flags)


class _Call:
    """One connection that is being made: its scheme, the rule that forbade an address, and whether another was permitted."""

    __slots__ = ("permitted", "rule", "scheme")

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme
        self.rule: Rule | None = None
        self.permitted = False


_call: ContextVar[_Call] = ContextVar("call")


class _Connector(aiohttp.TCPConnector):
    """Judges every address that is really connected to: what a name stands for may have changed since it was registered."""

    def __init__(self, targets: Targets, resolver: AbstractResolver, *, keep: bool) -> None:
        super().__init__(limit=0, force_close=not keep, resolver=resolver, socket_factory=self._socket)
        self._targets = targets

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        call = _Call(req.url.scheme)
        _call.set(call)
        try:
            return await super().connect(req, traces, timeout)
        except aiohttp.ClientConnectorError:
            if call.rule and not call.permitted:
                raise refused(call.rule) from None
            raise

    def _socket(self, info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        call = _call.get()
        host: Any
        host, port = address[:2]
        rule = self._targets.refusal(str(host), int(port), call.scheme)
        if rule:
            call.rule = rule
            raise ConnectionRefusedError(f"not called: {rule}")
        call.permitted = True
        return socket.socket(family, kind, protocol)
