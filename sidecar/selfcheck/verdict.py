"""What a check can come to, and how an answer is read for it."""

from typing import Any

import msgspec

from sidecar.asking import Answer, NoAnswerError, Place


class FailedError(Exception):
    """The contract is not kept. Says what happened and what to do."""


class NotAllowedError(FailedError):
    """The token is missing, or not for this. Nothing was changed."""


class NotJudgedError(Exception):
    """Nobody can say, and that is no fault. Says why."""


class Told(msgspec.Struct):
    """An answer of the API, its JSON read."""

    status: int
    etag: str | None
    json: Any

    @property
    def type(self) -> str | None:
        """The problem's type, where it is one."""
        return self.json.get("type") if isinstance(self.json, dict) else None

    def __str__(self) -> str:
        told = self.json if isinstance(self.json, dict) else {}
        detail = f": {told['detail']}" if isinstance(told.get("detail"), str) else ""
        return f"{self.status} {self.type or ''}".rstrip() + detail[:300]


def ask(place: Place, method: str, path: str, body: Any = None, **headers: str) -> Told:
    """Ask with a body of JSON. Raises `FailedError` when there is no answer, `NotAllowedError` for what a token may not do."""
    try:
        answer = place.ask(method, path, None if body is None else msgspec.json.encode(body), **headers)
    except NoAnswerError as error:
        raise FailedError(f"{place.url}: {error}") from None
    if answer.status in (401, 403):
        scopes = "state:read, state:write and subscribe"
        raise NotAllowedError(f"{method} {path}: {answer.status}; give --token-file with a token of the scopes {scopes}")
    return Told(answer.status, answer.headers.get("etag"), _json(answer))


def _json(answer: Answer) -> Any:
    try:
        return msgspec.json.decode(answer.body) if answer.body else None
    except msgspec.DecodeError:
        return None
