"""The command line: what it prints where, and how it exits."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from sidecar_process import written

PROGRAM = [sys.executable, "-m", "sidecar"]
INSTALLED = [str(Path(sys.executable).with_name("fsm-sidecar"))]


def run(*arguments, program=PROGRAM, **options):
    """The exit code, and what went to standard output and to standard error."""
    ended = subprocess.run([*program, *map(str, arguments)], capture_output=True, text=True, timeout=20, **options)
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize("program", [PROGRAM, INSTALLED], ids=["python -m sidecar", "fsm-sidecar"])
def test_it_tells_its_version(program):
    """As a module and as a program: the same one."""
    assert (0, f"fsm-sidecar {version('fsm-sidecar')}\n", "") == run("--version", program=program)


def test_it_explains_itself():
    """Help goes to standard output, and names both commands."""
    code, out, err = run("--help")

    assert (0, "") == (code, err)
    assert "run" in out
    assert "check-config" in out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["stop"],
        ["run", "--port", "1"],
        ["run", "file.yaml"],
        ["run", "--config"],
        ["check-config"],
        ["check-config", "a", "b"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told_with_the_right_one(arguments):
    """Exit 64, nothing on standard output."""
    code, out, err = run(*arguments)

    assert (64, "") == (code, out)
    assert err.startswith("usage: fsm-sidecar")


def test_check_config_prints_what_is_in_force(tmp_path):
    """The whole configuration, defaults included, as YAML that can be checked again and gives the same."""
    code, out, err = run("check-config", written(tmp_path, writes={"max_body": "1MiB"}))
    (tmp_path / "effective.yaml").write_text(out)
    effective = yaml.safe_load(out)

    assert (0, "") == (code, err)
    assert ("1MiB", False) == (effective["writes"]["max_body"], effective["writes"]["require_precondition"])
    assert ("memory", "BOOTING", "0s") == (
        effective["journal"]["backend"],
        effective["fsm"]["initial"],
        effective["shutdown"]["drain_delay"],
    )
    assert (0, out, "") == run("check-config", tmp_path / "effective.yaml")


def test_check_config_starts_nothing(tmp_path):
    """No journal, no lock: it can be run beside a sidecar, and in CI."""
    config = written(tmp_path, journal={"path": str(tmp_path / "journal.db")})

    assert 0 == run("check-config", config, cwd=tmp_path)[0]
    assert [config] == list(tmp_path.iterdir())


WRONG = {
    "not YAML": ("fsm: [", "sidecar.yaml"),
    "no mapping": ("- 1", "sidecar.yaml"),
    "a key twice": ("store: {}\nstore: {}", "store"),
    "a wrong value": (json.dumps({"store": {"max_subscribers": 0}}), "store.max_subscribers"),
    "an open API": (json.dumps({"api": {"listen": "0.0.0.0:8470"}}), "api.listen"),
    "too little grace": (json.dumps({"shutdown": {"drain_delay": "25s"}}), "shutdown.grace_period"),
}


@pytest.mark.parametrize(("text", "named"), WRONG.values(), ids=WRONG)
def test_a_config_that_cannot_be_used_is_told(tmp_path, text, named):
    """Exit 64 and the place; nothing on standard output. (tests/test_process.py: the same when it is run.)"""
    path = tmp_path / "sidecar.yaml"
    path.write_text(text)
    code, out, err = run("check-config", path)

    assert (64, "") == (code, out)
    assert named in err
    assert str(path) in err


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_config_that_cannot_be_read_is_told(tmp_path, name):
    """Exit 64, with its path."""
    code, out, err = run("check-config", tmp_path / name)

    assert (64, "") == (code, out)
    assert str(tmp_path / name) in err


def test_check_config_lists_every_problem(tmp_path):
    """One line each, in the order of the file."""
    code, _, err = run("check-config", written(tmp_path, store={"queue_size": 0, "colour": 1}, fsm={"initial": "ASLEEP"}))
    lines = err.splitlines()

    assert (64, 3) == (code, len(lines))
    assert all(name in err for name in ("store.queue_size", "store.colour", "fsm.initial"))
