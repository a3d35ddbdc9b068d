"""`docs/webhooks.md` and the receivers that it shows: each runs as it stands against the real sidecar."""

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from sidecar_process import eventually, free_port

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples" / "receivers"
DOCUMENT = (ROOT / "docs" / "webhooks.md").read_text()
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@contextmanager
def receiver(name, folder, port):
    """The example as a process in this folder; gives the file with what it printed."""
    environment = os.environ | {"HOOK_SECRET": SECRET, "PORT": str(port), "PYTHONPATH": str(ROOT)}
    with open(folder / "printed", "ab") as printed:
        process = subprocess.Popen(
            [sys.executable, EXAMPLES / name], cwd=folder, env=environment, stdout=printed, stderr=subprocess.DEVNULL
        )
    try:
        yield folder / "printed"
    finally:
        process.terminate()
        process.wait()


def handled(printed):
    """The revisions and states that it printed."""
    return [line for line in printed.read_text().splitlines() if line[:1].isdigit()]


def cursor(api):
    return api.get("/v1/subscribers/console").json["cursor"]


@pytest.mark.parametrize("name", ["aiohttp_receiver.py", "flask_receiver.py"])
def test_a_receiver_takes_each_revision_once(start, tmp_path, name):
    """Also over its own restart, in which the sidecar sends again what was on its way."""
    api = start(webhooks={"retry": ["100ms"] * 50}).api
    port = free_port()
    api.put("/v1/subscribers/console", {"url": f"http://127.0.0.1:{port}/hook", "secret": SECRET})
    with receiver(name, tmp_path, port):
        eventually(lambda: cursor(api) == 1)
        api.put("/v1/state", {"state": "IDLE"})
        eventually(lambda: cursor(api) == 2)
    api.put("/v1/state", {"state": "ACTIVE"})
    with receiver(name, tmp_path, port) as printed:
        eventually(lambda: cursor(api) == 3)
        api.put("/v1/subscribers/console?from=2", {"url": f"http://127.0.0.1:{port}/hook", "secret": SECRET})
        api.put("/v1/state", {"state": "IDLE"})
        eventually(lambda: cursor(api) == 4)

    assert ["1 BOOTING", "2 IDLE", "3 ACTIVE", "4 IDLE"] == handled(printed)


@pytest.mark.parametrize("name", ["aiohttp_receiver.py", "flask_receiver.py"])
def test_a_receiver_refuses_what_is_signed_by_somebody_else(start, tmp_path, name):
    """With 401, which the sidecar shows."""
    api = start(webhooks={"retry": ["100ms"] * 50, "probe_interval": "100ms"}).api
    port = free_port()
    api.put("/v1/subscribers/console", {"url": f"http://127.0.0.1:{port}/hook"})
    with receiver(name, tmp_path, port) as printed:
        eventually(lambda: api.get("/v1/subscribers/console").json["last_http_status"] == 401)

    assert [] == handled(printed)


def test_openssl_is_enough_to_verify(start, hook):
    """The shell script says yes to a delivery as it came, also with two signatures, and no to a changed one."""
    api = start().api
    api.put("/v1/subscribers/console", {"url": hook.url, "secret": SECRET})
    api.post("/v1/subscribers/console/rotate")
    api.put("/v1/state", {"state": "IDLE"})
    got = hook.wait_for_revision(2)
    headers = [got.headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature")]

    def verify(body, *values):
        environment = os.environ | {"HOOK_SECRET": SECRET}
        return subprocess.run([EXAMPLES / "verify.sh", *values], input=body, env=environment, capture_output=True).returncode

    assert 0 == verify(got.body, *headers)
    assert 1 == verify(got.body + b" ", *headers)
    assert 1 == verify(got.body, headers[0], str(int(time.time()) + 9), headers[2])


def test_the_document_shows_what_the_script_does():
    """Its lines are those of the script."""
    (shown,) = re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL)

    assert shown in (EXAMPLES / "verify.sh").read_text()


def test_the_registration_works_as_shown(start, hook):
    """With the address of the receiver put in, the answer has what the document says."""
    sidecar = start()
    (command,) = re.findall(r"^\$ (curl .*)$", DOCUMENT, re.MULTILINE)
    command = command.replace("localhost:8470", sidecar.api.address).replace("http://127.0.0.1:9000/hook", hook.url)
    answer = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout

    assert answer.startswith('{"id":"console","url":"' + hook.url)
    assert '"secret":"whsec_' in answer
    assert hook.wait_for(1)
