"""Server-sent events, as a client reads them: the same events however the bytes are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import sse
from sidecar.sse import Event, Parser

STREAM = b"".join(
    (
        b"retry: 1500\n\n",
        b": heartbeat\n\n",
        b'id: k3f9-1\nevent: state\ndata: {"revision":1}\n\n',
        b"data: two\r\ndata:lines\r\n\r\n",
        b"event: gap\rdata: caf\xc3\xa9\r\r",
        b"id: k3f9-2\nevent: nothing\n\n",
        b"unknown: field\ndata\ndata:  kept space\n\n",
        b"id\ndata: x\n\n",
        b"data: not ended",
    )
)
EVENTS = [
    Event("state", '{"revision":1}', "k3f9-1"),
    Event("message", "two\nlines", "k3f9-1"),
    Event("gap", "café", "k3f9-1"),
    Event("message", "\n kept space", "k3f9-2"),
    Event("message", "x", ""),
]


def read(*chunks):
    parser = Parser()
    return [event for chunk in chunks for event in parser.feed(chunk)], parser


@given(st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_events_do_not_depend_on_how_their_bytes_are_cut(cuts):
    """Every kind of line end, comments, unknown fields, ids that stay; what is not ended is no event."""
    places = sorted({0, len(STREAM), *cuts})
    chunks = [STREAM[begin:end] for begin, end in itertools.pairwise(places)]
    events, parser = read(*chunks)

    assert (EVENTS, 1.5) == (events, parser.retry_seconds)


def test_byte_by_byte_is_the_same():
    """The worst cut of all."""
    assert EVENTS == read(*(STREAM[n : n + 1] for n in range(len(STREAM))))[0]


@pytest.mark.parametrize("value", ["", "soon", "-1", "1.5", "٣"])
def test_a_retry_that_is_no_number_is_ignored(value):
    """As the standard says."""
    assert read(f"retry: {value}\n\n".encode())[1].retry_seconds is None


@pytest.mark.parametrize("line_end", ["", "\n"])
def test_an_event_has_a_largest_size(monkeypatch, line_end):
    """In one line without end, and in many."""
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    parser = Parser()
    chunks = [f"data: xx{line_end}".encode()] * 1000
    with pytest.raises(ValueError, match="larger than"):
        [event for chunk in chunks for event in parser.feed(chunk)]


def test_a_long_stream_of_small_events_has_no_end(monkeypatch):
    """The size is that of one event."""
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    parser = Parser()

    assert 1000 == sum(1 for _ in range(1000) for _ in parser.feed(b": heartbeat\n\ndata: x\n\n"))
