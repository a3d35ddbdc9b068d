"""A command that asks a sidecar: its flags, and how it ends."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from sidecar import trust
from sidecar.errors import ConfigError

if TYPE_CHECKING:
    from sidecar.commands.asking import Api

Commands: TypeAlias = "argparse._SubParsersAction[Any]"
Command = Callable[["Api", argparse.Namespace], int | None]


def add(
    commands: Commands,
    name: str,
    help: str,
    command: Command,
    *,
    writes: bool = False,
) -> argparse.ArgumentParser:
    """A command with the flags that all have."""
    added: argparse.ArgumentParser = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
    added.set_defaults(command=lambda options: _run(command, options, writes=writes))
    added.add_argument("--json", action="store_true", help="print JSON, for scripts")
    where = added.add_argument_group("where the sidecar is")
    where.add_argument("--url", metavar="URL", help="http://host:port, https://… or unix:/path; FSM_SIDECAR_URL by default")
    where.add_argument("--config", metavar="FILE", help="the sidecar's YAML file, which says where it listens")
    where.add_argument("--token-file", metavar="FILE", help="a file with the token; FSM_SIDECAR_TOKEN_FILE by default")
    trust.add_flags(where)
    where.add_argument("--timeout", metavar="TIME", default="10s", help="how long it may take to answer; 10s by default")
    return added


def _run(command: Command, options: argparse.Namespace, *, writes: bool) -> int:
    from sidecar.asking import NoAnswerError
    from sidecar.commands.asking import api_of
    from sidecar.commands.outcomes import ProblemError, tell_no_answer, tell_problem, tell_stranger

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that knows few characters is no reason to show none
    api = api_of(options)
    try:
        try:
            return command(api, options) or 0
        except ProblemError as error:
            if options.json:
                print_json(error.problem)
            return tell_problem(error)
    except NoAnswerError as error:
        return tell_no_answer(api.url, error, writes=writes)
    except (ValueError, LookupError, TypeError) as error:
        return tell_stranger(error)


def add_writer_token(command: argparse.ArgumentParser) -> None:
    """The flag for the token of `writer take`."""
    command.add_argument(
        "--writer-token",
        metavar="TOKEN",
        help="that you are the writer: from `writer take`; FSM_SIDECAR_WRITER_TOKEN by default",
    )


def claim(options: argparse.Namespace) -> dict[str, str]:
    """The header that carries it, where there is one. Raises `ConfigError` for an empty one: `writer take` was refused."""
    token = os.environ.get("FSM_SIDECAR_WRITER_TOKEN") if options.writer_token is None else options.writer_token
    if token == "":
        raise ConfigError(["the writer token is empty: --writer-token or FSM_SIDECAR_WRITER_TOKEN; has `writer take` failed?"])
    return {} if token is None else {"Writer-Token": token}


def print_json(value: Any) -> None:
    """One JSON document on a line of its own, at once."""
    import json

    print(json.dumps(value, separators=(",", ":")), flush=True)


def given(**values: Any) -> dict[str, Any]:
    """Those that are given."""
    return {name: value for name, value in values.items() if value is not None}


def number(least: int) -> Callable[[str], int]:
    """Reads a number from `least`. Raises `argparse.ArgumentTypeError`."""

    def read(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) <= 16 and int(text) >= least:
            return int(text)
        raise argparse.ArgumentTypeError(f"expected a number from {least}, got {text}")

    return read


def json_object(text: str) -> Any:
    """A value given as JSON, or as `@file` (`@-`: standard input). Raises `argparse.ArgumentTypeError`."""
    import json
    from pathlib import Path

    try:
        if text.startswith("@"):
            text = sys.stdin.read() if text == "@-" else Path(text[1:]).read_text(encoding="utf-8")
        value = json.loads(text)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text[1:]}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}; give an object, or @file") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("expected a JSON object")
    return value


def leaves(names: Sequence[str], value: Any) -> Any:
    """What stands at a path of names in a JSON document. Raises `LookupError`."""
    for name in names:
        value = value[int(name)] if isinstance(value, list) and name.isdigit() else value[name]
    return value
