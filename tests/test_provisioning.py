"""What Grafana and Docker are given: the files that are mounted exist, their settings agree, and nobody else gets in."""

import json
import re
from pathlib import Path

import pytest
import yaml

from sidecar import config

ROOT = Path(__file__).parents[1]
GRAFANA = ROOT / "grafana"
PROVISIONING = GRAFANA / "provisioning"
COMPOSE = yaml.safe_load((GRAFANA / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
README = (GRAFANA / "README.md").read_text()


def provisioned(path):
    return yaml.safe_load((PROVISIONING / path).read_text())


def mounts(service):
    """Where in the container → where in the repository, without the named volumes."""
    parts = [volume.split(":") for volume in SERVICES[service]["volumes"]]
    return {part[1]: (GRAFANA / part[0]).resolve() for part in parts if part[0].startswith(".")}


DATASOURCE = provisioned("datasources/prometheus.yaml")["datasources"][0]
PROVIDER = provisioned("dashboards/fsm-sidecar.yaml")["providers"][0]


# --- provisioning ---


def test_the_datasource_is_where_the_environment_says():
    """Without claiming to be the default, of which Grafana bears only one."""
    assert ("prometheus", "$FSM_PROMETHEUS_URL", False) == tuple(DATASOURCE[key] for key in ("type", "url", "isDefault"))


def test_the_alerts_are_one_file():
    """In the folder that is mounted; the other place leads there."""
    (file,) = (PROVISIONING / "alerting").iterdir()

    assert not file.is_symlink()
    assert file == (GRAFANA / "alerting" / file.name).resolve()


def test_the_alerts_and_the_dashboards_belong_together():
    """They lie in one folder, and the alerts ask a datasource that is there."""
    groups = provisioned("alerting/fsm-sidecar-rules.yaml")["groups"]
    asked = {data["datasourceUid"] for group in groups for rule in group["rules"] for data in rule["data"]}
    dashboards = {json.loads(path.read_text())["uid"] for path in (GRAFANA / "dashboards").glob("*.json")}

    assert {PROVIDER["folder"]} == {group["folder"] for group in groups}
    assert {DATASOURCE["uid"], "__expr__"} == asked
    assert {rule["dashboardUid"] for group in groups for rule in group["rules"]} <= dashboards


def test_the_provider_leaves_the_dashboards_as_they_are():
    """Read from one folder; nobody changes them in the browser and loses it at the next start."""
    assert ("file", False, True) == tuple(PROVIDER[key] for key in ("type", "allowUiUpdates", "disableDeletion"))


def test_every_variable_is_set_by_compose_and_told_in_the_readme():
    """Grafana replaces an unset one by nothing."""
    text = "".join(path.read_text() for path in PROVISIONING.rglob("*.yaml"))
    named = set(re.findall(r"\$(FSM_\w+)", text))

    assert {"FSM_PROMETHEUS_URL"} == named
    assert named <= set(SERVICES["grafana"]["environment"])
    assert [] == [name for name in named if f"-e {name}=" not in README]


# --- compose ---


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_mounted_exists(service):
    """And cannot be changed from inside."""
    assert [] == [place for place, path in mounts(service).items() if not path.exists()]
    assert all(volume.endswith(":ro") for volume in SERVICES[service]["volumes"] if volume.startswith("."))


@pytest.mark.parametrize("service", SERVICES)
def test_only_this_machine_gets_in(service):
    """Each port is bound to loopback, and each image is of one version."""
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[service].get("ports", ()))
    assert "build" in SERVICES[service] or re.search(r":v?\d+\.\d+", SERVICES[service]["image"])


def test_the_sidecar_is_the_image_of_this_repository():
    """Its configuration lies where the image looks for it, and its journal where that says."""
    mounted, volumes = mounts("sidecar"), SERVICES["sidecar"]["volumes"]
    settings = config.load(str(mounted["/etc/fsm-sidecar/sidecar.yaml"]))

    assert (GRAFANA / SERVICES["sidecar"]["build"] / "Dockerfile").is_file()
    assert '"/etc/fsm-sidecar/sidecar.yaml"]' in (GRAFANA.parent / "Dockerfile").read_text()
    assert [str(Path(settings.journal.path).parent)] == [each.split(":")[1] for each in volumes if each.startswith("journal:")]


def test_prometheus_scrapes_the_sidecar_and_loads_the_alerts():
    """At the address and under the job that the alerts know it by; with exemplars."""
    folder = mounts("prometheus")["/etc/prometheus"]
    settings = yaml.safe_load((folder / "prometheus.yml").read_text())
    (job,) = settings["scrape_configs"]
    ops = config.load(str(mounts("sidecar")["/etc/fsm-sidecar/sidecar.yaml"])).ops.listen

    assert [f"sidecar:{ops.port}"] == job["static_configs"][0]["targets"]
    assert "fsm-sidecar" in job["job_name"]
    assert all((folder / file).exists() for file in settings["rule_files"])
    assert "--enable-feature=exemplar-storage" in SERVICES["prometheus"]["command"]


def test_the_sidecar_of_compose_is_reached_by_its_neighbours():
    """Its API listens for the agent beside it and says that it accepts that; its writers are those of the agent."""
    settings = config.load(str(mounts("sidecar")["/etc/fsm-sidecar/sidecar.yaml"]))
    agent = (GRAFANA / "agent.sh").read_text()

    assert (False, "none") == (settings.api.listen.loopback, settings.api.auth)
    assert f"http://sidecar:{settings.api.listen.port}/v1/state" in agent
    assert set(settings.metrics.writers) == set(re.findall(r'source_module\\?": \\?"([\w-]+)', agent))


def test_grafana_of_compose_shows_the_dashboards():
    """From the folder that the provider reads, the fleet first; whoever gets there may only look."""
    environment, there = SERVICES["grafana"]["environment"], mounts("grafana")
    folder = PROVIDER["options"]["path"]
    home = Path(environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])

    assert GRAFANA / "dashboards" == there[folder]
    assert (there[str(home.parent)] / home.name).exists()
    assert "Viewer" == environment["GF_AUTH_ANONYMOUS_ORG_ROLE"]
    assert environment["FSM_PROMETHEUS_URL"] == f"http://prometheus:{SERVICES['prometheus']['ports'][0].split(':')[-1]}"


def test_compose_has_each_alert_once():
    """Prometheus evaluates them there, so that Grafana does not."""
    assert "/etc/grafana/provisioning" not in mounts("grafana")
    assert "/etc/grafana/provisioning/alerting" not in mounts("grafana")


def test_the_readme_leads_somewhere():
    """Its links, and the folders of its table."""
    links = re.findall(r"\]\(([^)#]+)\)", README)
    folders = re.findall(r"^\| `([\w/]+)` \|", README, re.MULTILINE)

    assert [] == [link for link in (*links, *folders) if not link.startswith("http") and not (GRAFANA / link).exists()]
    assert 5 == len(folders)
