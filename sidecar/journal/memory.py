"""A journal that lives as long as the process: for a store inside a program, and for tests."""

import time
from collections.abc import Sequence

from sidecar.epoch import new_epoch
from sidecar.errors import CompactedError
from sidecar.journal import Answered, Entry, Journal, Noted, Request, Settled, Weight
from sidecar.journal.recent import Recent


class MemoryJournal(Journal):
    """Keeps the newest `max_revisions`, at most about `max_bytes` of documents. An append is settled before it returns."""

    def __init__(self, *, max_revisions: int = 10_000, max_bytes: int = 16 << 20) -> None:
        super().__init__(new_epoch())
        self._kept = Recent(max_entries=max_revisions, max_bytes=max_bytes)
        self._answers: dict[int, tuple[Entry, Request]] = {}
        self._notes: dict[str, bytes] = {}

    @property
    def size(self) -> int:
        return self._kept.size

    def append(self, document: bytes, settled: Settled, request: Request | None = None) -> None:
        entry = Entry(self.head + 1, time.time(), document)
        if request:
            self._answers[entry.revision] = entry, request
        self._kept.add(entry)
        self.oldest = self._kept.oldest or 1
        settled(entry, None)
        self._advance(entry.revision)

    async def read(self, after: int, limit: int) -> Sequence[Entry]:
        if after >= self.head:
            return ()
        entries = self._kept.after(after, limit)
        if entries is None:
            raise CompactedError(self.oldest)
        return entries

    async def weigh(self, limit: int) -> Sequence[Weight]:
        return [Weight(entry.revision, entry.appended_at, len(entry.document)) for entry in self._kept.oldest_entries(limit)]

    async def compact(self, oldest: int) -> None:
        self._kept.drop_before(min(oldest, self.head))
        self.oldest = self._kept.oldest or 1

    async def answered(self, limit: int) -> Sequence[Answered]:
        answers = [Answered(entry.revision, request, entry.appended_at) for entry, request in self._answers.values()]
        return answers[-limit:]

    async def answer(self, revision: int) -> Entry | None:
        answer = self._answers.get(revision)
        return answer[0] if answer else None

    async def forget_answers(self, before: int) -> None:
        for revision in [revision for revision in self._answers if revision < before]:
            del self._answers[revision]

    def note(self, name: str, value: bytes, noted: Noted) -> None:
        self._notes[name] = value
        noted(None)

    async def noted(self, name: str) -> bytes | None:
        return self._notes.get(name)
