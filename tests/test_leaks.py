"""What comes and goes leaves nothing behind: no task, descriptor or thread, and no memory that grows with how often."""

import json
import os
import signal
import socket
import struct
from pathlib import Path

import pytest
from scraping import of
from sidecar_process import BASE, Client, eventually, receiving, running
from watching import Stream, asked, connect

ROUNDS = 1000
RELOADS = 100
MOST_GROWN_BYTES = 8 << 20
"""Of the process; a leak of 8 KiB a round is found."""


class Owned:
    """What a process has."""

    def __init__(self, sidecar):
        self._sidecar = sidecar

    @property
    def things(self):
        """Tasks, descriptors and threads. The connection that asks is in it, each time."""
        process = Path(f"/proc/{self._sidecar.pid}")
        return (
            of(self._sidecar, "fsm_event_loop_tasks"),
            len(os.listdir(process / "fd")),
            len(os.listdir(process / "task")),
        )

    @property
    def bytes(self):
        """Its memory."""
        return int(Path(f"/proc/{self._sidecar.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def is_again(self, before):
        """Waits until it has no more than before."""
        eventually(lambda: all(now <= then for now, then in zip(self.things, before, strict=True)))


@pytest.fixture
def sidecar(tmp_path):
    """A process that follows its config file."""
    path = tmp_path / "sidecar.yaml"
    path.write_text(json.dumps(BASE))
    with running(path) as sidecar:
        sidecar.config = path
        sidecar.wait_for("ready")
        yield sidecar


def left_behind(sidecar, rounds, once):
    """Does it a few times, for what is made once and kept; then often. Nothing but memory may be more than before."""
    owned = Owned(sidecar)
    for n in range(max(rounds // 10, 10)):
        once(n)
    things, size = owned.things, owned.bytes
    for n in range(rounds):
        once(n)
    owned.is_again(things)
    return owned.bytes - size


def test_subscribers_that_come_and_go_leave_nothing(sidecar):
    """Each registered, served and removed."""
    with receiving() as hook:

        def once(n):
            assert 201 == sidecar.api.put("/v1/subscribers/guest", {"url": hook.url}).status
            assert 204 == sidecar.api.delete("/v1/subscribers/guest").status

        assert left_behind(sidecar, ROUNDS, once) < MOST_GROWN_BYTES


def test_connections_that_come_and_go_leave_nothing(sidecar):
    """Each with a request."""

    def once(n):
        assert 200 == Client(sidecar.api.address).get("/v1/state").status

    assert left_behind(sidecar, ROUNDS, once) < MOST_GROWN_BYTES


def test_watchers_that_come_and_go_leave_nothing(sidecar):
    """One goes in the middle of the stream, one before its first event, one is cut off hard, one gives up waiting."""
    address = sidecar.api.address
    place = "/v1/state?after=1&wait=60s"

    def once(n):
        connection = asked(connect(address), place if n % 4 == 3 else "/v1/watch")
        if n % 4 == 0:
            Stream(connection).event()
        elif n % 4 == 1:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    assert left_behind(sidecar, ROUNDS, once) < MOST_GROWN_BYTES
    eventually(lambda: 0 == of(sidecar, "fsm_watchers", kind="stream") + of(sidecar, "fsm_watchers", kind="poll"))


def test_reloads_leave_nothing(sidecar):
    """Each with another subscriber in place of the one before."""
    with receiving() as hook:

        def once(n):
            changed = {"subscribers": [{"id": f"guest-{n}", "url": hook.url}]}
            fresh = sidecar.config.with_suffix(".new")
            fresh.write_text(json.dumps(BASE | changed))
            fresh.replace(sidecar.config)
            sidecar.send(signal.SIGHUP)
            eventually(lambda: 200 == sidecar.api.get(f"/v1/subscribers/guest-{n}").status)

        assert left_behind(sidecar, RELOADS, once) < MOST_GROWN_BYTES
