"""Tokens for tests: one for each scope, in files, as the configuration names them."""

from secrecy import token

from sidecar.access import Scope

TOKENS = {scope: token(scope.name.lower()) for scope in Scope}
"""Scope → the token that has it, and no other scope."""

WRONG = token("wrong")


def bearer(held):
    """The header, as a keyword for `Client`."""
    return {"authorization": f"Bearer {held}"}


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
    return [entry(folder, scope.name.lower(), [scope], held) for scope, held in TOKENS.items()]
