"""Values with a unit, as people write them in YAML: durations, sizes, and addresses to listen on."""

import re
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple

import msgspec

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_SIZE = re.compile(r"([0-9]{1,18})(B|KiB|MiB|GiB)")
_BYTES = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})")
_LOOPBACK = re.compile(r"localhost|::1|127(?:\.[0-9]{1,3}){3}")
_SOCKET_PATH_BYTES = 107  # what fits into a sockaddr_un


class Seconds(float):
    """A duration in seconds, written as `250ms`, `5s`, `15m`, `24h` or `7d`."""

    @classmethod
    def parse(cls, text: object) -> "Seconds":
        """Raises `ValueError` saying what is expected."""
        match = _DURATION.fullmatch(text) if isinstance(text, str) else None
        if not match:
            raise ValueError("expected a duration such as 250ms, 5s, 15m, 24h or 7d")
        amount = float(match[1])
        return cls(amount / 1000 if match[2] == "ms" else amount * _SECONDS[match[2]])

    def __str__(self) -> str:
        for unit, seconds in _SECONDS.items():
            if self >= seconds and self % seconds == 0:
                return f"{self / seconds:.0f}{unit}"
        in_milliseconds = f"{self * 1000:g}ms"
        return in_milliseconds if self and _same(in_milliseconds, self) else f"{_digits(self)}s"


def _same(text: str, seconds: float) -> bool:
    return bool(_DURATION.fullmatch(text)) and Seconds.parse(text) == seconds


def _digits(number: float) -> str:
    """The shortest digits that give the number again, without an exponent."""
    from decimal import Decimal  # rarely needed, and slow to import

    return format(Decimal(repr(float(number))).normalize(), "f")


class Bytes(int):
    """A size in bytes, written as `512B`, `256KiB`, `16MiB` or `1GiB`."""

    @classmethod
    def parse(cls, text: object) -> "Bytes":
        """Raises `ValueError` saying what is expected."""
        match = _SIZE.fullmatch(text) if isinstance(text, str) else None
        if not match:
            raise ValueError("expected a size such as 512B, 256KiB, 16MiB or 1GiB")
        return cls(int(match[1]) * _BYTES[match[2]])

    def __str__(self) -> str:
        for unit, size in _BYTES.items():
            if self and int(self) % size == 0:
                return f"{int(self) // size}{unit}"
        return "0B"


class Listen(msgspec.Struct, frozen=True):
    """Where to listen: a host and a port (0: any free one), or a Unix socket."""

    host: str = ""
    port: int = 0
    socket_path: str = ""

    @classmethod
    def parse(cls, text: object) -> "Listen":
        """From `127.0.0.1:8470`, `[::1]:8470` or `unix:/run/api.sock`. Raises `ValueError` saying what is expected."""
        if isinstance(text, str) and text.startswith("unix:/") and len(text.encode()) <= len("unix:") + _SOCKET_PATH_BYTES:
            return cls(socket_path=text.removeprefix("unix:"))
        match = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
        if not match or int(match[3]) > 65535 or not (match[2] or _is_ipv6(match[1])):
            raise ValueError('expected "host:port" such as "127.0.0.1:8470" or "[::1]:8470", or "unix:/path/to/socket"')
        return cls(host=match[1] or match[2], port=int(match[3]))

    @property
    def loopback(self) -> bool:
        """Whether only this host (or pod) can reach it."""
        return bool(self.socket_path or _LOOPBACK.fullmatch(self.host))

    def __str__(self) -> str:
        if self.socket_path:
            return f"unix:{self.socket_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except AddressValueError:
        return False
    return True


class Terms(NamedTuple):
    """For how long something is promised to a caller: unless it asks for another time, and at most. In seconds."""

    ttl_seconds: float
    max_ttl_seconds: float
