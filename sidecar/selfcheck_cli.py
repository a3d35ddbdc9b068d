"""`fsm-sidecar selfcheck`: whether a running sidecar keeps its contract."""

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from sidecar import trust
from sidecar.errors import ConfigError

if TYPE_CHECKING:  # what is imported where it is used takes time that other commands need not spend
    import ssl

    from sidecar.asking import Place
    from sidecar.endpoint import Token
    from sidecar.selfcheck import Verdict
    from sidecar.selfcheck.roundtrip import Reached

URL = "http://127.0.0.1:8470"
OPS_PORT = 8471

_ABOUT = """Check the contract of a running sidecar: the API, the probes, that a write is taken and a stale one refused, that a
webhook arrives and is signed, the metrics. The agent's state stays as it was: writes are tried as dry runs, and the subscriber
that is registered for a moment is removed again. Exit code 0: all is well, 1: a check failed, 69: nobody answers there."""


def add_command(parser: argparse.ArgumentParser) -> None:
    """`selfcheck`; its `command` takes the options and gives an exit code."""
    parser.description = _ABOUT
    api_help = f"its API, FSM_SIDECAR_URL or else {URL} by default; unix:/path for a socket"
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", metavar="URL", help=api_help)
    where.add_argument("where", metavar="URL", nargs="?", help="the same, without --url")
    parser.add_argument("--ops", metavar="URL", help=f"its probes and metrics; by default port {OPS_PORT} of the same host")
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="a token of the scopes state:read, state:write and subscribe; FSM_SIDECAR_TOKEN_FILE by default",
    )
    trust.add_flags(parser)
    parser.add_argument(
        "--receiver",
        metavar="HOST[:PORT]",
        default="127.0.0.1",
        help="where the sidecar reaches this machine, for the webhook; 127.0.0.1 by default",
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="also repeat the current state in a real write: an agent that writes with If-Match then gets one 412",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_selfcheck)


def _selfcheck(options: argparse.Namespace) -> int:
    from sidecar.asking import NoAnswerError
    from sidecar.selfcheck import verdicts

    token_file = options.token_file or os.environ.get("FSM_SIDECAR_TOKEN_FILE")
    token = _token(token_file) if token_file else None
    name, tls = "--url" if options.url else "URL", trust.context_of(options)
    api = _place(name, options.url or options.where or os.environ.get("FSM_SIDECAR_URL") or URL, token, tls)
    ops = _place("--ops", options.ops or f"http://{_bracketed(api.host or '127.0.0.1')}:{OPS_PORT}", None, tls)
    reached = _reached(options.receiver)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)  # the subscriber is to be removed
    found = []
    try:
        for verdict in verdicts(api, ops, reached, write=options.write):
            found.append(verdict)
            if not options.json:
                _tell(verdict)
    except NoAnswerError as error:
        print(f"fsm-sidecar: {api.url}: {error}", file=sys.stderr)
        return os.EX_UNAVAILABLE
    failed = sum(verdict.ok is False for verdict in found)
    if options.json:
        _tell_json(api, ops, found)
    else:
        print(f"{failed} of {len(found)} checks failed" if failed else f"{api.url} keeps its contract")
    return int(bool(failed))


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _place(option: str, text: str, token: "Token | None", tls: "ssl.SSLContext | None") -> "Place":
    from sidecar.asking import Place

    try:
        return Place(text, token=token, tls=tls)
    except ValueError as error:
        raise ConfigError([f"{option}: {error}"]) from None


def _token(path: str) -> "Token":
    from sidecar.endpoint import Token

    token = Token(file=path)
    try:
        token.headers()
    except ValueError as wrong:
        raise ConfigError([f"--token-file {wrong}"]) from None
    return token


def _reached(text: str) -> "Reached":
    from urllib.parse import urlsplit

    from sidecar.selfcheck.roundtrip import Reached

    try:
        parts = urlsplit(f"//{_bracketed(text)}")
        if not parts.hostname or parts.netloc != _bracketed(text) or "@" in text:
            raise ValueError
        return Reached(parts.hostname, parts.port or 0)
    except ValueError:
        raise ConfigError([f"--receiver {text}: expected a host or HOST:PORT, such as 10.1.2.3:9000"]) from None


def _bracketed(host: str) -> str:
    """An IPv6 address as it stands in URLs."""
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host


def _tell(verdict: "Verdict") -> None:
    word = {True: "ok", False: "FAILED", None: "skipped"}[verdict.ok]
    detail = "".join(character if character.isprintable() else "?" for character in verdict.detail)  # it quotes who answered
    print(f"{word:<8} {verdict.check}: {detail}", flush=True)


def _tell_json(api: "Place", ops: "Place", found: "list[Verdict]") -> None:
    import msgspec

    ok = all(verdict.ok is not False for verdict in found)
    checks = [verdict._asdict() for verdict in found]
    print(msgspec.json.encode({"url": api.url, "ops": ops.url, "ok": ok, "checks": checks}).decode())
