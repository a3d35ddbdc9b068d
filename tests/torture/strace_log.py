"""What a process did to the files of one folder, as strace saw it: the operations in their order, with all the bytes.

An operation stands where it had returned: only then is a sync a promise. A line in the ledger stands where it was begun: from
there on, somebody may have read it.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed; it records and injects here")


class Create(NamedTuple):
    name: str


class Write(NamedTuple):
    name: str
    offset: int
    data: bytes


class Resize(NamedTuple):
    name: str
    size: int


class Allocate(NamedTuple):
    """The file is at least so long."""

    name: str
    size: int


class Sync(NamedTuple):
    name: str


class Remove(NamedTuple):
    name: str


class Rename(NamedTuple):
    name: str
    to: str


class SyncFolder(NamedTuple):
    pass


class Note(NamedTuple):
    """A line that the process wrote into its ledger."""

    text: str


class Unfinished(NamedTuple):
    """An operation in which the process was killed: nobody knows whether it took place."""

    operation: tuple


_CALLS = (
    "open,openat,creat,close,read,lseek,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,fdatasync,"
    "sync_file_range,syncfs,unlink,unlinkat,rename,renameat,renameat2,link,linkat,copy_file_range,sendfile,mmap"
)


def recording(log):
    """The command in front of another one that appends to the log what that one does."""
    return ["strace", "-f", "-A", "-o", log, "-qq", "--seccomp-bpf", "-y", "-xx", "-s", str(64 << 20), "-e", f"trace={_CALLS}"]


def record(log, command, **options):
    """Run the command, and wait for its end."""
    return subprocess.run([*map(str, recording(log)), *map(str, command)], check=False, **options)


class CannotReadError(Exception):
    """The process did something to the folder that is not understood here, so no crash state could be trusted."""


_LINE = re.compile(r"(\d+) +(.*)", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)", re.DOTALL)
_HANDLE = re.compile(r"(-?\d+|AT_FDCWD)(?:<(.*)>)?")
_UNFINISHED = " <unfinished ...>"


class Reading:
    """Reads the logs of one folder, one after the other; `ledger` is the file that holds the notes."""

    def __init__(self, folder, ledger):
        self._folder = os.path.realpath(folder)
        self._ledger = os.path.realpath(ledger)
        self._names = set()
        self._positions = {}

    def operations(self, log):
        """All operations in this log."""
        begun, done = {}, []
        for line in Path(log).read_text().splitlines():
            thread, text = _LINE.fullmatch(line).groups()
            if text.startswith(("---", "+++", "???")):  # signals, ends, and a call in the entry of which the process was killed
                continue
            if text.endswith(_UNFINISHED):
                begun[thread] = text.removesuffix(_UNFINISHED)
                done += self._note(begun[thread])
                continue
            text = text.replace(_UNFINISHED, "")  # in the middle, when the process was killed
            if resumed := _RESUMED.fullmatch(text):
                text = begun.pop(thread) + resumed[1]
            else:
                done += self._note(text)
            done += self._operation(*_taken_apart(text))
        for text in begun.values():  # killed in it, and strace did not see it return
            done += self._operation(*_taken_apart(text + ") = ?"))
        return done

    def _note(self, text):
        """The note that this call writes, if it does."""
        if not text.startswith("write("):
            return
        _, arguments, _ = _taken_apart(text if " = " in text else text + ") = ?")
        if _path_of(arguments[0]) == self._ledger:
            yield from map(Note, _bytes_of(arguments[1]).decode().splitlines())

    def _operation(self, call, arguments, result):
        if result.startswith("-"):
            return
        found = list(self._understood(call, arguments, int(result) if result != "?" else None))
        yield from found if result != "?" else map(Unfinished, found)

    def _understood(self, call, arguments, result):
        match call:
            case "open" | "creat" | "openat":
                yield from self._opened(arguments[call == "openat" :], result)
            case "pwrite64":
                if name := self._name(arguments[0]):
                    data = _bytes_of(arguments[1])
                    yield Write(name, int(arguments[3]), data if result is None else data[:result])
            case "write" | "read" | "lseek":
                yield from self._moved(call, arguments, result)
            case "ftruncate":
                if name := self._name(arguments[0]):
                    yield Resize(name, int(arguments[1]))
            case "fallocate" if arguments[1] == "0":
                if name := self._name(arguments[0]):
                    yield Allocate(name, int(arguments[2]) + int(arguments[3]))
            case "fsync" | "fdatasync":
                if _path_of(arguments[0]) == self._folder:
                    yield SyncFolder()
                elif name := self._name(arguments[0]):
                    yield Sync(name)
            case "unlink" | "unlinkat":
                if name := self._name_at(arguments[call == "unlinkat"]):
                    self._names.discard(name)
                    yield Remove(name)
            case "rename":
                yield from self._renamed(arguments[0], arguments[1])
            case "renameat" | "renameat2":
                yield from self._renamed(arguments[1], arguments[3])
            case "close":
                pass
            case "mmap":
                if "MAP_SHARED" in arguments[3] and self._name(arguments[4]):
                    raise CannotReadError(f"{call}({', '.join(arguments)})")
            case _:
                if self._folder in " ".join(map(_decoded, arguments)):
                    raise CannotReadError(f"{call}({', '.join(arguments)[:500]})")

    def _opened(self, arguments, result):
        name = self._name_at(arguments[0])
        if not name:
            return
        flags = arguments[1] if len(arguments) > 1 else "O_CREAT|O_TRUNC"
        if set(flags.split("|")) & {"O_SYNC", "O_DSYNC", "O_APPEND", "O_TMPFILE"}:
            raise CannotReadError(f"{name} is opened with {flags}")
        self._positions[str(result)] = 0
        if name not in self._names:
            self._names.add(name)
            yield Create(name)
        elif "O_TRUNC" in flags:
            yield Resize(name, 0)

    def _moved(self, call, arguments, result):
        """Calls that use the handle's own position."""
        name, number = self._name(arguments[0]), arguments[0].partition("<")[0]
        if not name or result is None:
            return
        if call == "write":
            yield Write(name, self._positions[number], _bytes_of(arguments[1])[:result])
        self._positions[number] = result if call == "lseek" else self._positions[number] + result

    def _renamed(self, old, new):
        old, new = self._name_at(old), self._name_at(new)
        if bool(old) != bool(new):
            raise CannotReadError(f"a file came into the folder, or left it: {old} -> {new}")
        if old and new:
            self._names.discard(old)
            self._names.add(new)
            yield Rename(old, new)

    def _name(self, handle):
        """The name of an open file of the folder."""
        return self._within(_path_of(handle))

    def _name_at(self, text):
        path = _decoded(text.strip('"'))
        if not os.path.isabs(path):
            if self._within(os.path.abspath(path)):
                raise CannotReadError(f"{path} is relative")
            return None
        return self._within(os.path.realpath(path))

    def _within(self, path):
        if not path or os.path.dirname(path) != self._folder:
            return None
        return os.path.basename(path)


def _taken_apart(text):
    """Name, arguments, and result."""
    call, _, result = text.rpartition(" = ")
    name, _, arguments = call.rstrip().removesuffix(")").partition("(")
    found = re.match(r"\?|-?\d+", result)
    if not name.isidentifier() or not found:
        raise CannotReadError(text[:500])
    return name, arguments.split(", "), found[0]


def _path_of(handle):
    found = _HANDLE.fullmatch(handle)
    return _decoded(found[2]) if found and found[2] else None


def _decoded(text):
    if "\\x" not in text:
        return text
    return re.sub(r"((?:\\x[0-9a-f]{2})+)", lambda found: os.fsdecode(_unhex(found[1])), text)


def _bytes_of(text):
    if not text.startswith('"') or not text.endswith('"'):
        raise CannotReadError(text[:500])
    return _unhex(text[1:-1])


def _unhex(text):
    return bytes.fromhex(text.replace("\\x", ""))


# --- injecting ---


def injecting(log, files, call, fault):
    """The command in front of another one whose calls on these files fail: `fault` is such as `error=EIO:when=3+`.

    strace goes its own way, so that the process that is started is the other one.
    """
    paths = [word for file in files for word in ("-P", str(file))]
    trace = ["-e", f"trace={call}", "-e", f"inject={call}:{fault}"] if fault else ["-e", f"trace={call}"]
    return ["strace", "-D", "-f", "-q", "-o", str(log), "--seccomp-bpf", "-y", "-s", "0", *paths, *trace]


class Call(NamedTuple):
    """One call on a file."""

    call: str
    file: str
    injected: bool


def calls(log, files):
    """All calls on these files in the log, in the order of their begin."""
    names = {str(file): file.name for file in files}
    for text in _whole_lines(log):
        if call := re.match(r"(\w+)\(", text):
            path = max((path for path in names if path in text), key=len)
            yield Call(call[1], names[path], "(INJECTED)" in text)


def _whole_lines(log):
    """The lines without the thread; those in two parts are put together."""
    begun = {}
    for line in Path(log).read_text().splitlines():
        thread, text = _LINE.fullmatch(line).groups()
        if text.endswith(_UNFINISHED):
            begun[thread] = text.removesuffix(_UNFINISHED)
        elif resumed := _RESUMED.fullmatch(text):
            yield begun.pop(thread) + resumed[1]
        else:
            yield text
    yield from begun.values()
