"""What every client needs to know, by the standard library alone: where a sidecar's API is, the token that opens it, and what
is wrong with a certificate."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl

DEFAULT_URL = "http://127.0.0.1:8470"

_PLAIN = re.compile("[!-~]+")
_EXPECTED = f"expected http://host:port, https://host:port or unix:/path/to/socket, such as {DEFAULT_URL}"
_MAX_TOKEN_BYTES = 4096

_NOT_ITS_TIME = "it needs another one, in api.tls.cert_file, or one of the clocks is wrong"
_NOT_ITS_NAME = "ask by a name that stands in it, or give the sidecar one for this name"
_MENDS = {9: _NOT_ITS_TIME, 10: _NOT_ITS_TIME, 62: _NOT_ITS_NAME, 64: _NOT_ITS_NAME}
"""By OpenSSL's number for what is wrong with a certificate (X509_V_ERR_…)."""


class Endpoint(NamedTuple):
    """A listener's address. `socket_path` is empty unless it is a Unix socket; then host and port are those of its requests.

    `prefix`: before each path, where a proxy in between has one.
    """

    secure: bool
    host: str
    port: int
    socket_path: str = ""
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> "Endpoint":
        """From `http://127.0.0.1:8470`, `https://…`, `unix:/run/api.sock`, or a host and port alone. Raises `ValueError`."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            path = path.removeprefix("//") if path.startswith("///") else path
            if not path.startswith("/"):
                raise ValueError(_EXPECTED)
            return cls(False, "localhost", 80, path)
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            port = parts.port
        except ValueError:
            raise ValueError(_EXPECTED) from None
        extra = parts.query or parts.fragment or parts.username is not None
        if parts.scheme not in ("http", "https") or not parts.hostname or extra or not _PLAIN.fullmatch(text):
            raise ValueError(_EXPECTED)
        secure = parts.scheme == "https"
        return cls(secure, parts.hostname, port or (443 if secure else 80), prefix=parts.path.rstrip("/"))

    @property
    def url(self) -> str:
        """The address that requests carry."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"

    def __str__(self) -> str:
        return f"unix:{self.socket_path}" if self.socket_path else self.url + self.prefix


class Token(NamedTuple):
    """A token as text, or the first line of a file that is read for every request: so a rotation needs no restart.

    While the sidecar takes an old and a new one, a file may have both, the old one first: that one surely counts.
    """

    text: str | None = None
    file: str | None = None

    def headers(self) -> dict[str, str]:
        """The header that carries it; none without a token. Raises `ValueError` when it cannot be read, or sent."""
        token = self.text
        if self.file is not None:
            token = _read(self.file)
        if token is None:
            return {}
        if not _PLAIN.fullmatch(token):
            raise ValueError(f"{self.file or 'the token'}: expected a token of visible ASCII characters, without spaces")
        return {"Authorization": f"Bearer {token}"}

    def __repr__(self) -> str:
        return f"Token(file={self.file!r})" if self.file else "Token()"


def distrust(error: "ssl.SSLCertVerificationError", trusting: str) -> str:
    """Why the sidecar's certificate is refused, and what to do. `trusting`: where it is said who may have signed it."""
    mend = _MENDS.get(error.verify_code, f"{trusting} says whom to trust")
    return f"shows a certificate that is not trusted ({error.verify_message.rstrip('.')}); {mend}"


def _read(file: str) -> str:
    try:
        with Path(file).open("rb") as opened:
            return opened.read(_MAX_TOKEN_BYTES).decode("ascii", "replace").strip().partition("\n")[0].rstrip()
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from None
