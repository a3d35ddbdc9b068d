"""What no log, metric, error, answer or output of any test may show: secrets of webhooks, tokens, private keys, and what
bad requests hold.

So the tests' own tokens all come from here, and so does what marks a request: whatever shows one is found, in the whole suite.
"""

import re

CANARY = "canary-6b1f"
"""Stands in requests: in bodies, headers and URLs. A state that has it is shown to readers, and nowhere else."""

_MARK = "canarytoken0"
_TOKEN = re.compile(_MARK)
_SECRET = re.compile(rf"whsec_[A-Za-z0-9+/]{{8}}|{_MARK}|{CANARY}|PRIVATE KEY")


def token(name, length=48):
    """A token that is known by its looks."""
    return f"{_MARK}{name}".ljust(length, "x")


def keeps_tokens(text):
    """There is no token in it. New secrets of webhooks are told to whoever asks for them; tokens never are."""
    return not _TOKEN.search(text)


def keeps_secrets(text):
    """There is no secret of any kind in it."""
    return not _SECRET.search(text)
