"""`make chart-policies`: checkov on what the chart gives. Which of its rules are not followed, and why: helm/checkov.yaml."""

import subprocess

import pytest
import yaml
from helms import ROOT, rendered
from matrix import CASES, flags

CHECKOV = ROOT / "build" / "checkov" / "bin" / "checkov"
RULES = ROOT / "helm" / "checkov.yaml"


def checkov(folder, *flags):
    command = [CHECKOV, "--config-file", RULES, "--directory", folder, *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("case", CASES)
def test_the_objects_follow_the_rules(case, tmp_path):
    """Of every file of values."""
    (tmp_path / "objects.yaml").write_text(yaml.safe_dump_all(rendered(*flags(case))))
    said = checkov(tmp_path)

    assert 0 == said.returncode, said.stdout


def test_every_exception_is_needed(tmp_path):
    """A rule that nothing breaks is followed, and not on the list."""
    (tmp_path / "objects.yaml").write_text(yaml.safe_dump_all(rendered(*flags("demo"))))
    exceptions = yaml.safe_load(RULES.read_text())["skip-check"]

    assert [] == [rule for rule in exceptions if checkov(tmp_path, "--check", rule, "--skip-check", "NONE").returncode == 0]
