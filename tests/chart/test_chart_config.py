"""The sidecar's file, as the chart writes it: what was said under `config` is what the sidecar's own loader gets."""

import msgspec
import pytest
import yaml
from configs import loaded
from helms import CHART, NEWEST, ROOT, each_helm, only, rendered, values
from matrix import CASES, flags

from sidecar import config
from sidecar.config import Config

DEMO = ("--set", "demo.enabled=true")
EXAMPLES = sorted((ROOT / "config").glob("*.yaml"))


def written(*flags, tmp_path, version=NEWEST):
    """What the chart writes for these values, loaded by the sidecar."""
    return loaded(text(rendered(*flags, version=version)), tmp_path)


def text(objects):
    return only("ConfigMap", objects, "-config")["data"]["sidecar.yaml"]


@each_helm
@pytest.mark.parametrize(
    "case", [case for case, (always, _) in CASES.items() if "ConfigMap robot-fsm-sidecar-config" in always]
)
def test_the_sidecar_loads_what_the_chart_writes(version, case, tmp_path):
    """Of every file of values."""
    assert written(*flags(case), version=version, tmp_path=tmp_path)


@each_helm
def test_what_was_said_arrives(version, tmp_path):
    """Numbers as numbers, long texts in one line, `on` and `off` as they were meant."""
    got = written(*flags("demo"), version=version, tmp_path=tmp_path)

    assert ("BOOTING", "ON", "OFF") == got.fsm.states
    assert {"BOOTING": ("ON",), "ON": ("OFF",), "OFF": ("ON",)} == got.fsm.transitions
    assert ("off", 1_000_000, 0.05) == (got.fsm.enforcement, got.writes.idempotency.max_keys, got.health.conflict_ratio)
    assert got.metrics.agent.endswith("would break the line somewhere in it")
    assert "https://console.example.org/hook?from=robot&to=console" == got.subscribers[0].url
    assert [("transition",), ("transition", "update")] == [subscriber.on for subscriber in got.subscribers]


@each_helm
def test_without_a_word_the_sidecar_has_its_defaults(version, tmp_path):
    """But for the place of the journal."""
    defaults = Config()
    journal = msgspec.structs.replace(defaults.journal, path="/var/lib/fsm-sidecar/journal.db")

    assert msgspec.structs.replace(defaults, journal=journal) == written(*DEMO, version=version, tmp_path=tmp_path)


@each_helm
def test_a_parent_chart_says_it_in_its_own_values(version, parent, tmp_path):
    """Below the name of this chart; a null stays one."""
    objects = rendered("--set", "fsm-sidecar.config.fsm.initial=null", chart=parent, version=version)
    got = loaded(text(objects), tmp_path)

    assert (None, ("planner",), ("transition",)) == (got.fsm.initial, got.metrics.writers, got.subscribers[0].on)


@each_helm
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_config_of_the_project_can_be_said_to_the_chart(version, path, tmp_path):
    """Word for word, with every key there is; only what a pod has to have differs."""
    tree = yaml.safe_load(path.read_text())
    tree.setdefault("journal", {})["path"] = "/var/lib/fsm-sidecar/journal.db"
    tree.setdefault("ops", {})["listen"] = "0.0.0.0:8471"
    for subscriber in tree.get("subscribers") or ():
        subscriber.pop("secret_file", None)
    expected = tmp_path / "expected.yaml"
    expected.write_text(yaml.safe_dump(tree, sort_keys=False, width=1000))

    got = written(*DEMO, *values(tmp_path, config=tree), version=version, tmp_path=tmp_path)

    assert config.load(str(expected)) == got


@pytest.mark.parametrize("section", ["fsm", "journal", "api", "ops", "webhooks", "subscribers", "shutdown"])
def test_a_section_may_be_there_and_empty(section, tmp_path):
    """As in the sidecar's own file."""
    assert written(*DEMO, "--set", f"config.{section}=null", tmp_path=tmp_path)


def test_the_file_is_where_the_image_looks_for_it():
    """The ConfigMap's key, the mount and the arguments agree."""
    objects = rendered(*DEMO)
    (container,) = only("StatefulSet", objects)["spec"]["template"]["spec"]["initContainers"]
    (folder,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "fsm-config"]
    (name,) = only("ConfigMap", objects, "-config")["data"]

    assert container["args"] == ["run", "--config", f"{folder}/{name}"]
    assert f"{folder}/{name}" in (ROOT / "Dockerfile").read_text()


def test_the_defaults_of_the_chart_are_what_its_comments_say():
    """Read as Helm reads them, they are the sidecar's."""
    said = yaml.safe_load((CHART / "values.yaml").read_text())["config"]
    defaults = yaml.safe_load(config.effective(Config()))

    for section, keys in said.items():
        for key, value in keys.items():
            assert (section, key) == ("journal", "path") or defaults[section][key] == value
