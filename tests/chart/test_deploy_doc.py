"""docs/deploy.md and the chart's README: what they tell people to write works."""

import re
import shlex

import kubernetes_validate
import pytest
import yaml
from documents import blocks, headings, links
from helms import CHART, NEWEST, ROOT, helm, rendered
from pods import sidecar

PAGE = ROOT / "docs" / "deploy.md"
README = CHART / "README.md"
INSTALLS = re.findall(r"^\$ helm install (\S+) (helm/fsm-sidecar .*)$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", [PAGE, README], ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    """To files that are there, and to headings in them."""
    for path, heading in links(page.read_text()):
        target = (page.parent / path) if path else page
        assert target.exists(), path
        assert not heading or heading in headings(target.read_text()), heading


@pytest.mark.parametrize(("release", "rest"), INSTALLS, ids=[release for release, _ in INSTALLS])
def test_what_is_installed_can_be(release, rest):
    """Every `helm install` of this chart, as it is written."""
    _, *flags = shlex.split(rest)
    flags = [flag for flag in flags if flag != "--create-namespace"]
    said = helm(NEWEST, "template", release, CHART, "--api-versions", "monitoring.coreos.com/v1", *flags)

    assert 0 == said.returncode, said.stderr


def test_only_one_of_them_scrapes():
    """Two monitors would scrape the demo's pod twice."""
    monitors = []
    for release, rest in INSTALLS:
        _, *flags = shlex.split(rest.replace("--create-namespace", ""))
        said = helm(NEWEST, "template", release, CHART, "--api-versions", "monitoring.coreos.com/v1", *flags)
        monitors += re.findall("^kind: (?:Pod|Service)Monitor$", said.stdout, re.MULTILINE)

    assert ["kind: PodMonitor"] == monitors


def test_the_pod_template_puts_the_sidecar_into_a_pod(parent):
    """As it is written, into a chart of one's own; with the values and the dependency beside it."""
    text = PAGE.read_text()
    dependencies, values, template, *_ = blocks(text, "yaml")
    (dependency,) = yaml.safe_load(dependencies)["dependencies"]
    written = parent / "templates" / "written.yaml"
    written.write_text(f"apiVersion: v1\nkind: Pod\n{template}")
    chosen = parent.parent / "values.yaml"
    chosen.write_text(values)
    try:
        objects = rendered("--values", chosen, chart=parent)
    finally:
        written.unlink()
    (pod,) = [each for each in objects if each["kind"] == "Pod"]
    (theirs,) = yaml.safe_load((parent / "Chart.yaml").read_text())["dependencies"]
    kubernetes_validate.validate(pod, "1.31", strict=True)

    assert "fsm-sidecar" == pod["spec"]["initContainers"][0]["name"]
    assert {key: theirs[key] for key in ("name", "version", "condition")} == {
        key: dependency[key] for key in ("name", "version", "condition")
    }


def test_the_pod_that_restores_is_one():
    """Kubernetes knows its fields; its claim is the chart's; its user is the image's."""
    (text,) = [block for block in blocks(PAGE.read_text(), "yaml") if "kind: Pod\n" in block]
    pod = yaml.safe_load(text)
    kubernetes_validate.validate(pod, "1.31", strict=True)
    expected, _ = sidecar(rendered("--set", "demo.enabled=true"))
    claims = [
        each
        for each in rendered("--set", "demo.enabled=true,journal.volume=claim", release="my-agent")
        if "Claim" in each["kind"]
    ]

    assert expected["securityContext"]["runAsUser"] == pod["spec"]["securityContext"]["runAsUser"]
    assert [each["metadata"]["name"] for each in claims] == [
        volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"]
    ]


def test_the_readme_has_every_template_for_a_pod():
    """Those that look at their scope, and no others."""
    text = "".join(path.read_text() for path in CHART.glob("templates/_*.tpl"))
    public = set(re.findall(r'define "(fsm-sidecar\.\w+)" -}}\n{{- include "fsm-sidecar.check" \.', text))

    assert public == set(re.findall(r"^\| `(fsm-sidecar\.\w+)`", README.read_text(), re.MULTILINE))
