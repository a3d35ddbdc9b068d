"""The API of the sidecar that the flags name, the environment, or a config file."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from sidecar import trust
from sidecar.asking import Answer, Place
from sidecar.commands.outcomes import ProblemError
from sidecar.endpoint import DEFAULT_URL, Endpoint, Token
from sidecar.errors import ConfigError
from sidecar.units import Seconds

if TYPE_CHECKING:
    from argparse import Namespace

MAX_ANSWER_BYTES = 256 << 20
"""A page of the history can be large."""

_URL, _TOKEN_FILE = "FSM_SIDECAR_URL", "FSM_SIDECAR_TOKEN_FILE"
_NO_HEADERS: Mapping[str, str] = {}


class Api:
    """Asks in JSON. Raises `NoAnswerError`, and `ProblemError` for what is refused."""

    def __init__(self, place: Place) -> None:
        self._place = place

    @property
    def url(self) -> str:
        return self._place.url

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
        body: Any = None,
    ) -> Answer:
        """The answer."""
        content = None if body is None else json.dumps(body).encode()
        target = f"{path}?{urlencode(query)}" if query else path
        try:
            answer = self._place.ask(method, target, content, **headers)
        except ValueError as wrong:
            raise _unsent(wrong) from None
        if answer.status < 300:
            return answer
        raise ProblemError(answer.status, _problem(answer.body))

    def get(self, path: str, **query: Any) -> Any:
        """The document in the answer to a `GET`."""
        return self.ask("GET", path, query=query).json

    def stream(self, path: str, patience: Callable[[], float], headers: Mapping[str, str]) -> Iterator[bytes]:
        """The answer as it comes. `patience` tells before each piece how many seconds it may take."""
        try:
            answer, pieces = self._place.stream(path, patience, **headers)
        except ValueError as wrong:
            raise _unsent(wrong) from None
        if answer.status != 200:
            raise ProblemError(answer.status, _problem(answer.body))
        return pieces


def _unsent(wrong: ValueError) -> ConfigError:
    if isinstance(wrong, UnicodeError) or "header" in str(wrong):  # http.client's words, which repeat the value
        return ConfigError(["a key or an ETag has characters that cannot be sent"])
    return ConfigError([str(wrong)])


def _problem(body: bytes) -> dict[str, Any]:
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    if isinstance(problem, dict):
        return problem
    return {"title": "This is no sidecar", "detail": "it answers, but not as a sidecar does; is this the API's listener?"}


def api_of(options: "Namespace") -> Api:
    """The API that is meant. Raises `ConfigError`."""
    timeout = _seconds("--timeout", options.timeout)
    if vars(options).get("wait_acks"):  # so much later it is answered
        timeout += _seconds("--acks-timeout", options.acks_timeout)
    endpoint, file = _endpoint(options)
    token = Token(file=options.token_file or os.environ.get(_TOKEN_FILE) or file)
    place = Place(endpoint, token=token, timeout_seconds=timeout, max_bytes=MAX_ANSWER_BYTES, tls=trust.context_of(options))
    return Api(place)


def _seconds(flag: str, text: str) -> float:
    try:
        return float(Seconds.parse(text))
    except ValueError as wrong:
        raise ConfigError([f"{flag}: {wrong}"]) from None


def _endpoint(options: "Namespace") -> tuple[Endpoint, str | None]:
    """Where it is, and the file of a token where that is known too."""
    if options.config and not options.url:
        return _configured(options.config)
    text, name = (options.url, "--url") if options.url else (os.environ.get(_URL) or DEFAULT_URL, _URL)
    try:
        return Endpoint.parse(text), None
    except ValueError as wrong:
        raise ConfigError([f"{name}: {wrong}"]) from None


def _configured(path: str) -> tuple[Endpoint, str | None]:
    """The token is that which may do most: whoever reads the config file and its tokens may choose."""
    from sidecar import config
    from sidecar.access import Scope

    api = config.load(path).api
    ablest = max(api.tokens, key=lambda each: (Scope.ADMIN in each.scopes, len(each.scopes)), default=None)
    file = ablest.file if ablest else None
    listen = api.listen
    if listen.socket_path:
        return Endpoint.parse(f"unix:{listen.socket_path}"), file
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)  # noqa: S104  (where to call, not to listen)
    return Endpoint(api.tls.files is not None, host, listen.port), file
