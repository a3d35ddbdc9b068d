"""The examples without Helm: they say what the chart says, and what they mount and name is there."""

import configparser
import re
import subprocess

import kubernetes_validate
import pytest
import yaml
from configs import loaded
from helms import NEWEST, ROOT, only, program, rendered
from pods import pod, restricted, sidecar

from sidecar.config import Config

EXAMPLES = ROOT / "examples"
PLAIN = EXAMPLES / "kubernetes/agent.yaml"
OVERLAY = EXAMPLES / "kustomize/overlays/production"


def objects(path):
    """Of a manifest, or of what kustomize makes of a folder."""
    text = path.read_text() if path.is_file() else built(path)
    return list(yaml.safe_load_all(text))


def built(folder):
    said = subprocess.run([program(NEWEST, "kubectl"), "kustomize", folder], capture_output=True, text=True, check=False)
    assert 0 == said.returncode, said.stderr
    return said.stdout


each_cluster = pytest.mark.parametrize("path", [PLAIN, EXAMPLES / "kustomize/base", OVERLAY], ids=lambda path: path.stem)


@each_cluster
def test_the_container_is_that_of_the_chart(path):
    """As it is by default, to the letter; but for the name of the image and further mounts."""
    expected, _ = sidecar(rendered("--set", "demo.enabled=true"))
    found, place = sidecar(objects(path))

    assert "initContainers" == place
    for key in set(expected) | set(found):
        if key not in ("image", "volumeMounts"):
            assert (key, expected.get(key)) == (key, found.get(key))
    assert expected["image"].split(":")[1] == found["image"].split(":")[1]
    assert [mount for mount in expected["volumeMounts"] if mount not in found["volumeMounts"]] == []


@each_cluster
@pytest.mark.parametrize("kube", ["1.31", "1.37"])
def test_kubernetes_knows_every_field(path, kube):
    """And Pod Security "restricted" takes the pod."""
    for each in objects(path):
        if each["kind"] != "PodMonitor":
            kubernetes_validate.validate(each, kube, strict=True)

    assert [] == list(restricted(pod(objects(path))["spec"]))


@each_cluster
def test_what_is_mounted_is_there(path):
    """Volumes, the ConfigMap under its own name, the claim; and the pod's time is the sidecar's."""
    found = objects(path)
    spec = pod(found)["spec"]
    container, _ = sidecar(found)
    names = {each["metadata"]["name"] for each in found}

    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
    for volume in spec["volumes"]:
        assert 1 == len(set(volume) - {"name"})
        assert volume.get("configMap", {}).get("name", "my-agent") in names
        assert volume.get("persistentVolumeClaim", {}).get("claimName", "my-agent") in names
    assert Config().shutdown.grace_period_seconds == spec["terminationGracePeriodSeconds"]


@each_cluster
def test_the_sidecar_loads_the_config(path, tmp_path):
    """With the journal in the volume; a secret's file is where its Secret is mounted."""
    found = objects(path)
    text = only("ConfigMap", found)["data"]["sidecar.yaml"]
    container, _ = sidecar(found)
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    secrets = [each["secret_file"] for each in yaml.safe_load(text).get("subscribers", ())]

    assert loaded(text, tmp_path)
    assert yaml.safe_load(text)["journal"]["path"].rsplit("/", 1)[0] in mounts
    assert [] == [file for file in secrets if file.rsplit("/", 1)[0] not in mounts]


def test_a_change_of_the_config_does_not_restart_the_agent():
    """kustomize would put a hash into the ConfigMap's name."""
    for path in (EXAMPLES / "kustomize/base", OVERLAY):
        assert "fsm-sidecar" == only("ConfigMap", objects(path))["metadata"]["name"]


@pytest.mark.parametrize("path", [EXAMPLES / "kustomize/base", OVERLAY], ids=lambda path: path.stem)
def test_the_monitor_is_that_of_the_chart(path):
    """It selects the pod, and the alerts know its targets by its name."""
    monitor = only("PodMonitor", objects(path))
    expected = only("PodMonitor", rendered("--set", "monitoring.operator=true"))["spec"]

    assert (expected["selector"], expected["podMetricsEndpoints"]) == (
        monitor["spec"]["selector"],
        monitor["spec"]["podMetricsEndpoints"],
    )
    assert expected["selector"]["matchLabels"].items() <= pod(objects(path))["metadata"]["labels"].items()
    assert "fsm-sidecar" in monitor["metadata"]["name"]


# --- compose ---

COMPOSE = yaml.safe_load((EXAMPLES / "compose/compose.yaml").read_text())


def test_the_sidecar_of_compose_is_reached_by_its_agent_alone(tmp_path):
    """Where the config listens; only the port of the probes is published, to this machine."""
    service, agent = COMPOSE["services"]["sidecar"], COMPOSE["services"]["agent"]
    (folder,) = [volume.split(":")[0] for volume in service["volumes"] if volume.endswith("/etc/fsm-sidecar:ro")]
    settings = loaded((EXAMPLES / "compose" / folder / "sidecar.yaml").read_text(), tmp_path)

    assert f"http://sidecar:{settings.api.listen.port}" == agent["environment"]["FSM_SIDECAR_URL"]
    assert [f"127.0.0.1:{settings.ops.listen.port}:{settings.ops.listen.port}"] == service["ports"]
    assert set(service["networks"]) & set(agent["networks"])
    assert f"{settings.shutdown.grace_period_seconds:.0f}s" == service["stop_grace_period"]
    assert "journal:/var/lib/fsm-sidecar" in service["volumes"]
    assert settings.journal.path.startswith("/var/lib/fsm-sidecar/")


def test_the_sidecar_of_compose_has_no_rights():
    """As in a cluster; and the agent waits until it is there."""
    service = COMPOSE["services"]["sidecar"]

    assert (True, ["ALL"], ["no-new-privileges"]) == (service["read_only"], service["cap_drop"], service["security_opt"])
    assert {"sidecar": {"condition": "service_healthy"}} == COMPOSE["services"]["agent"]["depends_on"]
    assert service["healthcheck"]["test"][1:] == yaml.safe_load(
        re.search(r"HEALTHCHECK .*?CMD (\[.*?\])$", (ROOT / "Dockerfile").read_text(), re.DOTALL | re.MULTILINE)[1]
    )


# --- systemd ---


def unit():
    parser = configparser.RawConfigParser(strict=False, delimiters="=", interpolation=None)
    parser.optionxform = str
    parser.read(EXAMPLES / "systemd/fsm-sidecar.service")
    return parser["Service"]


def test_the_unit_gives_the_sidecar_its_time_and_its_folder(tmp_path):
    """And nothing of the host; the config beside it is for this unit."""
    service = unit()
    settings = loaded((EXAMPLES / "systemd/sidecar.yaml").read_text(), tmp_path)

    assert f"{settings.shutdown.grace_period_seconds:.0f}s" == service["TimeoutStopSec"]
    assert settings.journal.path.startswith(f"/var/lib/{service['StateDirectory']}/")
    assert ("yes", "strict", "yes", "") == tuple(
        service[key] for key in ("DynamicUser", "ProtectSystem", "NoNewPrivileges", "CapabilityBoundingSet")
    )


def test_the_unit_does_not_start_again_what_cannot_start():
    """A config that cannot be used (64), a damaged journal (65): the codes of the README."""
    codes = set(unit()["RestartPreventExitStatus"].split())
    told = set(re.findall(r"^\| (\d+) \| the (?:configuration|journal is damaged)", (ROOT / "README.md").read_text(), re.M))

    assert told == codes


def test_the_readme_of_the_examples_leads_somewhere():
    """Its links, and every example is in it."""
    text = (EXAMPLES / "README.md").read_text()
    links = re.findall(r"\]\(([^)#]+)\)", text)

    assert [] == [link for link in links if not (EXAMPLES / link).exists()]
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} == {
        link.split("/")[0] for link in links if link[0] != "."
    }
