"""The demo, run as its user runs it: a process in a terminal or a pipe, whose output is read."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from sidecar import Machine, config

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "config" / "demo.yaml"
TRACE = ROOT / "demo" / "px4-takeoff-loiter-rtl.jsonl"


def demo(*arguments, temporary, **environment):
    """The demo's command line and environment. Its temporary folder is made in `temporary`."""
    return {
        "args": [sys.executable, "-m", "demo", *arguments],
        "cwd": ROOT,
        "env": {**os.environ, "TMPDIR": str(temporary), "PYTHONUTF8": "1", **environment},
        "encoding": "utf-8",
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
    }


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """One whole run: its exit code, its output, and what it left in its temporary folder."""
    temporary = tmp_path_factory.mktemp("demo")
    ended = subprocess.run(**demo("--once", temporary=temporary), timeout=60, check=False)
    return ended.returncode, ended.stdout, os.listdir(temporary)


@pytest.fixture(scope="module")
def told(once):
    """What it said, line breaks and columns taken out."""
    return " ".join(once[1].split())


def test_it_ends_by_itself_and_leaves_nothing(once):
    """Exit code 0 says that everything happened; journal and config are gone."""
    code, output, left = once
    assert code == 0, output
    assert left == []
    assert "\x1b" not in output, "no colour in a pipe"


def test_it_shows_each_state_with_its_delay(once):
    """The flight's states in order, each with version, revision and delay."""
    lines = re.findall(r"^ +[\d.]+ state +(\w+) .*? (\d+) +(\d+) +([\d.]+) ms$", once[1], re.MULTILINE)
    assert [state for state, *_ in lines] == ["AUTO_LOITER", "AUTO_TAKEOFF", "AUTO_LOITER", "AUTO_RTL", "AUTO_LOITER"]
    assert [int(revision) - int(version) for _, version, revision, _ in lines] == [1] * 5
    assert all(0 < float(delay) < 10_000 for *_, delay in lines)


def test_it_names_both_sides_of_each_conflict(told):
    """Who wanted what on which version, and against whom it lost."""
    lost = re.findall(r"conflict (\S+) wanted (\w+) [\w ]+ \d+ \((\S+)\), lost against (\S+): AUTO_\w+, version \d+", told)
    assert lost == [
        ("old-planner", "AUTO_MISSION", "If-Match", "commander"),
        ("old-planner", "ORBIT", "If-Match", "commander"),
        ("old-planner", "AUTO_MISSION", "enforce_version", "commander"),
    ]


def test_it_shows_what_the_machine_refuses_and_would_allow(told):
    """Nobody takes off on the way home."""
    assert "refused old-planner AUTO_RTL → AUTO_TAKEOFF is not allowed; allowed are MANUAL, ALTCTL," in told


def test_it_shows_the_dead_subscriber_until_its_eviction(told):
    """Each status once, in order."""
    statuses = re.findall(r"subscriber attic (\w+ → \w+), \d+ failures? \(connect\)", told)
    assert statuses == ["active → degraded", "degraded → suspended", "suspended → evicted"]


def test_it_sums_up_what_the_sidecar_says(told):
    """Numbers from /metrics, the state, where to look, and how the sidecar ended."""
    assert "state AUTO_LOITER, version 106, revision 107 epoch " in told
    assert re.search(r"writes 107 accepted, p50 [\d.]+ ms, p99 [\d.]+ ms", told)
    assert "conflicts 3 writes lost (1 stale_version, 2 wrong_expectation), 1 refused by the machine" in told
    assert "subscribers 1 active, 1 evicted" in told
    for path in ("/v1/state", "/v1/history", "/v1/conflicts", "/v1/machine?format=mermaid", "/v1/subscribers"):
        assert re.search(rf"http://127\.0\.0\.1:\d+{re.escape(path)} ", told)
    assert "The sidecar got SIGTERM, and ended with exit code 0" in told


def test_ctrl_c_in_the_flight_stops_everything(tmp_path):
    """No traceback, no sidecar left behind, no folder left behind."""
    with subprocess.Popen(**demo("--once", "--speed", "1", temporary=tmp_path), process_group=0) as process:
        seen = ""
        while " state " not in seen:
            seen += process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "The sidecar got SIGTERM, and ended with exit code 0" in output
    assert "Traceback" not in output
    assert os.listdir(tmp_path) == []
    sidecar = int(re.search(r"process (\d+)", seen)[1])
    with pytest.raises(ProcessLookupError):
        os.kill(sidecar, 0)


BROKEN = {"PROMETHEUS_MULTIPROC_DIR": "/nowhere"}
"""The sidecar refuses to start with it."""


def test_a_sidecar_that_does_not_start_is_told(tmp_path):
    """Exit code 1, and the sidecar's own words."""
    ended = subprocess.run(**demo(temporary=tmp_path, **BROKEN), timeout=60, check=False)
    assert ended.returncode == 1
    assert "the sidecar ended with exit code 64; it said:" in ended.stdout
    assert "PROMETHEUS_MULTIPROC_DIR is set" in ended.stdout
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("environment", "coloured"), [({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_colour_unless_it_is_unwanted(tmp_path, environment, coloured):
    """As https://no-color.org asks."""
    ours, theirs = pty.openpty()
    run = demo(temporary=tmp_path, TERM="xterm", **environment, **BROKEN)
    try:
        subprocess.run(**{**run, "stdout": theirs, "stderr": theirs}, timeout=60, check=False)
        assert (b"\x1b[" in os.read(ours, 65536)) == coloured
    finally:
        os.close(ours)
        os.close(theirs)


def test_the_config_file_loads():
    """With short limits, on this host only."""
    settings = config.load(str(CONFIG))
    assert str(settings.api.listen) == "127.0.0.1:8470"
    assert str(settings.ops.listen) == "127.0.0.1:8471"
    assert settings.journal.backend == "sqlite"
    assert settings.fsm.initial is None


def test_the_flight_obeys_the_machine():
    """Every move of the trace is one that the config file allows."""
    fsm = config.load(str(CONFIG)).fsm
    machine = Machine.from_names(fsm.states, fsm.transitions)
    messages = [json.loads(line) for line in TRACE.read_text().splitlines()]
    flown = [machine.states[message["nav_state"]] for message in messages if "nav_state" in message]
    assert len(messages) == 108
    assert all(machine.allows(before, after) for before, after in pairwise(flown))
