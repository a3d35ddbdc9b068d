"""Which endpoints may be called: the form of a URL, and one rule for addresses, at registration and at each connection."""

import os
import re
import socket
from collections.abc import Collection, Iterable
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from yarl import URL

from sidecar.config.sections import Config, TargetSettings
from sidecar.errors import ConfigError, EndpointRefusedError

MAX_URL = 2048

_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network


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
    if _is_disguised(host, text):
        raise EndpointRefusedError(
            "write an address plainly, such as 10.1.2.3 or [fd00::1], and a name without a dot at its end", rule="host"
        )
    return url


def _no_url() -> EndpointRefusedError:
    return EndpointRefusedError("this is not a URL; expected one such as https://console.example/hook", rule="syntax")


def _is_disguised(host: str, text: str) -> bool:
    """Whether some libraries would read the host as an address and others as a name, or as another address."""
    if host.endswith("."):
        return True
    if _address(host):
        return not text.isascii() and host not in text.partition("://")[2].partition("/")[0]
    return bool(_NUMBER.fullmatch(host.rpartition(".")[2]))


class Rule(StrEnum):
    """Why an address may not be called. The first ones hold whatever is configured."""

    EMBEDDED = "embedded"
    OWN_LISTENER = "own_listener"
    LINK_LOCAL = "link_local"
    METADATA = "metadata"
    CONTROL_PLANE = "control_plane"
    RESERVED = "reserved"
    DENIED = "denied"
    LOOPBACK = "loopback"
    PRIVATE = "private"
    PUBLIC = "public"
    PLAIN_HTTP = "plain_http"


_MEANINGS = {
    Rule.EMBEDDED: "an address that embeds another one is never called; write the address itself",
    Rule.OWN_LISTENER: "this is a listener of the sidecar itself",
    Rule.LINK_LOCAL: "link-local addresses are never called: metadata services live there",
    Rule.METADATA: "a cloud's metadata service is never called",
    Rule.CONTROL_PLANE: "the API server of Kubernetes and kubelets are never called",
    Rule.RESERVED: "this address is reserved; no receiver can have it",
    Rule.DENIED: "webhooks.targets.deny forbids this address",
    Rule.LOOPBACK: "webhooks.targets.loopback forbids to call this pod; change it, or put this address into `allow`",
    Rule.PRIVATE: "webhooks.targets.private forbids private addresses; change it, or put this one into `allow`",
    Rule.PUBLIC: "webhooks.targets.public forbids public addresses; change it, or put this one into `allow`",
    Rule.PLAIN_HTTP: "a public address is called by https only; use it, or set webhooks.targets.public to any",
}


def _networks(*texts: str) -> tuple[_Network, ...]:
    return tuple(ip_network(text) for text in texts)


# Lists of our own: `is_global` and its like differ between Python's patch releases, and call multicast and NAT64 global.
_NEVER: dict[Rule, tuple[_Network, ...]] = {
    Rule.LINK_LOCAL: _networks("169.254.0.0/16", "fe80::/10", "fec0::/10"),
    Rule.METADATA: _networks("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"),
    Rule.RESERVED: _networks(
        *("0.0.0.0/8", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/4", "240.0.0.0/4", "::/128", "100::/64", "2001:db8::/32", "3fff::/20", "5f00::/16", "ff00::/8"),
    ),
}
_EMBEDDING = _networks("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::ffff:0:0:0/96")
_COMPATIBLE = ip_network("::/96")
_LOOPBACK = _networks("127.0.0.0/8", "::1/128")
_PRIVATE = _networks("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
_KUBELET_PORTS = (10250, 10255)


class Targets:
    """Which addresses may be called. `own_ports`: where the sidecar listens; more may be added once they are known."""

    def __init__(self, settings: TargetSettings, own_ports: Iterable[int] = ()) -> None:
        self.own_ports = set(own_ports)
        self._settings = settings
        self._allow = _networks(*settings.allow)
        self._deny = _networks(*settings.deny)
        api_server = os.environ.get("KUBERNETES_SERVICE_HOST", "").strip("[]")
        self._api_server = _address(api_server), os.environ.get("KUBERNETES_SERVICE_PORT", "443")

    @classmethod
    def of(cls, config: Config) -> "Targets":
        """What a config file allows. Raises `ConfigError` when one of its own subscribers is not among it."""
        targets = cls(config.webhooks.targets, [config.api.listen.port, config.ops.listen.port])
        problems = []
        for n, subscriber in enumerate(config.subscribers):
            try:
                targets.check(subscriber.url)
            except EndpointRefusedError as refusal:
                problems.append(f"subscribers[{n}].url: {refusal}")
        if problems:
            raise ConfigError(problems)
        return targets

    def check(self, text: str) -> URL:
        """The endpoint. Raises `EndpointRefusedError`; a name is judged when it is called, by the addresses it has then."""
        url = check_url(text)
        host = url.raw_host or ""
        literal = "127.0.0.1" if host == "localhost" or host.endswith(".localhost") else host
        if _address(literal):
            rule = self.refusal(literal, url.port or 0, url.scheme)
            if rule:
                raise refused(rule)
        return url

    def refusal(self, text: str, port: int, scheme: str) -> Rule | None:
        """The rule that forbids to call this address, or None. `scheme`: http or https."""
        address = _address(text.partition("%")[0])
        if address is None:
            return Rule.RESERVED
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        never = self._never(address, port)
        if never:
            return never
        if _within(address, self._deny):
            return Rule.DENIED
        if _within(address, self._allow):
            return None
        if _within(address, _LOOPBACK):
            return None if self._settings.loopback else Rule.LOOPBACK
        if _within(address, _PRIVATE):
            return None if self._settings.private else Rule.PRIVATE
        if self._settings.public == "none":
            return Rule.PUBLIC
        return Rule.PLAIN_HTTP if scheme != "https" and self._settings.public == "https" else None

    def _never(self, address: _Address, port: int) -> Rule | None:
        if _is_embedding(address):
            return Rule.EMBEDDED
        if port in self.own_ports and _is_this_host(address):
            return Rule.OWN_LISTENER
        for rule, networks in _NEVER.items():
            if _within(address, networks):
                return rule
        if (address, str(port)) == self._api_server:
            return Rule.CONTROL_PLANE
        if port in _KUBELET_PORTS and _within(address, _LOOPBACK + _PRIVATE):
            return Rule.CONTROL_PLANE
        return None


def refused(rule: Rule) -> EndpointRefusedError:
    """The error that says which rule it is, and what to do."""
    return EndpointRefusedError(_MEANINGS[rule], rule=rule)


def _address(text: str) -> _Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _within(address: _Address, networks: Collection[_Network]) -> bool:
    return any(address in network for network in networks)


def _is_embedding(address: _Address) -> bool:
    compatible = address in _COMPATIBLE and int(address) > 1  # but for :: and ::1
    return compatible or _within(address, _EMBEDDING)


def _is_this_host(address: _Address) -> bool:
    """Whether the address is one of this host's (or pod's): only such a one can be bound."""
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
