"""What the chart gives for each file of values, by both Helms: the objects that are meant, as Kubernetes knows them."""

import tarfile

import jsonschema
import kubernetes_validate
import pytest
import yaml
from helms import CHART, NEWEST, OPERATOR, ROOT, each_helm, helm, rendered
from matrix import CASES, DEPENDENCY, flags

CRDS = ROOT.parent / "shared" / "schemas" / "crds"
GROUP = "monitoring.coreos.com/v1"

each_case = pytest.mark.parametrize("case", CASES)
each_kubernetes = pytest.mark.parametrize("kube", ["1.28", "1.31", "1.37"])


def named(objects):
    return sorted(f"{each['kind']} {each['metadata']['name']}" for each in objects)


def strict(schema):
    """An OpenAPI schema that refuses what it does not name."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    tree = {key: strict(value) for key, value in schema.items()}
    if "properties" in tree and "additionalProperties" not in tree and tree.get("type") == "object":
        tree["additionalProperties"] = bool(tree.get("x-kubernetes-preserve-unknown-fields"))
    return tree


def crd(kind):
    """A strict checker for one of the operator's kinds; None where the files are not there."""
    path = CRDS / f"monitoring.coreos.com_{kind.lower()}s.yaml"
    if not path.exists():
        print(f"not checked, for there is no {path.name} in ../shared/schemas/crds")
        return None
    (version,) = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]["versions"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft7Validator(schema)


# --- which objects ---


def test_every_file_of_values_is_a_case():
    """None lies there untested."""
    assert set(CASES) == {path.stem for path in (CHART / "ci").glob("*.yaml")}


@each_helm
@each_case
def test_helm_has_nothing_to_say_against_the_chart(version, case):
    """`helm lint --strict`."""
    said = helm(version, "lint", "--strict", CHART, "--values", CHART / "ci" / f"{case}.yaml")

    assert 0 == said.returncode, said.stdout


@each_helm
@each_case
def test_the_objects_are_those_that_are_meant(version, case):
    """Where the operator is, and where it is not; no others."""
    always, watched = CASES[case]

    assert sorted([*always, *watched]) == named(rendered(*flags(case), version=version))
    assert sorted(always) == named(rendered("--values", CHART / "ci" / f"{case}.yaml", version=version))


@each_case
def test_both_helms_give_the_same(case):
    """Whichever is used."""
    one, other = (rendered(*flags(case), version=version) for version in ("3.17.3", NEWEST))

    assert trimmed(one) == trimmed(other)


def trimmed(tree):
    """Without the empty lines at the end of a text, in which they differ."""
    if isinstance(tree, dict):
        return {key: trimmed(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [trimmed(each) for each in tree]
    return tree.rstrip("\n") if isinstance(tree, str) else tree


@each_helm
def test_the_package_has_what_is_installed(version, tmp_path):
    """The chart, its rules and dashboards; not the values it is tested with."""
    assert 0 == helm(version, "package", CHART, "--destination", tmp_path).returncode
    (archive,) = tmp_path.glob("fsm-sidecar-*.tgz")
    with tarfile.open(archive) as packed:
        names = {name.removeprefix("fsm-sidecar/") for name in packed.getnames()}
    there = {str(path.relative_to(CHART)) for path in CHART.rglob("*") if path.is_file()}

    assert {name for name in there if not name.startswith("ci/")} - {".helmignore"} == names - {".helmignore"}


# --- as a part of another chart ---


@each_helm
def test_a_parent_chart_has_the_sidecar_in_its_pod(version, parent):
    """And its config; nothing that watches, which is installed once."""
    assert 0 == helm(version, "lint", "--strict", parent).returncode
    assert DEPENDENCY == named(rendered(*OPERATOR, chart=parent, version=version))


def test_a_parent_chart_can_watch_its_own_pods(parent):
    """Where nobody has installed the chart for all."""
    objects = named(rendered(*OPERATOR, "--set", "fsm-sidecar.monitoring.enabled=true", chart=parent))

    assert {"PodMonitor robot-fsm-sidecar", "PrometheusRule robot-fsm-sidecar"} <= set(objects)


def test_a_parent_chart_without_it_has_nothing_of_it(parent):
    """`fsm-sidecar.enabled: false`."""
    (deployment,) = rendered("--set", "fsm-sidecar.enabled=false", chart=parent)

    assert "fsm" not in yaml.safe_dump(deployment)


# --- as Kubernetes knows them ---


@each_kubernetes
@each_case
def test_kubernetes_knows_every_field(kube, case):
    """Each object of its own kinds, strictly, at the version it is rendered for."""
    own = [each for each in rendered(*flags(case), kube=f"{kube}.0") if each["apiVersion"] != GROUP]
    for each in own:
        kubernetes_validate.validate(each, kube, strict=True)

    assert own


@each_kubernetes
def test_kubernetes_knows_every_field_of_a_parent_chart(kube, parent):
    """With what the templates put into its pod."""
    for each in rendered(chart=parent, kube=f"{kube}.0"):
        kubernetes_validate.validate(each, kube, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_found():
    """The check above can fail."""
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "date": {}}

    with pytest.raises(kubernetes_validate.ValidationError, match="date"):
        kubernetes_validate.validate(config, "1.31", strict=True)


@each_case
def test_the_operator_knows_every_field(case):
    """Each object of its kinds, against its published schemas, where these lie beside the repository."""
    for each in rendered(*flags(case)):
        if each["apiVersion"] == GROUP and (checker := crd(each["kind"])):
            checker.validate(each)
            each["spec"]["unheard-of"] = True
            assert not checker.is_valid(each)  # the check can fail


@each_case
def test_every_object_says_whose_it_is(case):
    """By the recommended labels, and in which namespace."""
    for each in rendered(*flags(case)):
        labels = each["metadata"]["labels"]
        assert ("robot", "Helm") == (labels["app.kubernetes.io/instance"], labels["app.kubernetes.io/managed-by"])
        assert each["metadata"]["namespace"] in ("agents", "monitoring")


def test_the_chart_is_of_the_version_of_the_project():
    """Both of its versions: the image's tag comes from there."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (ROOT / "pyproject.toml").read_text()

    assert f'version = "{chart["version"]}"' in project
    assert chart["appVersion"] == chart["version"]
