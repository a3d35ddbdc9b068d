"""The newest entries, held in memory: bounded in number and in bytes."""

from collections import deque
from collections.abc import Sequence
from itertools import islice

from sidecar.journal import Entry


class Recent:
    """A contiguous run of the newest entries, at most `max_entries` of them and about `max_bytes` of documents.

    The newest entry is always held, whatever its size. `size`: bytes of the documents held.
    """

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self._entries: deque[Entry] = deque()
        self.size = 0
        self._max_entries = max_entries
        self._max_bytes = max_bytes

    def add(self, entry: Entry) -> None:
        self._entries.append(entry)
        self.size += len(entry.document)
        while len(self._entries) > 1 and (len(self._entries) > self._max_entries or self.size > self._max_bytes):
            self._drop_oldest()

    def drop_before(self, oldest: int) -> None:
        while len(self._entries) > 1 and self._entries[0].revision < oldest:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self.size -= len(self._entries.popleft().document)

    @property
    def oldest(self) -> int | None:
        """The oldest revision held, or None when there is none."""
        return self._entries[0].revision if self._entries else None

    def oldest_entries(self, limit: int) -> Sequence[Entry]:
        """The oldest entries held, at most `limit`."""
        return list(islice(self._entries, limit))

    def after(self, revision: int, limit: int) -> Sequence[Entry] | None:
        """Up to `limit` entries after `revision`, or None when some of them are no longer held here."""
        if not self._entries or self._entries[0].revision > revision + 1:
            return None
        newest = self._entries[-1]
        if newest.revision == revision + 1:  # a follower that keeps up reads just this one
            return (newest,) if limit else ()
        start = revision + 1 - self._entries[0].revision
        return [self._entries[place] for place in range(start, min(start + limit, len(self._entries)))]
