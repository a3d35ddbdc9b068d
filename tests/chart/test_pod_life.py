"""A pod's life: the demo's agent and the real sidecar in the network namespace of a pod, the kubelet in that of its node.

Who starts and stops first, what gets in, and who can reach what.
"""

import os
import signal

import pytest
import yaml
from helms import CHART, only, rendered
from networks import missing, node_and_pod
from pods import pod
from sidecar_process import eventually, running

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"needs {', '.join(missing())}, and may make network namespaces")

PATIENCE_SECONDS = 20


class Pod:
    """The two containers of the demo, as the chart has them but for the journal's place."""

    def __init__(self, folder, node, network):
        self._folder, self.node, self.network = folder, node, network
        objects = rendered("--set", "demo.enabled=true")
        self._config = yaml.safe_load(only("ConfigMap", objects, "-config")["data"]["sidecar.yaml"])
        (self._agent,) = [each for each in pod(objects)["spec"]["containers"] if each["name"] == "agent"]
        self._probe = pod(objects)["spec"]["initContainers"][0]["startupProbe"]["httpGet"]

    @property
    def state(self):
        """What the API says, after whatever happened."""
        return self.network.ask("http://127.0.0.1:8470/v1/state").json["snapshot"]

    def sidecar(self):
        """Its container."""
        path = self._folder / "sidecar.yaml"
        path.write_text(yaml.safe_dump(self._config | {"journal": {"path": str(self._folder / "journal.db")}}))
        return running(path, before=self.network.enter)

    def wait_until_started(self):
        """As the kubelet asks, from the node, before it starts the agent of a native sidecar."""
        eventually(lambda: self.node.ask(f"http://{self.network.address}:8471{self._probe['path']}").status == 200)

    def agent(self):
        """Its container."""
        given = self._agent["env"][0]
        environment = {"PATH": os.environ["PATH"], given["name"]: given["value"]}
        return self.network.running([*self._agent["command"], *self._agent["args"]], env=environment)

    def wait_for_work(self):
        """Until the agent has written."""
        eventually(lambda: self.state["source_module"] == "planner")


@pytest.fixture
def both(tmp_path):
    """A pod whose containers do not run yet."""
    with node_and_pod() as (node, network):
        yield Pod(tmp_path, node, network)


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


def test_the_node_reaches_the_probes_and_not_the_state(both):
    """The kubelet and Prometheus come by the pod's address; there, nobody can read or write what the agent is."""
    with both.sidecar():
        both.wait_until_started()
        pod = f"http://{both.network.address}"

        assert 200 == both.node.ask(f"{pod}:8471/metrics").status
        assert 404 == both.node.ask(f"{pod}:8471/v1/state").status
        assert 0 == both.node.ask(f"{pod}:8470/v1/state").status


def test_the_demo_never_waits_longer_than_the_pod_has(both):
    """Every wait of the agent ends with its SIGTERM: none of its `sleep`s is in the foreground."""
    script = (CHART / "files" / "demo-agent.sh").read_text()

    assert script.count("sleep") == script.count("& wait $!")
