"""The log: what is told, once and in which form; what is never told."""

import asyncio
import contextlib
import json
import os
import pty
import socket
import subprocess
import sys

import pytest
from secrecy import CANARY, keeps_secrets
from sidecar_process import Client, eventually, free_port, on_disk, running, written

from sidecar.logs import Summarised

OWN = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FILED = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


# --- its form ---


def on_a_terminal(config):
    """The first line of one that runs on a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-m", "sidecar", "run", "--config", config], stderr=theirs) as process:
        os.close(theirs)
        try:
            with open(ours, "rb", buffering=0) as terminal:
                return terminal.read(4096).decode().splitlines()[0]
        finally:
            process.kill()


@pytest.mark.parametrize("format", ["auto", "console"])
def test_people_on_a_terminal_get_coloured_lines(tmp_path, format):
    """Which say what happened first."""
    line = on_a_terminal(written(tmp_path, logging={"format": format}))

    assert "\x1b[" in line
    assert "ready" in line
    assert not line.startswith("{")


def test_json_on_a_terminal_can_be_asked_for(tmp_path):
    """One object a line, uncoloured."""
    assert "ready" == json.loads(on_a_terminal(written(tmp_path, logging={"format": "json"})))["event"]


def test_elsewhere_each_line_is_json(tmp_path):
    """When, how grave and what come first; also in what libraries say."""
    with running(written(tmp_path)) as sidecar:
        sidecar.api.put("/v1/state", {"state": "IDLE"}, if_none_match="*")
        sidecar.wait_for("write_rejected")
        assert 0 == sidecar.stop()
        lines = [json.loads(line) for line in sidecar.lines]

    assert ["ready", "api_open", "write_rejected", "stopping"] == [line["event"] for line in lines]
    assert ["info", "info", "warning", "info"] == [line["level"] for line in lines]
    assert {("timestamp", "level", "event")} == {tuple(line)[:3] for line in lines}


def answers(api):
    with contextlib.suppress(OSError):
        return api.get("/v1/state").status == 200


def test_the_level_bounds_what_is_told(tmp_path):
    """At `warning` a good day is silent."""
    config = written(tmp_path, logging={"level": "warning"}, api={"listen": f"unix:{tmp_path}/api.sock"})
    with running(config) as sidecar:
        api = Client(f"unix:{tmp_path}/api.sock")
        eventually(lambda: answers(api))
        api.put("/v1/state", {"state": "IDLE"})
        api.put("/v1/state", {"state": "IDLE"}, if_none_match="*")
        eventually(lambda: sidecar.events("write_rejected"))
        assert 0 == sidecar.stop()

        assert ["write_rejected"] == [line["event"] for line in sidecar.log]


# --- what is told ---


def test_each_change_of_state_is_one_line(tmp_path):
    """Who changed it, from what to what, why; an update is none."""
    with running(written(tmp_path)) as sidecar:
        sidecar.api.put("/v1/state", {"state": "IDLE", "reason": "ready", "source_module": "planner"})
        sidecar.api.put("/v1/state", {"state": "IDLE", "reason": "still"})
        sidecar.api.post("/v1/transitions", {"to": "ACTIVE", "reason": "go"})
        lines = sidecar.wait_for("state_changed", 2)
        assert 0 == sidecar.stop()
        told = [{key: line[key] for key in list(line)[3:]} for line in lines]

        assert 2 == len(sidecar.events("state_changed"))
    first = {"state": "IDLE", "before": "BOOTING", "version": 1, "revision": 2, "reason": "ready", "source_module": "planner"}
    second = {"state": "ACTIVE", "before": "IDLE", "version": 3, "revision": 4, "reason": "go", "source_module": "fsm_handler"}
    assert [first, second] == told


def test_each_change_of_a_subscribers_status_is_one_line(tmp_path, hook):
    """From the first failure to the eviction and back; what gets worse is a warning."""
    with running(written(tmp_path, webhooks={"retry": ["1ms"], "probe_interval": "5ms"})) as sidecar:
        hook.answers(500)
        sidecar.api.put("/v1/subscribers/console", {"url": hook.url})
        sidecar.wait_for("subscriber_status_changed", 2)
        hook.answers(200)
        sidecar.wait_for("subscriber_status_changed", 3)
        hook.answers(410)
        sidecar.api.put("/v1/state", {"state": "IDLE"})
        lines = sidecar.wait_for("subscriber_status_changed", 4)

    told = [(line["level"], line["before"], line["status"], line["outcome"], line["reason"]) for line in lines]
    assert [
        ("warning", "active", "degraded", "server_error", None),
        ("warning", "degraded", "suspended", "server_error", None),
        ("info", "suspended", "active", "delivered", None),
        ("warning", "active", "evicted", "gone", "gone"),
    ] == told
    assert {"console"} == {line["subscriber"] for line in lines}
    assert [None, None, 1, 1] == [line["cursor"] for line in lines]


def test_a_rejected_write_is_one_line(tmp_path):
    """Who tried what, and why it lost."""
    with running(written(tmp_path)) as sidecar:
        sidecar.api.put("/v1/state", {"state": "IDLE", "source_module": "late", "reason": "why"}, if_match='"lost-3"')
        (line,) = sidecar.wait_for("write_rejected")

    assert "lost-3" in line["detail"]
    assert {"state": "IDLE", "source_module": "late", "reason": "why"}.items() <= line.items()


def test_a_long_reason_does_not_fill_the_log(tmp_path):
    """A refused writer may try often; what it says is whole in `/v1/conflicts`."""
    with running(written(tmp_path)) as sidecar:
        sidecar.api.put("/v1/state", {"state": "IDLE", "reason": "why " * 1000}, if_match='"lost-3"')
        (line,) = sidecar.wait_for("write_rejected")

        assert ("why " * 1000)[:256] == line["reason"]
        assert "why " * 1000 == sidecar.api.get("/v1/conflicts").json["conflicts"][0]["attempted"]["reason"]


def test_no_request_is_told(tmp_path):
    """Whatever it asks for, and however it ends."""
    with running(written(tmp_path)) as sidecar:
        for _ in range(5):
            for path in ("/v1/state", "/v1/history", "/v1/health", "/nowhere", "/v1/state?x=1"):
                sidecar.api.get(path)
            for path in ("/readyz", "/metrics", "/nowhere"):
                sidecar.ops.get(path)
            sidecar.api.put("/v1/state", b"{")
            sidecar.api.put("/v1/state", {"state": "BOOTING"})
        assert 0 == sidecar.stop()

        assert ["ready", "api_open", "stopping"] == [line["event"] for line in sidecar.log]


# --- when there is too much to tell ---


@pytest.mark.parametrize("waits", [True, False])
def test_many_changes_are_summarised_and_none_is_uncounted(tmp_path, waits):
    """At most 50 lines a second; those left out are counted, also when the process ends within the second."""
    with running(written(tmp_path)) as sidecar:
        for n in range(1, 201):
            sidecar.api.put("/v1/state", {"state": "IDLE" if n % 2 else "ACTIVE"})
        if waits:
            sidecar.wait_for("state_changed (summary)")
        assert 0 == sidecar.stop()
        lines, summaries = sidecar.events("state_changed"), sidecar.events("state_changed (summary)")

    assert 50 <= len(lines) < 200
    assert 200 == len(lines) + sum(line["left_out"] for line in summaries)
    assert 200 == max([line["version"] for line in lines] + [line["last_version"] for line in summaries])


async def test_a_summary_closes_the_second_that_had_too_much():
    """The first ones are written, the others counted, with what the last one said; then it begins anew."""
    lines = asyncio.Queue()
    tell = Summarised(lambda event, **fields: lines.put_nowait((event, fields)), per_second=2)
    for n in range(5):
        tell("jumped", n=n)
    told = [await lines.get() for _ in range(3)]
    tell("jumped", n=5)

    assert [("jumped", {"n": 0}), ("jumped", {"n": 1}), ("jumped (summary)", {"left_out": 3, "last_n": 4})] == told
    assert ("jumped", {"n": 5}) == lines.get_nowait()
    assert lines.empty()


# --- what is never told ---


def test_no_secret_is_ever_told(tmp_path, hook):
    """Neither one's own, nor one made here, nor one from a file, nor what a URL carries; at any level, whatever happens."""
    secret_file = tmp_path / "secret"
    secret_file.write_text(FILED)
    secret_file.chmod(0o600)
    console = {"id": "console", "url": hook.url, "secret_file": str(secret_file)}
    webhooks = {"retry": ["1ms"], "probe_interval": "5ms"}
    config = written(tmp_path, journal=on_disk(tmp_path), logging={"level": "debug"}, subscribers=[console], webhooks=webhooks)
    with running(config) as sidecar:
        made = sidecar.api.put("/v1/subscribers/made", {"url": hook.url}).json["secret"]
        sidecar.api.put("/v1/subscribers/own", {"url": f"{hook.url}?token={CANARY}", "secret": OWN})
        sidecar.api.put("/v1/subscribers/dead", {"url": f"http://127.0.0.1:{free_port()}/{CANARY}", "secret": OWN})
        sidecar.api.put("/v1/subscribers/bad", {"url": f"http://{CANARY}@127.0.0.1/", "secret": OWN[:-2]})
        hook.answers(410)
        sidecar.api.put("/v1/state", {"state": "IDLE"})
        eventually(lambda: len([line for line in sidecar.log if line.get("status") in ("evicted", "suspended")]) >= 4)
        assert 0 == sidecar.stop()

    assert [] == [secret for secret in (made, OWN, OWN[6:-2], FILED, CANARY) if secret in sidecar.stderr]


RAW = {
    "no HTTP": b"canary-6b1f\r\n\r\n",
    "an unknown method": b"FETCH /v1/state HTTP/1.1\r\nHost: a\r\n\r\n",
    "no host": b"GET /v1/state HTTP/1.1\r\n\r\n",
    "a long header": b"GET /v1/state HTTP/1.1\r\nHost: a\r\nX: %s\r\n\r\n" % (CANARY.encode() * 2000),
    "a long path": b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (CANARY.encode() * 2000),
    "a negative length": b"PUT /v1/state HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"PUT /v1/state HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a chunk without a size": b"PUT /v1/state HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\ncanary-6b1f\r\n",
}


def exchange(api, data, leave=False):
    """Send these bytes, and give what comes back until the other side closes. `leave`: hang up at once."""
    host, port = api.address.rsplit(":", 1)
    with contextlib.closing(socket.create_connection((host, int(port)), timeout=5)) as connection:
        connection.sendall(data)
        if leave:
            connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answer:
            said = answer.read()
    assert keeps_secrets(said.decode("latin-1"))
    return said


def test_what_is_not_http_is_refused_quietly(tmp_path):
    """400, and a line a second in the log, without a byte of it: anybody can send this all day."""
    with running(written(tmp_path)) as sidecar:
        answers = {name: exchange(sidecar.api, data)[:13] for name, data in RAW.items()}
        assert 0 == sidecar.stop()

        assert dict.fromkeys(RAW, b"HTTP/1.0 400 ") == answers
        told = [line for line in sidecar.log if line["event"].startswith("request_malformed")]
        assert len(sidecar.log) - 3 == len(told) < len(RAW)
        assert {"level", "timestamp", "event", "listener", "reason", "peer"} == set(told[0])


def test_a_writer_that_goes_in_the_middle_is_no_fault_of_ours(tmp_path):
    """No traceback, and no 5xx counted, which would wake somebody."""
    head = b"PUT /v1/state HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    with running(written(tmp_path)) as sidecar:
        exchange(sidecar.api, head, leave=True)
        sidecar.api.get("/v1/state")
        counted = [line for line in sidecar.ops.get("/metrics").body.decode().splitlines() if "fsm_http_requests" in line]
        assert 0 == sidecar.stop()

        assert [] == [line for line in counted if 'code="5' in line]
        assert ["ready", "api_open", "stopping"] == [line["event"] for line in sidecar.log]
