"""Reading the revisions before the current one."""

from collections.abc import Sequence
from itertools import accumulate

import msgspec
from aiohttp import web

from sidecar.api import documents, wire
from sidecar.api.describing import Reply
from sidecar.api.parameters import Integer
from sidecar.api.request import Request
from sidecar.api.routing import Routes, Scope
from sidecar.decision import MAX_VERSION
from sidecar.errors import CompactedError, MalformedError
from sidecar.journal import Entry, Journal

PAGE_BYTES = 1 << 20
"""So much of states has one page: it is kept in memory for a caller that does not read it."""

routes = Routes()

_after = Integer(
    "after",
    "Revisions after this one; without it from the oldest that is kept.",
    default=None,
    least=0,
    most=MAX_VERSION,
    raises=(CompactedError,),
)
_limit = Integer("limit", "At most so many.", default=100, least=1, most=1000)
_newest = Integer("newest", "The last so many, in place of `after` and `limit`.", default=None, least=1, most=1000)


@routes.get("/v1/history", Scope.READ, takes=(_after, _limit, _newest), answers={200: Reply("A page.", documents.History)})
async def get_history(request: Request) -> web.StreamResponse:
    """Revisions after `after` (default: from the oldest kept), at most `limit`; or the last `newest` ones. Oldest first.

    Of large states fewer: as many as have 1 MiB together.
    """
    journal = request.parts.store.journal
    after, limit, newest = _after.read(request), _limit.read(request), _newest.read(request)
    if newest is None:
        entries = await _page(journal, journal.oldest - 1 if after is None else after, limit)
    elif _after.text(request) or _limit.text(request):
        raise MalformedError("newest says all of it: leave after and limit out, or page on with them instead")
    else:
        entries = await _last(journal, newest)
    page = [msgspec.Raw(wire.state_document(journal.epoch, entry.revision, entry.document)) for entry in entries]
    return wire.answer({"epoch": journal.epoch, "oldest": journal.oldest, "head": journal.head, "entries": page})


async def _page(journal: Journal, after: int, limit: int) -> Sequence[Entry]:
    """As `Journal.read`, but within `PAGE_BYTES`; one entry at least, whatever its size."""
    entries = await journal.read(after, limit)
    sizes = accumulate(len(entry.document) for entry in entries)
    return entries[: max(1, sum(size <= PAGE_BYTES for size in sizes))]


async def _last(journal: Journal, count: int) -> Sequence[Entry]:
    """The last `count`, or so many of them that they fit into a page."""
    while True:
        head = journal.head
        entries = await _page(journal, max(head - count, journal.oldest - 1), count)
        if not entries or entries[-1].revision >= head:
            return entries
        count = len(entries)  # fewer than before: the page ended below the head
