"""The epoch: the identity of one journal."""

import secrets

_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


def new_epoch() -> str:
    """A short random name for a journal: 40 bits, without letters and digits that are mistaken for each other."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(8))
