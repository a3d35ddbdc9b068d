"""Secrets that the configuration names by file. Every problem is a `ValueError` with a mend, and never has the content."""

import binascii
import os
import re
import stat

MAX_TOKENS = 8
"""So many tokens in one file: the old and the new one while they are changed, and some to spare."""

_MAX_BYTES = 4096
_TOKEN = re.compile(rb"[!-~]{32,256}")


def read_secret(path: str) -> str:
    """The secret `whsec_<base64>` in a file."""
    if path.startswith("whsec_"):
        raise ValueError("expected the path of a file that holds the secret, not the secret itself")
    content = _content(path, "secret").strip()
    if not content.startswith(b"whsec_") or not 24 <= _key_bytes(content.removeprefix(b"whsec_")) <= 64:
        raise ValueError(f"expected one line in {path}: whsec_ and the base64 of 24 to 64 random bytes")
    return content.decode("ascii")


def read_tokens(path: str) -> list[bytes]:
    """The tokens in a file, one a line; empty lines do not count."""
    if not os.path.exists(path):  # without the path: perhaps it is the token itself
        raise ValueError("there is no such file; name the file that holds the tokens")
    content = _content(path, "tokens")
    tokens = [line for each in content.splitlines() if (line := each.strip())]
    if not tokens:
        raise ValueError(f"{path} is empty; put one token a line there: openssl rand -hex 32")
    if len(tokens) > MAX_TOKENS or len(content) == _MAX_BYTES:
        raise ValueError(f"expected at most {MAX_TOKENS} tokens in {path}, one a line")
    for n, token in enumerate(tokens, 1):
        if not _TOKEN.fullmatch(token):
            raise ValueError(
                f"expected 32 to 256 visible ASCII characters as token {n} in {path}; make one with: openssl rand -hex 32"
            )
    return tokens


def _content(path: str, held: str) -> bytes:
    """The first 4 KiB of a file that is not open to everybody."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:  # a pipe would block
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MAX_BYTES) if stat.S_ISREG(mode) else b""
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); check the path, the owner and the mode") from None
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is not a file; name the file that holds the {held}")
    if mode & 0o007:
        raise ValueError(f"{path} is open to everybody; chmod o= {path} (in Kubernetes: defaultMode 0440)")
    return content


def _key_bytes(text: bytes) -> int:
    try:
        return len(binascii.a2b_base64(text, strict_mode=True))
    except binascii.Error:
        return 0
