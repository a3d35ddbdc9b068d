"""The pod: the sidecar starts first and stops last, needs no rights, and leaves the agent alone."""

import re

import pytest
from helms import CHART, ROOT, only, rendered, values
from matrix import flags
from pods import pod, restricted, sidecar

from sidecar.config import Config

DEMO = ("--set", "demo.enabled=true")
CLASSIC = ("--values", CHART / "ci" / "classic.yaml")


# --- native or classic ---


@pytest.mark.parametrize(
    ("kube", "native", "place"),
    [
        ("1.28.9", "auto", "containers"),
        ("1.29.0", "auto", "initContainers"),
        ("1.29.3-gke.100", "auto", "initContainers"),
        ("1.37.0", "auto", "initContainers"),
        ("1.28.9", "true", "initContainers"),
        ("1.37.0", "false", "containers"),
    ],
)
def test_a_sidecar_is_native_where_kubernetes_has_that(kube, native, place):
    """From 1.29 on, unless the values say otherwise; the agent is a container either way."""
    objects = rendered(*DEMO, "--set", f"sidecar.native={native}", kube=kube)
    container, there = sidecar(objects)

    assert place == there
    assert ("Always" if place == "initContainers" else None) == container.get("restartPolicy")
    assert "agent" in [each["name"] for each in pod(objects)["spec"]["containers"]]


def test_the_same_templates_serve_both_kinds(parent):
    """A parent chart names both, and only one of them gives a container."""
    for native, place in (("true", "initContainers"), ("false", "containers")):
        _, there = sidecar(rendered("--set", f"fsm-sidecar.sidecar.native={native}", chart=parent))
        assert place == there


# --- probes ---


def test_the_start_waits_for_the_sidecar_and_readiness_does_not():
    """A probe of readiness counts for the whole pod: there is none until it is asked for."""
    container, _ = sidecar(rendered(*DEMO))
    paths = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}

    assert {"startupProbe": "/startupz", "livenessProbe": "/livez"} == paths
    assert "/readyz" == sidecar(rendered(*CLASSIC))[0]["readinessProbe"]["httpGet"]["path"]


def test_the_probes_ask_where_the_sidecar_listens(tmp_path):
    """Port and name go with the config; so does what the agent is told."""
    objects = rendered(
        *DEMO, *values(tmp_path, config={"ops": {"listen": "0.0.0.0:9471"}, "api": {"listen": "127.0.0.1:9470"}})
    )
    container, _ = sidecar(objects)
    (port,) = container["ports"]
    agent = pod(objects)["spec"]["containers"][0]

    assert {port["name"]} == {container[name]["httpGet"]["port"] for name in container if name.endswith("Probe")}
    assert 9471 == port["containerPort"] == only("Service", objects)["spec"]["ports"][0]["port"]
    assert [{"name": "FSM_SIDECAR_URL", "value": "http://127.0.0.1:9470"}] == agent["env"]


# --- rights ---


@pytest.mark.parametrize("case", ["demo", "classic", "silent"])
def test_the_pod_needs_no_rights(case):
    """Pod Security "restricted" takes it and the test's pod, and neither talks to Kubernetes."""
    objects = rendered(*flags(case))
    for spec in (pod(objects)["spec"], only("Pod", objects)["spec"]):
        assert [] == list(restricted(spec))
        assert spec["automountServiceAccountToken"] is False


def test_a_parent_chart_needs_no_rights(parent):
    """As the example shows it."""
    assert [] == list(restricted(pod(rendered(chart=parent))["spec"]))


@pytest.mark.parametrize("case", ["demo", "classic"])
def test_only_the_journal_is_written_to(case):
    """By the image's user, within bounds of memory."""
    container, _ = sidecar(rendered(*flags(case)))
    context = container["securityContext"]

    assert ["fsm-journal"] == [mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}" in (ROOT / "Dockerfile").read_text()
    assert context["readOnlyRootFilesystem"] is True
    assert {"requests", "limits"} == set(container["resources"])


# --- volumes ---


def test_secrets_are_files_that_only_the_group_reads():
    """The sidecar refuses others; and whole folders, because a file mounted by subPath is never renewed."""
    objects = rendered(*flags("demo"))
    spec, (container, _) = pod(objects)["spec"], sidecar(objects)
    secrets = {volume["name"]: volume["secret"] for volume in spec["volumes"] if "secret" in volume}

    assert {"console-webhook", "audit.webhook"} == {secret["secretName"] for secret in secrets.values()}
    assert {0o440} == {secret["defaultMode"] for secret in secrets.values()}
    assert 65532 == spec["securityContext"]["fsGroup"]
    assert [] == [mount for mount in container["volumeMounts"] if "subPath" in mount]
    assert {"env", "args"} & set(container) == {"args"}
    assert not re.search("secret|token", " ".join(container["args"]))


@pytest.mark.parametrize("case", ["demo", "classic", "silent", "alone"])
def test_what_is_mounted_is_there(case):
    """Every mount has its volume or its claim, and every volume of the sidecar a mount."""
    objects = rendered(*flags(case), *DEMO)
    (workload,) = [each for each in objects if each["kind"] == "StatefulSet"]
    claims = [claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", ())]
    container, _ = sidecar(objects)

    there = sorted([volume["name"] for volume in pod(objects)["spec"]["volumes"]] + claims)
    assert there == sorted(mount["name"] for mount in container["volumeMounts"])


@pytest.mark.parametrize(
    ("case", "volume"),
    [
        ("alone", {"emptyDir": {}}),
        ("classic", {"persistentVolumeClaim": {"claimName": "robot-fsm-sidecar-journal"}}),
        ("silent", {"persistentVolumeClaim": {"claimName": "robot-journal"}}),
    ],
)
def test_the_journal_is_where_the_values_say(case, volume):
    """In an emptyDir, a claim of the release, or one that is there."""
    (found,) = [each for each in pod(rendered(*flags(case), *DEMO))["spec"]["volumes"] if each["name"] == "fsm-journal"]

    assert {"name": "fsm-journal", **volume} == found


def test_a_claim_outlives_its_release():
    """A journal is not thrown away by `helm uninstall`."""
    claim = only("PersistentVolumeClaim", rendered(*flags("classic")))

    assert "keep" == claim["metadata"]["annotations"]["helm.sh/resource-policy"]


# --- leaves the agent alone ---


def config(level):
    return (*DEMO, "--set", f"config.logging.level={level}")


def test_a_change_of_the_config_does_not_restart_the_agent(parent):
    """The pod stays the same to the letter; with `restartOnConfigChange` it does not."""
    before, after = rendered(*config("info")), rendered(*config("debug"))
    restarting = [pod(rendered(*config(level), "--set", "sidecar.restartOnConfigChange=true")) for level in ("info", "debug")]

    assert only("ConfigMap", before, "-config") != only("ConfigMap", after, "-config")
    assert pod(before) == pod(after)
    assert restarting[0] != restarting[1]


def test_no_policy_closes_the_agent_unasked():
    """A NetworkPolicy is there only by its toggle; then it lets in who scrapes, and whom the agent needs."""
    policy = only("NetworkPolicy", rendered(*flags("classic")))["spec"]

    assert [[{"protocol": "TCP", "port": 8471}], [{"protocol": "TCP", "port": 8080}]] == [
        rule["ports"] for rule in policy["ingress"]
    ]
    assert ["Ingress"] == policy["policyTypes"]
    assert "NetworkPolicy" not in {each["kind"] for each in rendered(*flags("demo"))}


def test_the_pod_has_the_time_that_the_sidecar_counts_on():
    """Of the demo; by default both are the sidecar's own default."""
    assert 30 == pod(rendered(*DEMO))["spec"]["terminationGracePeriodSeconds"] == Config().shutdown.grace_period_seconds
    assert 45 == pod(rendered(*flags("demo")))["spec"]["terminationGracePeriodSeconds"]
