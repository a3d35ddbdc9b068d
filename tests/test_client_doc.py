"""docs/client.md and examples/agent are true: what they show is run as it stands, but for the addresses."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import Shell, blocks, links
from sidecar_process import on_disk, running, written

from sidecar import cli
from sidecar.commands import outcomes

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "client.md").read_text()
AGENT = ROOT / "examples" / "agent" / "agent.py"
FLIGHT = ["IDLE (self-test passed)", "ACTIVE (mission received)", "IDLE (mission done)", "SHUTDOWN (landed, all off)"]
SHOWN = [f"{version}: {state}" for version, state in enumerate(["BOOTING (COLD_START)", *FLIGHT])]


@pytest.fixture
def ready(tmp_path):
    """The addresses of a real sidecar."""
    with running(written(tmp_path, journal=on_disk(tmp_path))) as process:
        yield process.wait_for("ready")[0]


def python(*arguments):
    ran = subprocess.run([sys.executable, "-W", "error", *map(str, arguments)], capture_output=True, text=True, timeout=30)
    assert (0, "") == (ran.returncode, ran.stderr)
    return ran.stdout


def test_the_commands_do_what_the_text_says(ready, hook, monkeypatch):
    """One after the other, as in a shell."""
    monkeypatch.setenv("FSM_SIDECAR_URL", f"http://{ready['api']}")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    shell = Shell(ready["api"], ready["ops"], hook.url)
    first, scripted, writers = (shell(block) for block in blocks(DOCUMENT, "sh"))

    for shown in (
        "COLD_START",
        "IDLE, version 1",
        "IDLE, version 2",
        "ACTIVE, version 3",
        "console is registered",
        "delivered",
        "console is changed",
        "its new secret, shown this once: whsec_",
        "heard",
        "nobody has had the lease yet",
        "healthy",
    ):
        assert shown in first
    assert "ACTIVE, version 4, revision 5\n" == scripted
    written_last, acknowledged, token = writers.splitlines()
    assert ["ACTIVE, version 5, revision 6", "acknowledged by 1 of 1"] == [written_last, acknowledged]
    assert token.endswith("-1")


def test_the_programs_run(ready, hook):
    """One reads, wins, loses and watches; one is the writer, and lives; one is a tool."""
    programs = [block.replace("127.0.0.1:8470", ready["api"]) for block in blocks(DOCUMENT, "python")]
    agent, writer, tool = (program.replace("http://127.0.0.1:9000/hook", hook.url) for program in programs)

    assert "IDLE True\n2 IDLE\n" == python("-c", agent)
    assert "" == python("-c", writer)
    assert "active delivered\nSHUTDOWN\n['self-test passed', 'self-test passed'] 1\n" == python("-c", tool)


def test_the_exit_codes_are_those_of_the_commands():
    """All of them, and no others."""
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", DOCUMENT, re.MULTILINE)}
    client = {outcomes.EX_NO, outcomes.EX_CONFLICT, outcomes.EX_REFUSED, outcomes.EX_UNREACHABLE}

    assert {0, cli.EX_USAGE, cli.EX_IOERR, cli.EX_INTERRUPTED} | client == codes


def test_an_agent_of_the_class_runs_against_a_sidecar(ready):
    """With one line changed it shows the same; no connection is left open at its end."""
    shown = python(AGENT).splitlines()

    assert SHOWN == shown == python(AGENT, f"http://{ready['api']}").splitlines()


def test_an_agent_that_begins_anew_goes_on_from_the_state_it_finds(ready):
    """Also when that is the one it wants first: it does not take itself for somebody faster."""
    python("-m", "sidecar", "state", "set", "IDLE", "--url", f"http://{ready['api']}")

    for first in (2, 6):  # the second time it finds its own end
        shown = [f"{version}: {state}" for version, state in enumerate(FLIGHT, first)]
        assert shown == python(AGENT, f"http://{ready['api']}").splitlines()[-4:]


def test_every_link_leads_somewhere():
    """Within the project."""
    assert [] == [path for path, _ in links(DOCUMENT) if not (ROOT / "docs" / path).exists()]
