"""Tokens for tests: one for each scope, in files, as the configuration names them."""

from sidecar.access import Scope

TOKENS = {scope: f"{scope.name.lower()}-{'0123456789' * 4}" for scope in Scope}
"""Scope → the token that has it, and no other scope."""

WRONG = "wrong-" + "0123456789" * 4


def bearer(token):
    """The header, as a keyword for `Client`."""
    return {"authorization": f"Bearer {token}"}


def entry(folder, name, scopes, *tokens):
    """An entry of `api.tokens`, its file written."""
    path = folder / f"token-{name}"
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text("\n".join(tokens) + "\n")
    fresh.replace(path)
    return {"name": name, "file": str(path), "scopes": [str(scope) for scope in scopes]}


def one_for_each_scope(folder):
    """The list `api.tokens`: every scope has a holder, named as it is in Python."""
    return [entry(folder, scope.name.lower(), [scope], token) for scope, token in TOKENS.items()]
