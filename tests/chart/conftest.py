"""The example of a parent chart, with this chart in it."""

import shutil

import pytest
from helms import NEWEST, ROOT, helm


@pytest.fixture(scope="session")
def parent(tmp_path_factory):
    """A copy of the example whose dependency is in place, as `helm dependency update` puts it there."""
    folder = tmp_path_factory.mktemp("charts")
    shutil.copytree(ROOT / "helm" / "fsm-sidecar", folder / "helm" / "fsm-sidecar")
    shutil.copytree(ROOT / "examples" / "helm", folder / "examples" / "helm")
    chart = folder / "examples" / "helm" / "my-agent"
    said = helm(NEWEST, "dependency", "update", chart)
    assert 0 == said.returncode, said.stderr
    return chart
