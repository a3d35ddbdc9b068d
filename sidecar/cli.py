"""The command line: the sidecar itself, its journal at rest, its alerts, and clients of a running one."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import NoReturn

from sidecar import alerts_cli, journal_cli, selfcheck_cli
from sidecar import commands as client
from sidecar.errors import ConfigError, JournalDamagedError, JournalHeldError, StorageError

EX_USAGE = 64
EX_DATAERR = 65
EX_UNAVAILABLE = 69
EX_IOERR = 74
EX_INTERRUPTED = 130
"""Exit codes, by sysexits(3)."""

_STORAGE_CODES: tuple[tuple[type[StorageError], int], ...] = (
    (JournalHeldError, EX_UNAVAILABLE),
    (JournalDamagedError, EX_DATAERR),
    (StorageError, EX_IOERR),
)


class _Parser(argparse.ArgumentParser):
    """Wrong usage ends with 64, as a wrong config file does."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever calls, who wants no words
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (to the end of the process)
    options = _parser().parse_args(arguments)
    if options.command is _run:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # nothing is open yet; as process 1 it would go unheard
    code = _code_of(options)
    if options.command is _run:
        _leave(code)
    return code


def _code_of(options: argparse.Namespace) -> int:
    command: Callable[[argparse.Namespace], int | None] = options.command
    try:
        code = command(options) or 0
        sys.stdout.flush()
    except ConfigError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return EX_USAGE
    except StorageError as error:
        print(f"fsm-sidecar: {error}", file=sys.stderr)
        return next(code for kind, code in _STORAGE_CODES if isinstance(error, kind))
    except KeyboardInterrupt:  # before the sidecar listens for signals
        return EX_INTERRUPTED
    except OSError as error:
        if command is _run:
            raise
        return _unwritten(error)
    return code


def _unwritten(error: OSError) -> int:
    """What was to be printed could not be: whoever calls must not take that for an answer. Who closed the pipe knows it."""
    if not isinstance(error, BrokenPipeError):
        print(f"fsm-sidecar: cannot write: {error.strerror or error}", file=sys.stderr)
    with suppress(OSError, ValueError):  # or Python would try once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EX_IOERR


def _leave(code: int) -> NoReturn:
    """End now. Python would first wait for its threads, and a name lookup that hangs takes longer than any grace period."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # whoever read it is gone
            stream.flush()
    os._exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fsm-sidecar", description="The single source of truth of an agent's state.")
    parser.add_argument("--version", action="version", version=f"fsm-sidecar {version('fsm-sidecar')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run the sidecar until SIGTERM or SIGINT")
    run.add_argument("--config", metavar="FILE", help="the YAML file; without it the defaults hold, the journal in this folder")
    run.add_argument(
        "--accept-data-loss", action="store_true", help="go on with what is left of a damaged journal, under a new epoch"
    )
    run.set_defaults(command=_run)
    check = commands.add_parser("check-config", help="check a YAML file, list every problem, print what is in force")
    check.add_argument("config", metavar="FILE")
    check.set_defaults(command=_check_config)
    journal = commands.add_parser("journal", help="verify, show, back up or restore the journal of a stopped sidecar")
    journal_cli.add_commands(journal)
    alerts = commands.add_parser("alerts", help="tell which alerts' conditions are true of a running sidecar")
    alerts_cli.add_alerts_command(alerts)
    rules = commands.add_parser("rules", help="print the alerts as a file of rules for Prometheus or Grafana")
    alerts_cli.add_rules_command(rules)
    selfcheck = commands.add_parser("selfcheck", help="check the contract of a running sidecar; its state stays as it was")
    selfcheck_cli.add_command(selfcheck)
    description = commands.add_parser("openapi", help="print the description of the API in OpenAPI 3.1")
    description.set_defaults(command=_openapi)
    client.add_commands(commands, parser)
    return parser


def _run(options: argparse.Namespace) -> None:
    from sidecar import config, logs  # here, because its imports take time that other commands need not spend

    settings = config.load(options.config)
    logs.configure(level=settings.logging.level, format=settings.logging.format)
    from sidecar.service import serve

    asyncio.Runner(loop_factory=_loop_factory()).run(
        serve(settings, config_file=options.config, accept_data_loss=options.accept_data_loss)
    )  # not closed: see _leave


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _check_config(options: argparse.Namespace) -> None:
    from sidecar import config
    from sidecar.dispatch.target import Targets

    settings = config.load(options.config)
    Targets.of(settings)
    print(config.effective(settings), end="")


def _openapi(options: argparse.Namespace) -> None:
    import msgspec

    from sidecar.api.app import DEFINITIONS
    from sidecar.api.openapi import openapi

    print(msgspec.json.format(msgspec.json.encode(openapi(DEFINITIONS))).decode())
