"""A pod's life, with the real sidecar and the demo's agent as two processes: who starts and stops first, and what gets in."""

import contextlib
import os
import signal
import subprocess

import pytest
import yaml
from helms import CHART, only, rendered
from pods import pod
from sidecar_process import Client, eventually, free_port, running

PATIENCE_SECONDS = 20


class Pod:
    """The two containers of the demo, on ports and a journal of the test's own."""

    def __init__(self, folder):
        self._folder, self._api, self._ops = folder, f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        objects = rendered("--set", "demo.enabled=true")
        self._config = yaml.safe_load(only("ConfigMap", objects, "-config")["data"]["sidecar.yaml"])
        (self._agent,) = [each for each in pod(objects)["spec"]["containers"] if each["name"] == "agent"]
        self._startup = pod(objects)["spec"]["initContainers"][0]["startupProbe"]["httpGet"]["path"]

    @property
    def state(self):
        """What the API says, after whatever happened."""
        return Client(self._api).get("/v1/state").json["snapshot"]

    def sidecar(self):
        """Its container."""
        path = self._folder / "sidecar.yaml"
        own = {
            "journal": {"path": str(self._folder / "journal.db")},
            "api": {"listen": self._api},
            "ops": {"listen": self._ops},
        }
        path.write_text(yaml.safe_dump(self._config | own))
        return running(path)

    def wait_until_started(self):
        """As the kubelet asks, before it starts the agent of a native sidecar."""
        eventually(self._has_started)

    def _has_started(self):
        with contextlib.suppress(ConnectionRefusedError):
            return Client(self._ops).get(self._startup).status == 200

    @contextlib.contextmanager
    def agent(self):
        """Its container."""
        environment = {"PATH": os.environ["PATH"], self._agent["env"][0]["name"]: f"http://{self._api}"}
        with subprocess.Popen([*self._agent["command"], *self._agent["args"]], env=environment) as process:
            try:
                yield process
            finally:
                process.kill()

    def wait_for_work(self):
        """Until the agent has written."""
        eventually(lambda: self.state["source_module"] == "planner")


@pytest.fixture
def both(tmp_path):
    """A pod whose containers do not run yet."""
    return Pod(tmp_path)


def last_state(both):
    """As a later pod finds it on the volume."""
    with both.sidecar():
        both.wait_until_started()
        return both.state["state"]


def test_a_native_sidecar_gets_the_last_write(both):
    """It starts before the agent and stops after it: what the agent says at its end is in the journal."""
    with both.sidecar() as sidecar:
        both.wait_until_started()
        with both.agent() as agent:
            both.wait_for_work()
            agent.terminate()
            assert 0 == agent.wait(PATIENCE_SECONDS)
        assert 0 == sidecar.stop()

    assert "SHUTDOWN" == last_state(both)


def test_a_classic_sidecar_gets_the_last_write(both):
    """Both are told to stop in the same moment; the sidecar takes writes for a while yet."""
    with both.sidecar() as sidecar:
        both.wait_until_started()
        with both.agent() as agent:
            both.wait_for_work()
            sidecar.send(signal.SIGTERM)
            agent.terminate()
            assert 0 == agent.wait(PATIENCE_SECONDS)
            assert 0 == sidecar.exit_code()

    assert "SHUTDOWN" == last_state(both)


def test_an_agent_that_starts_before_its_classic_sidecar_gets_there(both):
    """Its first writes are lost; it goes on, and nobody has to restart it."""
    with both.agent() as agent, both.sidecar():
        both.wait_until_started()
        both.wait_for_work()

        assert agent.poll() is None


def test_a_sidecar_that_crashes_comes_back_beside_the_same_agent(both):
    """With the versions it had; the agent goes on."""
    with both.agent() as agent:
        with both.sidecar() as sidecar:
            both.wait_until_started()
            both.wait_for_work()
            before = both.state["version"]
            sidecar.kill()
        with both.sidecar():
            both.wait_until_started()
            assert before <= both.state["version"]
            eventually(lambda: both.state["version"] > before)

        assert agent.poll() is None


def test_the_demo_never_waits_longer_than_the_pod_has(both):
    """Every wait of the agent ends with its SIGTERM: none of its `sleep`s is in the foreground."""
    script = (CHART / "files" / "demo-agent.sh").read_text()

    assert script.count("sleep") == script.count("& wait $!")
