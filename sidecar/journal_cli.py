"""`fsm-sidecar journal verify | info | backup | restore`: for a journal at rest."""

import argparse
import asyncio
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sidecar.errors import ConfigError, JournalDamagedError, JournalHeldError

if TYPE_CHECKING:  # what is imported where it is used takes time that other commands need not spend
    from sidecar.database.at_rest import Report
    from sidecar.database.copying import Copied
    from sidecar.database.restoring import Restored


def add_commands(parser: argparse.ArgumentParser) -> None:
    """The commands below `journal`; each one's `command` takes the options."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, help: str, command: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help)
        journal = added.add_mutually_exclusive_group()
        journal.add_argument("--config", metavar="FILE", help="the sidecar's YAML file, which says where the journal is")
        journal.add_argument("--path", metavar="JOURNAL", help="the journal's file; a backup is a journal, too")
        added.set_defaults(command=command)
        return added

    for name, help, command in (
        ("verify", "prove that the journal is whole; changes nothing", _verify),
        ("info", "what is in the journal, quickly; changes nothing", _info),
    ):
        add(name, help, command).add_argument("--json", action="store_true", help="print one JSON object")
    add("backup", "copy the journal to a new file", _backup).add_argument("file", metavar="FILE", type=Path)
    add("restore", "put a backup in the journal's place", _restore).add_argument("file", metavar="FILE", type=Path)


def _path(options: argparse.Namespace) -> Path:
    from sidecar import config

    if options.path:
        return Path(options.path).absolute()
    journal = config.load(options.config).journal
    if journal.backend == "memory":
        raise ConfigError([f"{options.config}: journal.backend is memory: there is no file"])
    return Path(journal.path).absolute()


# --- looking ---


def _verify(options: argparse.Namespace) -> None:
    from sidecar.database.at_rest import verify
    from sidecar.database.recovery import MENDS

    path = _path(options)
    report = verify(path)
    _tell(_facts(report), report.problems, as_json=options.json)
    if report.problems:
        raise JournalDamagedError(f"{path} is damaged, see above; if it is a backup, use another one; if not, {MENDS}")


def _info(options: argparse.Namespace) -> None:
    from sidecar.database.at_rest import info

    report, contents = info(_path(options))
    facts = _facts(report) | {"subscribers": contents.subscribers, "answers": contents.answers, "newest": None}
    if contents.newest is not None and contents.appended_at is not None:
        facts["newest"] = _newest(contents.newest, contents.appended_at)
    _tell(facts | {"files": contents.files}, (), as_json=options.json)


def _facts(report: "Report") -> dict[str, Any]:
    facts = report._asdict()
    del facts["problems"]
    facts["bytes"] = facts.pop("size")
    return {name: fact for name, fact in facts.items() if fact is not None}


def _newest(document: bytes, appended_at: float) -> dict[str, Any]:
    try:
        snapshot = msgspec.json.decode(document, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise JournalDamagedError(f"the newest revision cannot be read: {error}; see `fsm-sidecar journal verify`") from error
    at = datetime.fromtimestamp(appended_at, UTC).isoformat(timespec="milliseconds")
    return {"state": snapshot.get("state"), "version": snapshot.get("version"), "at": at}


def _tell(facts: Mapping[str, Any], problems: Any, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode({**facts, "problems": problems}).decode())
        return
    for name, fact in facts.items():
        _line(name, ", ".join(f"{key} {value}" for key, value in fact.items()) if isinstance(fact, dict) else fact)
    for problem in problems:
        _line("problem", problem)


def _line(name: str, fact: object) -> None:
    print(f"{name.replace('_', ' '):<15} {fact}")


# --- copying ---


def _backup(options: argparse.Namespace) -> None:
    from sidecar.database.at_rest import refuse_missing

    path = _path(options)
    refuse_missing(path)  # before it would be created
    try:
        copied = asyncio.run(_copied(path, options.file.absolute()))
    except JournalHeldError as error:
        running = "of a running sidecar, GET /v1/journal/backup is the backup"
        raise JournalHeldError(f"{error}; {running}") from error
    _line("backup", options.file)
    _line("epoch", copied.epoch)
    _line("revisions", f"{copied.oldest} to {copied.head}" if copied.head >= copied.oldest else "none")
    _line("bytes", options.file.stat().st_size)


async def _copied(path: Path, file: Path) -> "Copied":
    from sidecar.backup import backup
    from sidecar.database import Database

    async with Database(path) as database:
        return await backup(database, file)


def _restore(options: argparse.Namespace) -> None:
    from sidecar.database.restoring import restore

    path, file = _path(options), options.file.absolute()
    try:
        restored = restore(path, file)
    except JournalHeldError as error:
        raise JournalHeldError(f"{error}; stop it before you restore") from error
    _line("journal", path)
    _line("restored", options.file)
    _line("epoch", f"{restored.now.epoch} (new)")
    for name, fact in _what_became(restored).items():
        _line(name, fact)
    for kept in restored.kept:
        _line("kept", os.path.relpath(kept))


def _what_became(restored: "Restored") -> dict[str, str]:
    found, known = restored.backup, restored.known_head
    if found.head < found.oldest:
        facts = {"revisions": f"none; the next one is {restored.now.head + 1}"}
    else:
        facts = {"revisions": f"{found.oldest} to {found.head}, its newest state again as {restored.now.head}"}
    if known > found.head:
        facts["lost"] = f"{found.head + 1} to {known}, which the journal had that is replaced"
    return facts
