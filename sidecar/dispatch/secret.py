"""Webhook secrets and signatures of Standard Webhooks (https://www.standardwebhooks.com, symmetric signatures)."""

import base64
import binascii
import hashlib
import hmac
import secrets

_PREFIX = "whsec_"


class Secret:
    """A signing key of 24 to 64 bytes, written `whsec_<base64>`. It never shows itself: ask for `text`."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def parse(cls, text: str) -> "Secret":
        """Raises `ValueError` saying what is expected, without the text."""
        try:
            key = base64.b64decode(text.strip().removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not text.startswith(_PREFIX) or not 24 <= len(key) <= 64:
            raise ValueError("expected a secret whsec_ followed by the base64 of 24 to 64 random bytes")
        return cls(key)

    @classmethod
    def generate(cls) -> "Secret":
        return cls(secrets.token_bytes(32))

    @property
    def text(self) -> str:
        return _PREFIX + base64.b64encode(self._key).decode()

    def sign(self, message_id: str, timestamp: int, body: bytes) -> str:
        """The value of the `webhook-signature` header. `timestamp`: seconds since the Unix epoch."""
        digest = hmac.digest(self._key, b"%s.%d.%s" % (message_id.encode(), timestamp, body), hashlib.sha256)
        return "v1," + base64.b64encode(digest).decode()

    def __repr__(self) -> str:
        return "Secret(***)"
