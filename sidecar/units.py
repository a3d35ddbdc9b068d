"""Values with a unit, as people write them in YAML: durations, sizes, and addresses to listen on."""

import re

import msgspec

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)(B|KiB|MiB|GiB)")
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Seconds(float):
    """A duration in seconds, written as `250ms`, `5s`, `15m`, `24h` or `7d`."""

    @classmethod
    def parse(cls, text: object) -> "Seconds":
        """Raises `ValueError` saying what is expected."""
        match = _DURATION.fullmatch(text) if isinstance(text, str) else None
        if not match:
            raise ValueError("expected a duration such as 250ms, 5s, 15m, 24h or 7d")
        return cls(float(match[1]) * _SECONDS[match[2]])

    def __str__(self) -> str:
        for unit in ("d", "h", "m", "s"):
            if self and self % _SECONDS[unit] == 0:
                return f"{self / _SECONDS[unit]:g}{unit}"
        return f"{self * 1000:g}ms"


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
        for unit in ("GiB", "MiB", "KiB"):
            if self and int(self) % _BYTES[unit] == 0:
                return f"{int(self) // _BYTES[unit]}{unit}"
        return f"{int(self)}B"


class Listen(msgspec.Struct, frozen=True):
    """Where to listen: a host and a port (0: any free one), or a Unix socket."""

    host: str = ""
    port: int = 0
    socket_path: str = ""

    @classmethod
    def parse(cls, text: object) -> "Listen":
        """From `127.0.0.1:8470`, `[::1]:8470` or `unix:/run/api.sock`. Raises `ValueError` saying what is expected."""
        if isinstance(text, str) and text.startswith("unix:/"):
            return cls(socket_path=text.removeprefix("unix:"))
        host, colon, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
        host = host.removeprefix("[").removesuffix("]")
        if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
            raise ValueError('expected "host:port" such as "127.0.0.1:8470", or "unix:/path/to/socket"')
        return cls(host=host, port=int(port))

    @property
    def loopback(self) -> bool:
        """Whether only this host (or pod) can reach it."""
        return bool(self.socket_path) or self.host in ("localhost", "::1") or self.host.startswith("127.")

    def __str__(self) -> str:
        if self.socket_path:
            return f"unix:{self.socket_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
