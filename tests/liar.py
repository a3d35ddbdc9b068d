"""Stands before a sidecar and passes everything on, but for one lie: how a sidecar that breaks its contract would look."""

import contextlib
import http.server
import re
import threading

from sidecar_process import Client


class Lie:
    """About requests of this method whose path has this pattern: `sends` changes the request (method, path, body).

    Answers, only those of status `when` if that is given, get this status, this ETag, and what `body` makes of theirs.
    """

    def __init__(self, method="", path="", *, when=None, status=None, body=None, etag=None, sends=None):
        self.method, self.path = method, path
        self.when, self.status, self.body, self.etag, self.sends = when, status, body, etag, sends

    def is_about(self, method, path):
        return method.startswith(self.method) and re.search(self.path, path)

    def told(self, answer):
        if self.when not in (None, answer.status):
            return answer
        if self.etag:
            answer.headers.replace_header("ETag", self.etag)
        return answer._replace(status=self.status or answer.status, body=self.body(answer.body) if self.body else answer.body)


class Liar:
    """One who tells the truth of a listener but for the lie. `asked`: method, path and Authorization of each request."""

    def __init__(self, truth, lie):
        self.asked = []
        answer = lambda handler: self._answer(handler, truth, lie)  # noqa: E731
        members = dict.fromkeys(("do_GET", "do_PUT", "do_POST", "do_DELETE"), answer) | {"log_message": lambda *_: None}
        handler = type("Handler", (http.server.BaseHTTPRequestHandler,), members)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.client = Client(f"127.0.0.1:{self.server.server_port}")

    def _answer(self, handler, truth, lie):
        body = handler.rfile.read(int(handler.headers["Content-Length"] or 0))
        self.asked.append((handler.command, handler.path, handler.headers["Authorization"]))
        headers = [pair for pair in handler.headers.items() if pair[0].lower() not in ("host", "content-length")]
        asked, lies = (handler.command, handler.path, body or None), lie.is_about(handler.command, handler.path)
        method, path, body = lie.sends(*asked) if lies and lie.sends else asked
        answer = truth.exchange(method, path, body, headers)
        answer = lie.told(answer) if lies else answer
        handler.send_response(answer.status)
        if answer.etag:
            handler.send_header("ETag", answer.etag)
        handler.end_headers()
        handler.wfile.write(answer.body)


@contextlib.contextmanager
def lying(truth, lie):
    """A liar before this client, while the block runs."""
    liar = Liar(truth, lie)
    thread = threading.Thread(target=liar.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield liar
    finally:
        liar.server.shutdown()
        thread.join()
        liar.server.server_close()
