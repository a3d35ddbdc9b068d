"""The sidecar's HTTP API, as the author of an agent would call it."""

from typing import Any, NamedTuple

import aiohttp

from demo.errors import DemoError


class Stored(NamedTuple):
    """The state as the sidecar keeps it. `etag` is what the next write expects."""

    etag: str
    epoch: str
    revision: int
    version: int
    state: str


class RejectedError(Exception):
    """The sidecar refused a write. `problem` is its answer (RFC 9457)."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem["detail"])
        self.problem = problem


class ConflictError(RejectedError):
    """412: another write came first."""

    @property
    def etag(self) -> str:
        """The ETag of the write that won."""
        current = self.problem["current"]
        return f'"{current["epoch"]}-{current["version"]}"'


class IllegalTransitionError(RejectedError):
    """409: the machine does not allow it."""


_REJECTIONS = {
    "version-conflict": ConflictError,
    "already-exists": ConflictError,
    "illegal-transition": IllegalTransitionError,
}


class Api:
    """Calls the API at `url`, in a session that somebody else closes."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def get_state(self) -> Stored:
        return await self._state("GET", "/v1/state")

    async def put_state(self, snapshot: dict[str, Any], *, if_match: str | None) -> Stored:
        """Write the whole state if the current one is the one expected; None: if there is none yet."""
        precondition = {"If-Match": if_match} if if_match else {"If-None-Match": "*"}
        return await self._state("PUT", "/v1/state", json=snapshot, headers=precondition)

    async def put_newer_state(self, snapshot: dict[str, Any]) -> Stored:
        """Write the whole state if its `version` is newer than the current one."""
        return await self._state("PUT", "/v1/state", json=snapshot, params={"enforce_version": "true"})

    async def post_transition(self, to: str, *, reason: str, source_module: str) -> Stored:
        """Go to a state, whatever the current version is."""
        return await self._state("POST", "/v1/transitions", json={"to": to, "reason": reason, "source_module": source_module})

    async def register(self, subscriber_id: str, url: str) -> str:
        """Register a webhook. Returns its secret, which is told this once."""
        answer, _ = await self._call("PUT", f"/v1/subscribers/{subscriber_id}", json={"url": url})
        return str(answer["secret"])

    async def _state(self, method: str, path: str, **request: Any) -> Stored:
        answer, headers = await self._call(method, path, **request)
        snapshot = answer["snapshot"]
        return Stored(headers["ETag"], answer["epoch"], answer["revision"], snapshot["version"], snapshot["state"])

    async def _call(self, method: str, path: str, **request: Any) -> tuple[dict[str, Any], Any]:
        try:
            async with self._session.request(method, self._url + path, **request) as response:
                answer = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise DemoError(f"{method} {path} was not answered: {error or type(error).__name__}") from error
        if response.ok:
            return answer, response.headers
        if answer["type"] in _REJECTIONS:
            raise _REJECTIONS[answer["type"]](answer)
        raise DemoError(f"{method} {path} was answered with {response.status}: {answer['detail']}")
