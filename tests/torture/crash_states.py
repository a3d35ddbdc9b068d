"""What a power cut may leave of a folder: everything that was synced, and anything of the rest.

A file's content is stable after a sync of the file, its name after a sync of the folder; a sync of a file is not trusted to
keep its name. Of what was not synced any part may be there, in any combination: writes are cut at sectors, or leave only
the length behind. That is more than a good file system does.
"""

from enum import Enum
from typing import NamedTuple

from strace_log import Allocate, Create, Note, Remove, Rename, Resize, Sync, SyncFolder, Unfinished, Write

SECTORS = (512, 4096)


class Keep(NamedTuple):
    """What of a write is there: from `start` to `end`, positions in the file."""

    start: int
    end: int


class Fate(Enum):
    """What became of one operation that was not synced."""

    DONE = "done"
    LOST = "lost"
    GROWN = "grown"  # the file has its new length, and zeros where the data belongs


class _File:
    """The content that is stable, and what was done to it since."""

    def __init__(self):
        self.stable = bytearray()
        self.unsynced = []

    def content(self, fates):
        """The content when these are the fates of what is not synced."""
        data = bytearray(self.stable)
        for change in self.unsynced:
            _apply(data, change, fates.get(id(change), Fate.LOST))
        return data

    def sync(self):
        for change in self.unsynced:
            _apply(self.stable, change, Fate.DONE)
        self.unsynced = []


class _Name(NamedTuple):
    """A name is given to a file (None: taken away); `old`: by renaming it."""

    name: str
    file: _File | None
    old: str | None = None


class Disk:
    """A folder, as operation after operation is done to it."""

    def __init__(self):
        self._stable_names = {}
        self._unsynced_names = []
        self._names = {}
        self._files = []
        self.syncs = 0

    def do(self, operation):
        match operation:
            case Create(name):
                self._give(_Name(name, self._new()))
            case Remove(name):
                self._give(_Name(name, None))
            case Rename(name, to):
                self._give(_Name(to, self._names[name], name))
            case Write(name) | Resize(name) | Allocate(name):
                self._names[name].unsynced.append(operation)
            case Sync(name):
                self._names[name].sync()
                self.syncs += 1
            case SyncFolder():
                self._stable_names, self._unsynced_names = dict(self._names), []
                self._files = list(self._names.values())
                self.syncs += 1
            case Note() | Unfinished():
                pass

    def _new(self):
        self._files.append(_File())
        return self._files[-1]

    def _give(self, change):
        self._unsynced_names.append(change)
        _rename(self._names, change)

    @property
    def unsynced(self):
        """What is not synced: the names first, then file by file, each in its order."""
        return [*self._unsynced_names, *(change for file in self._files for change in file.unsynced)]

    def left(self, fates):
        """Name and content of each file that a power cut leaves, by the fates of what is not synced (others are lost)."""
        by_id = {id(change): fate for change, fate in fates}
        names = dict(self._stable_names)
        for change in self._unsynced_names:
            if by_id.get(id(change), Fate.LOST) is not Fate.LOST:
                _rename(names, change)
        return {name: bytes(file.content(by_id)) for name, file in names.items()}

    def now(self):
        """The folder as it is while the power is on."""
        return self.left([(change, Fate.DONE) for change in self.unsynced])


def _rename(names, change):
    if change.old:
        names.pop(change.old, None)
    if change.file:
        names[change.name] = change.file
    else:
        names.pop(change.name, None)


def _apply(data, change, fate):
    if fate is Fate.LOST:
        return
    if isinstance(change, Resize):
        _resize(data, change.size)
        return
    if isinstance(change, Allocate):
        _resize(data, max(len(data), change.size))
        return
    end = change.offset + len(change.data)
    kept = fate if isinstance(fate, Keep) else Keep(change.offset, end if fate is Fate.DONE else change.offset)
    if fate is Fate.GROWN:
        _resize(data, max(len(data), end))
    if kept.end > kept.start:
        _resize(data, max(len(data), kept.end))
        data[kept.start : kept.end] = change.data[kept.start - change.offset : kept.end - change.offset]


def _resize(data, size):
    if size < len(data):
        del data[size:]
    else:
        data.extend(bytes(size - len(data)))


# --- choosing the fates ---


def nothing(unsynced, _):
    """Nothing of it is there."""
    return [(change, Fate.LOST) for change in unsynced]


def everything(unsynced, _):
    """All of it is."""
    return [(change, Fate.DONE) for change in unsynced]


def some(unsynced, chance):
    """Any of it."""
    share = chance.choice((0.2, 0.5, 0.8))
    return [(change, Fate.DONE if chance.random() < share else Fate.LOST) for change in unsynced]


def grown(unsynced, chance):
    """Any of it; and of the rest, the length."""
    return [(change, chance.choice((Fate.DONE, Fate.GROWN, Fate.LOST))) for change in unsynced]


def torn(unsynced, chance):
    """One write is cut in two at a sector; what came before is there, or any of it, and of what came after, any."""
    writes = [place for place, change in enumerate(unsynced) if isinstance(change, Write) and _cuts(change)]
    if not writes:
        return some(unsynced, chance)
    cut = chance.choice(writes)
    before = everything if chance.random() < 0.5 else some
    kept = _half(unsynced[cut], chance)
    return [*before(unsynced[:cut], chance), (unsynced[cut], kept), *some(unsynced[cut + 1 :], chance)]


def _half(write, chance):
    at, end = chance.choice(_cuts(write)), write.offset + len(write.data)
    return chance.choice((Keep(write.offset, at), Keep(at, end)))


def _cuts(write):
    """Where the write crosses from one sector into the next."""
    end = write.offset + len(write.data)
    sector = SECTORS[-1] if len(write.data) > 4 * SECTORS[-1] else SECTORS[0]
    return range(write.offset // sector * sector + sector, end, sector)


WAYS = (nothing, everything, some, torn, grown)
"""How a power cut may choose."""


def distinct(disk, fates):
    """A name for what `left` would give, the same for the same."""
    return disk.syncs, tuple(
        place if fate is Fate.DONE else (place, fate) for place, (_, fate) in enumerate(fates) if fate is not Fate.LOST
    )
