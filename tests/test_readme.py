"""The README is true: its blocks are run as they stand, only with free ports, and its links lead somewhere."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from documents import Shell, blocks, links
from sidecar_process import BASE, on_disk, running
from standardwebhooks import Webhook

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [README, (ROOT / "CONTRIBUTING.md").read_text(), (ROOT / "docs" / "api.md").read_text()]


@pytest.fixture
def sidecar(tmp_path):
    """The real process on the README's configuration, its journal on disk."""
    (configuration,) = blocks(README, "yaml")
    path = tmp_path / "sidecar.yaml"
    path.write_text(json.dumps(BASE | {"journal": on_disk(tmp_path)} | yaml.safe_load(configuration)))
    with running(path) as process:
        yield process


@pytest.fixture
def shell(sidecar, hook):
    """Runs a block of the README, its addresses replaced by those of the test."""
    ready = sidecar.wait_for("ready")[0]
    return Shell(ready["api"], ready["ops"], hook.url)


def test_the_commands_by_hand_do_what_the_text_says(shell, sidecar, hook):
    """Write, transition, stale write, compare-and-set, illegal move, webhook, and what there is to look at."""
    write, transition, stale, etag, illegal, register, look = (shell(block) for block in blocks(README, "sh"))

    assert write.startswith("HTTP/1.1 200 OK")
    assert re.search(r'^ETag: "\w+-1"', write, re.MULTILINE)
    assert "ACTIVE" == json.loads(transition)["snapshot"]["state"]
    winner = json.loads(stale)
    assert (412, "version-conflict") == (winner["status"], winner["type"])
    assert ("planner", "ACTIVE", 2) == tuple(winner["current"][key] for key in ("source_module", "state", "version"))
    assert ("waypoint 3", 3) == tuple(json.loads(etag)["snapshot"][key] for key in ("reason", "version"))
    refused = json.loads(illegal)
    assert (409, ["IDLE", "ERROR_STATE"]) == (refused["status"], refused["allowed"])
    delivered = hook.wait_for_revision(4)
    verified = Webhook(json.loads(register)["secret"]).verify(delivered.body, dict(delivered.headers))
    assert (4, True, "ACTIVE") == (
        verified["data"]["revision"],
        verified["data"]["initial"],
        verified["data"]["snapshot"]["state"],
    )
    for shown in ("old-planner", "stateDiagram-v2", "fsm_version_conflicts_total", '"id":"console"', '"head":4'):
        assert shown in look
    health = sidecar.api.get("/v1/health").json
    assert (False, True) == (health["healthy"], "conflict" in "".join(health["issues"]))


def test_the_commands_of_the_api_page_are_taken(shell):
    """Each block of docs/api.md, from the first to the last: with a success."""
    for block in blocks(DOCUMENTS[2], "sh"):
        shell(block)

    assert shell.statuses
    assert {200} == set(shell.statuses)


def test_the_program_runs():
    """The store alone, in a program without a server."""
    program = next(block for block in blocks(README, "python") if "AsyncStateStore" in block)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "BOOTING IDLE" in ran.stdout
    assert "expected a version below 1" in ran.stdout


def test_the_exit_codes_are_those_of_the_command():
    """As `cli.py` has them."""
    from sidecar import cli

    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}

    assert {0, cli.EX_USAGE, cli.EX_DATAERR, cli.EX_UNAVAILABLE, cli.EX_IOERR} == codes


def test_the_table_of_errors_is_that_of_the_api():
    """Every type in `docs/api.md` can be answered, and the other way round."""
    from sidecar.api import problems

    documented = re.findall(r"^\| [^|]+ \| (\d{3}) \| ([^|]+)", DOCUMENTS[2], re.MULTILINE)
    table = {(int(status), kind) for status, kinds in documented for kind in re.findall(r"`([a-z-]+)`", kinds)}
    answered = {(meaning.status, meaning.type) for meaning in problems.MEANINGS.values()}
    answered |= set(problems.HTTP_TYPES.items())

    carried = {"scope", "state", "to", "allowed", "limit", "oldest", "expected", "current", "path", "rule", "holder"}
    assert answered == {(status, kind) for status, kind in table if kind not in carried}


@pytest.mark.parametrize("document", DOCUMENTS, ids=["README", "CONTRIBUTING", "api"])
def test_every_link_within_the_project_leads_somewhere(document):
    """A reader is never sent to a file that is not there."""
    paths = [path for path, _ in links(document)]

    assert [] == [path for path in paths if not any((base / path).exists() for base in (ROOT, ROOT / "docs"))]


def test_the_two_commands_are_there():
    """`make demo` and `make test`, with make itself."""
    make = shutil.which("make")
    for target in ("demo", "test"):
        assert f"$ make {target}" in README
        assert 0 == subprocess.run([make, "-n", target], cwd=ROOT, capture_output=True, check=False).returncode
