"""What the process must not run on."""

from aiohttp import http, http_parser

from sidecar.errors import ConfigError


def refuse_unfit() -> None:
    """Raises `ConfigError` for `python -O` and for aiohttp's parser in Python."""
    if not __debug__:
        raise ConfigError(["python -O (or PYTHONOPTIMIZE) takes away checks that the HTTP server relies on: run without it"])
    if http.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise ConfigError(
            [
                "aiohttp runs without its C extension, and its parser in Python takes requests that others read differently:"
                " unset AIOHTTP_NO_EXTENSIONS, or install aiohttp from a wheel for this platform"
            ]
        )
