"""Which endpoints may be called."""

import re
from collections.abc import Collection
from enum import StrEnum

from yarl import URL

from sidecar.config.sections import TargetSettings
from sidecar.errors import EndpointRefusedError

MAX_URL = 2048

_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")


def check_url(text: str) -> URL:
    """The endpoint, or `EndpointRefusedError` with the rule that it breaks."""
    if len(text) > MAX_URL:
        raise EndpointRefusedError(f"the URL is longer than {MAX_URL} characters", rule="length")
    try:
        url = URL(text)
        host = url.raw_host if url.host else ""
    except ValueError:  # also from a host that is no name in IDNA
        raise _no_url() from None
    if url.scheme not in ("http", "https") or not host:
        raise EndpointRefusedError(
            "expected an http or https URL with a host, such as https://console.example/hook", rule="scheme"
        )
    if _UNPRINTABLE.search(text) or not _HOST.fullmatch(host or ""):
        raise _no_url()
    if url.user is not None or url.password is not None:
        raise EndpointRefusedError("credentials do not belong into a URL; receivers verify the signature", rule="credentials")
    if url.fragment:
        raise EndpointRefusedError("a fragment (#…) is never sent; leave it out", rule="fragment")
    if url.port == 0:
        raise EndpointRefusedError("port 0 cannot be called", rule="port")
    return url


def _no_url() -> EndpointRefusedError:
    return EndpointRefusedError("this is not a URL; expected one such as https://console.example/hook", rule="syntax")


class Rule(StrEnum):
    """Why an address may not be called."""

    LOOPBACK = "loopback"


class Targets:
    """Which addresses may be called."""

    def __init__(self, settings: TargetSettings, own_ports: Collection[int] = ()) -> None:
        self.settings = settings
        self.own_ports = set(own_ports)

    def check(self, text: str) -> URL:
        return check_url(text)
