"""What was written before, and who met whom: the journal's revisions page by page, and the conflicts."""

from collections.abc import AsyncGenerator

from sidecar.client.states import Conflict, ConflictsAnswer, HistoryAnswer, StateAnswer, WriterAnswer, decoded
from sidecar.client.transport import Transport
from sidecar.errors import Holder

_PAGE = 100


async def revisions(transport: Transport, after: int | None, newest: int | None) -> AsyncGenerator[StateAnswer]:
    """Those after `after`, or the `newest` so many, oldest first, up to the newest. As `StateClient.history`."""
    if newest is not None:
        if after is not None or newest < 1:
            raise ValueError("give after, or newest from 1 on, not both")
        last = await _page(transport, {"newest": "1"})
        after = max(last.head - newest, last.oldest - 1)
    while True:
        query = {"limit": str(_PAGE)}
        if after is not None:
            query["after"] = str(after)
        page = await _page(transport, query)
        for each in page.entries:
            yield each
        if not page.entries or page.entries[-1].revision >= page.head:
            return
        after = page.entries[-1].revision


async def conflicts(transport: Transport) -> list[Conflict]:
    """The last ones, newest first."""
    return decoded((await transport.ask("GET", "/v1/conflicts")).body, ConflictsAnswer).conflicts


async def holder(transport: Transport) -> Holder | None:
    """Who has the lease."""
    return decoded((await transport.ask("GET", "/v1/writer")).body, WriterAnswer).holder


async def _page(transport: Transport, query: dict[str, str]) -> HistoryAnswer:
    return decoded((await transport.ask("GET", "/v1/history", query=query)).body, HistoryAnswer)
