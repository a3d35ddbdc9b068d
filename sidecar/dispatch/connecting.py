"""The session that all attempts share."""

import aiohttp

from sidecar.dispatch.target import Targets
from sidecar.dispatch.webhook import connections_noted


def client_session(targets: Targets, *, dns_timeout_seconds: float = 2.0) -> aiohttp.ClientSession:
    """No redirects, no cookies, no proxy from the environment, nothing decompressed."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=15.0),
        trace_configs=[connections_noted()],
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding"),
    )
