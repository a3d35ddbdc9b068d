"""A journal that a test holds up: what is handed over becomes durable, or fails, only when the test says so."""

import time
from collections import deque

from sidecar.journal import Entry, Journal


class HeldJournal(Journal):
    """Appends and notes wait in one row; `settle` and `fail` say what becomes of them."""

    def __init__(self):
        super().__init__("held")
        self.waiting = deque()
        self.entries = []
        self.notes = {}

    def append(self, document, settled, request=None):
        revision = self.head + sum(isinstance(each, Entry) for each, _ in self.waiting) + 1
        self.waiting.append((Entry(revision, time.time(), document), settled))

    def note(self, name, value, noted):
        self.waiting.append(({name: value}, noted))

    def settle(self):
        """Make the oldest of what waits durable."""
        what, told = self.waiting.popleft()
        if isinstance(what, Entry):
            self.entries.append(what)
            told(what, None)
            self._advance(what.revision)
        else:
            self.notes |= what
            told(None)

    def fail(self, error):
        """The oldest fails, and all those behind it."""
        failing, self.waiting = self.waiting, deque()
        for what, told in failing:
            told(what, error) if isinstance(what, Entry) else told(error)

    async def read(self, after, limit):
        return self.entries[after : after + limit]

    async def noted(self, name):
        return self.notes.get(name)

    async def answered(self, limit):
        return ()

    async def _not_asked(self, *_):
        raise NotImplementedError

    size = property(_not_asked)
    weigh = compact = answer = forget_answers = _not_asked
