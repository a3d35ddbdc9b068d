"""Durations, sizes and addresses: what people write is what is meant, and it is printed in the same way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.units import Bytes, Listen, Seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("35ms", 0.035), ("0s", 0), ("5s", 5), ("1.5m", 90), ("15m", 900), ("24h", 86400), ("7d", 604800)],
)
def test_a_duration_is_a_number_with_a_unit(text, seconds):
    """The units are milliseconds to days."""
    assert Seconds.parse(text) == seconds


@pytest.mark.parametrize(
    "wrong", ["5", "", "s", "5 s", "-5s", "+5s", "1e3s", ".5s", "5S", "5sec", "1h30m", "५s", "5s\n", 5, 0.5, None, True, []]
)
def test_anything_else_is_no_duration(wrong):
    """The answer shows how durations are written."""
    with pytest.raises(ValueError, match="expected a duration such as 250ms, 5s, 15m, 24h or 7d"):
        Seconds.parse(wrong)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0005, "0.5ms"), (0.25, "250ms"), (1.5, "1500ms"), (5, "5s"), (90, "90s"), (900, "15m"), (86400, "1d")],
)
def test_a_duration_is_printed_in_its_largest_whole_unit(seconds, text):
    """In `str` and in f-strings alike."""
    assert str(Seconds(seconds)) == f"{Seconds(seconds)}" == text


@given(st.floats(min_value=0, max_value=1e9) | st.integers(0, 10**12).map(lambda n: n / 1000))
def test_a_printed_duration_reads_as_the_same_one(seconds):
    """No digit is lost."""
    assert Seconds.parse(str(Seconds(seconds))) == seconds


@pytest.mark.parametrize(("text", "size"), [("512B", 512), ("256KiB", 262144), ("16MiB", 16777216), ("1GiB", 1 << 30)])
def test_a_size_is_a_whole_number_with_a_unit(text, size):
    """Units are powers of 1024, and printing gives the text again."""
    assert Bytes.parse(text) == size
    assert str(Bytes(size)) == f"{Bytes(size)}" == text


@pytest.mark.parametrize("wrong", ["1", "1KB", "1kib", "1.5MiB", "-1B", "", "9" * 5000 + "B", 1024, None, False, {}])
def test_anything_else_is_no_size(wrong):
    """The answer shows how sizes are written."""
    with pytest.raises(ValueError, match="expected a size such as 512B, 256KiB, 16MiB or 1GiB"):
        Bytes.parse(wrong)


@given(st.integers(0, 1 << 50))
def test_a_printed_size_reads_as_the_same_one(size):
    """Down to the byte."""
    assert Bytes.parse(str(Bytes(size))) == size


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("127.0.0.1:8470", Listen(host="127.0.0.1", port=8470)),
        ("0.0.0.0:0", Listen(host="0.0.0.0", port=0)),  # noqa: S104  (an address to parse)
        ("localhost:65535", Listen(host="localhost", port=65535)),
        ("[::1]:8470", Listen(host="::1", port=8470)),
        ("unix:/run/api.sock", Listen(socket_path="/run/api.sock")),
    ],
)
def test_an_address_is_a_host_and_port_or_a_socket(text, listen):
    """Printing gives the text again."""
    assert Listen.parse(text) == listen
    assert str(listen) == text


@pytest.mark.parametrize(
    "wrong",
    [
        *("8470", ":8470", "*:8470", "host", "host:", "host:x", "host:65536", "host:-1", "host:²", "a b:1", "host:1\n"),
        *("::1:8470", "[::1]", "[:::]:1", "[127.0.0.1]:1", "http://host:1", "unix:", "unix:api.sock", f"unix:/{'a' * 107}"),
        *(8470, None, True, ["host:1"], {}),
    ],
)
def test_anything_else_is_no_address(wrong):
    """The answer shows how addresses are written. IPv6 needs brackets, and a socket path has to fit."""
    with pytest.raises(ValueError, match=r'expected "host:port" such as "127\.0\.0\.1:8470"'):
        Listen.parse(wrong)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        *(("127.0.0.1:1", True), ("127.1.2.3:1", True), ("[::1]:1", True), ("localhost:1", True), ("unix:/run/a", True)),
        *(("0.0.0.0:1", False), ("[::]:1", False), ("10.0.0.1:1", False), ("127.evil.example:1", False)),
    ],
)
def test_loopback_is_what_only_this_host_can_reach(text, loopback):
    """A name that only looks like a loopback address is none."""
    assert Listen.parse(text).loopback is loopback
