"""`make test LOOP=…`: all of a run is on one kind of event loop, in this process and in those that it starts."""

import asyncio
from pathlib import Path

import uvloop
from sidecar_process import new_loop, running, written

ON_UVLOOP = new_loop is uvloop.new_event_loop


async def test_a_test_is_on_the_loop_asked_for():
    """Its own coroutines."""
    assert ON_UVLOOP is isinstance(asyncio.get_running_loop(), uvloop.Loop)


def test_a_sidecar_is_on_the_loop_asked_for(tmp_path):
    """The process: uvloop's library is in its memory, or is not."""
    with running(written(tmp_path)) as sidecar:
        sidecar.wait_for("ready")

        assert ON_UVLOOP is ("uvloop" in Path(f"/proc/{sidecar.pid}/maps").read_text())
