"""A request whose answer does not tell what software answers."""

from aiohttp import hdrs, web


class Request(web.BaseRequest):
    """One request. aiohttp asks it before the headers of an answer are written."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers.pop(hdrs.SERVER, None)
