"""The status page as it is served: its files, their headers, and that they are all there. What it shows: test_page_shown.py."""

import re
import tomllib
from pathlib import Path

import pytest
from sidecar_process import problem_of

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "sidecar" / "api" / "page"
FILES = {path.name: path for path in FOLDER.iterdir() if path.suffix in (".html", ".css", ".js")}
PATHS = ["/", *(f"/page/{name}" for name in FILES)]
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
MOST_BYTES = 45_000


def file_of(path):
    return FILES[path.removeprefix("/page/") if path != "/" else "index.html"]


def test_each_file_is_served_as_it_is_and_only_runs_what_is_its_own(start):
    """With its type, and with headers that leave a browser no other script, style, address or frame."""
    api = start().api
    for path in PATHS:
        answer = api.get(path)
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))

        assert (200, file_of(path).read_bytes()) == (answer.status, answer.body)
        assert TYPES[file_of(path).suffix] == answer.headers["Content-Type"]
        assert ("nosniff", "no-referrer") == (answer.headers["X-Content-Type-Options"], answer.headers["Referrer-Policy"])
        assert {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "connect-src": "'self'",
            "img-src": "'self' data:",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        } == policy


def test_a_browser_that_has_a_file_is_told_so(start):
    """It asks each time, and gets 304 until the file is another one; HEAD has the headers alone."""
    api = start().api
    for path in PATHS:
        answer = api.get(path)
        again, head = api.get(path, if_none_match=answer.etag), api.ask("HEAD", path)

        assert "no-cache" == answer.headers["Cache-Control"]
        assert (304, b"", answer.etag) == (again.status, again.body, again.etag)
        assert (200, b"", str(len(answer.body))) == (head.status, head.body, head.headers["Content-Length"])
    assert 200 == api.get("/", if_none_match='"another"').status
    assert len(PATHS) - 1 == len({api.get(path).etag for path in PATHS})


@pytest.mark.parametrize(
    "path", ["/page/", "/page/nothing.js", "/page/__init__.py", "/page/..%2f__init__.py", "/page/../wire.py"]
)
def test_nothing_else_is_served(start, path):
    """404, also for what lies beside the files."""
    problem_of(start().api.get(path), 404, "not-found")


def test_the_page_takes_no_writes(start):
    """405, as for any other route that only answers."""
    api = start().api
    problem_of(api.put("/", {}), 405, "method-not-allowed")
    problem_of(api.post("/page/main.js", {}), 405, "method-not-allowed")


def test_the_page_is_small_and_whole():
    """No file names one that is not there or lies elsewhere; all of them are in the package; together they stay small."""
    named = {
        name.rpartition("/")[2]
        for path in FILES.values()
        for name in re.findall(r'(?:from |src=|href=)"([^"]+\.\w+)"', path.read_text())
    }
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["sidecar"]

    assert {"index.html"} == set(FILES) - named
    assert named <= set(FILES)
    assert set(FILES.values()) <= {path for pattern in packed for path in (ROOT / "sidecar").glob(pattern)}
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", "".join(p.read_text() for p in FILES.values()))
    assert sum(path.stat().st_size for path in FILES.values()) < MOST_BYTES
