"""What no log, metric, error, answer or output of any test may show: secrets of webhooks, tokens, and private keys.

So the tests' own tokens all come from here: whatever shows one is found, in the whole suite.
"""

import re

_MARK = "canarytoken0"
_TOKEN = re.compile(_MARK)
_SECRET = re.compile(rf"whsec_[A-Za-z0-9+/]{{8}}|{_MARK}|PRIVATE KEY")


def token(name, length=48):
    """A token that is known by its looks."""
    return f"{_MARK}{name}".ljust(length, "x")


def keeps_tokens(text):
    """There is no token in it. New secrets of webhooks are told to whoever asks for them; tokens never are."""
    return not _TOKEN.search(text)


def keeps_secrets(text):
    """There is no secret of any kind in it."""
    return not _SECRET.search(text)
