"""TLS for a listener: certificate and key, and the CA of clients, by file."""

import os
import ssl
import stat
from contextlib import suppress
from typing import NamedTuple


class Files(NamedTuple):
    """What a listener speaks TLS with. `client_ca`: whoever has no certificate of this CA is not let in."""

    certificate: str
    key: str
    client_ca: str | None = None

    def content(self) -> tuple[bytes, ...]:
        """What is in the files now. Raises `OSError`."""
        return tuple(_read(path) for path in (self.certificate, self.key, self.client_ca) if path)


def context_of(files: Files) -> ssl.SSLContext:
    """For servers, TLS 1.2 or later. Raises `ValueError` with a mend."""
    if problems := [
        problem for path in (files.certificate, files.key, files.client_ca) if path and (problem := _problem(path))
    ]:
        raise ValueError(problems[0])
    if os.stat(files.key).st_mode & 0o007:
        raise ValueError(f"{files.key} is open to everybody; chmod o= {files.key} (in Kubernetes: defaultMode 0440)")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (ssl.SSLError, ValueError, OSError):
        raise ValueError(
            f"{files.certificate} and {files.key} are no certificate and its key, both PEM, the key not encrypted"
        ) from None
    if files.client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(files.client_ca)
        except (ssl.SSLError, OSError):
            raise ValueError(f"{files.client_ca} holds no CA certificate as PEM") from None
    return context


class Tls:
    """The context of a listener's new connections.

    Another one for other certificates: it takes up no session that began under those before, whose CA may be withdrawn.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._current = context_of(files)

    def reload(self) -> None:
        """From now on what the files hold. What cannot be used, in the very moment of its change, is left for the next look."""
        with suppress(ValueError, OSError):
            self._current = context_of(self._files)

    def context(self) -> ssl.SSLContext:
        """That of now."""
        return self._current


def _problem(path: str) -> str | None:
    try:
        _read(path)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}); check the path, the owner and the mode"
    return None


def _read(path: str) -> bytes:
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:  # a pipe would block
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "not a file")
        return file.read(1 << 20)


def _no_password() -> str:
    """OpenSSL would ask for it on the terminal."""
    return ""
