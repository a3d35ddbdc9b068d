"""The journal as a file."""

import asyncio

from aiohttp import web

from sidecar.api.describing import Reply
from sidecar.api.request import Request
from sidecar.api.routing import Routes, Scope
from sidecar.backup import Made
from sidecar.errors import BackupRunningError, NoJournalFileError, StorageFailedError, StorageFullError

_CHUNK_BYTES = 256 << 10

routes = Routes()


@routes.get(
    "/v1/journal/backup",
    Scope.ADMIN,
    head=False,
    answers={200: Reply("An SQLite file.", others={"application/vnd.sqlite3": {"type": "string", "format": "binary"}})},
    raises=(NoJournalFileError, BackupRunningError, StorageFailedError, StorageFullError),
)
async def get_backup(request: Request) -> web.StreamResponse:
    """The journal as one file, up to a revision that is at least the head of now."""
    async with request.parts.backups.made() as made:
        response = web.StreamResponse(
            headers={
                "Content-Type": "application/vnd.sqlite3",
                "Content-Disposition": f'attachment; filename="{made.name}"',
                "Cache-Control": "no-store",
            }
        )
        response.content_length = made.size
        await response.prepare(request)
        await _send(request, response, made)
    return response


async def _send(request: Request, response: web.StreamResponse, made: Made) -> None:
    """Hand over the file. When that fails, the connection is closed: the answer has begun, and cannot become another one."""
    try:
        while chunk := await asyncio.to_thread(made.file.read, _CHUNK_BYTES):
            await response.write(chunk)
        await response.write_eof()
    except BaseException:
        if request.transport:
            request.transport.abort()
        raise
