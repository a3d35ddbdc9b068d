"""What the image is built from. `make image-test` proves that it can be built and runs, with tools that not everybody has."""

import importlib.metadata
import itertools
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sidecar import config

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = {
    "requirements.lock": PROJECT["project"]["dependencies"],
    "requirements-build.lock": PROJECT["build-system"]["requires"],
}


def lines(text):
    """Without comments, and with those that go on in the next line joined."""
    text = re.sub(r"^\s*#.*\n?", "", text, flags=re.M)
    return [" ".join(line.split()) for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip()]


def stages():
    """The instructions of each stage as (word, rest)."""
    instructions = [tuple(line.split(" ", 1)) for line in lines((ROOT / "Dockerfile").read_text())]
    starts = [n for n, (word, _) in enumerate(instructions) if word == "FROM"] + [None]
    return [instructions[start:end] for start, end in itertools.pairwise(starts)]


*_, IMAGE = stages()


def said(word):
    """The only instruction of this word in the stage that becomes the image."""
    (rest,) = [rest for each, rest in IMAGE if each == word]
    return rest


def locked(name):
    """Project → version in a lock file."""
    pins = [line.split(" ")[0].split("==") for line in lines((ROOT / name).read_text())]
    return {canonicalize_name(project): version for project, version in pins}


# --- the Dockerfile ---


def test_hadolint_finds_nothing():
    """Not even a matter of style."""
    found = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--failure-threshold", "style", ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ("", "", 0) == (found.stdout, found.stderr, found.returncode)


def test_the_user_is_a_number():
    """Of a group that is one too: Kubernetes refuses a name under `runAsNonRoot`, as it cannot see that it is not root."""
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", said("USER"))


@pytest.mark.parametrize("word", ["ENTRYPOINT", "CMD", "HEALTHCHECK"])
def test_no_shell_stands_between(word):
    """A signal reaches the sidecar itself, and the image works where there is no shell."""
    command = json.loads(said(word)[said(word).index("[") :])

    assert not {"sh", "bash", "env"} & {PurePosixPath(each).name for each in command[:1]}
    assert all(isinstance(each, str) for each in command)


def test_nothing_is_run_in_the_image_itself():
    """It is only copied together, so that a base without shell will do, and another platform's image needs no emulator."""
    assert "RUN" not in {word for word, _ in IMAGE}


def test_both_stages_stand_on_one_base():
    """Which is an argument: the virtual environment that is copied belongs to the Python of the base."""
    assert {"${BASE}"} == {stage[0][1].split(" ")[0] for stage in stages()}


def test_it_runs_on_its_own_config_until_another_is_mounted():
    """The entry point is the project's; the file it reads is in the image, and puts the journal where the user may write."""
    arguments = json.loads(said("CMD"))
    copies = {rest.split(" ")[-1]: rest for word, rest in IMAGE if word == "COPY"}
    journal = PurePosixPath(config.load(str(ROOT / "config/container.yaml")).journal.path)

    assert [*PROJECT["project"]["scripts"]] == json.loads(said("ENTRYPOINT"))
    assert ["run", "--config"] == arguments[:2]
    assert "config/container.yaml" == copies[arguments[2]].split(" ")[0]
    assert f"--chown={said('USER')}" in copies[str(journal.parent)]
    assert str(journal.parent) == said("WORKDIR")  # also for a mounted file that leaves the path out


def test_docker_asks_where_the_probes_are():
    """At the default port, which is the one the image names."""
    port = config.load(str(ROOT / "config/container.yaml")).ops.listen.port

    assert str(port) == said("EXPOSE")
    assert f", {port}, " in said("HEALTHCHECK")


def test_a_forgotten_volume_is_not_made_up():
    """No VOLUME: an unnamed one would take the journal, and go with the container."""
    assert "VOLUME" not in {word for word, _ in IMAGE}


# --- what goes to the build ---


def test_nothing_else_goes_to_the_build():
    """Everything is ignored but what is copied: no .git, no tests, no journal, no secret."""
    everything, *rules = lines((ROOT / ".dockerignore").read_text())
    sources = [rest.split(" ")[:-1] for stage in stages() for word, rest in stage if word == "COPY" and "--from" not in rest]

    assert "*" == everything
    assert {source for names in sources for source in names} == {rule[1:] for rule in rules if rule.startswith("!")}


def test_what_lies_about_in_the_package_stays_behind():
    """Journals, secrets of an environment, and bytecode: what is ignored again comes after what is let in."""
    rules = lines((ROOT / ".dockerignore").read_text())

    assert {"**/*.db*", "**/.env*", "**/__pycache__"} <= set(rules[rules.index("!sidecar") :])


# --- the lock files ---


@pytest.mark.parametrize("name", LOCKS)
def test_what_is_installed_is_known_by_its_hashes(name):
    """Every line is one version and its hashes: no address, no option, nothing that another registry could answer."""
    for line in lines((ROOT / name).read_text()):
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*( ; [^@]+?)?( --hash=sha256:[0-9a-f]{64})+", line), line


@pytest.mark.parametrize("name", LOCKS)
def test_the_locked_versions_are_those_the_project_asks_for(name):
    """Each dependency is there, in a version within its bounds. If not: `make lock`."""
    for dependency in map(Requirement, LOCKS[name]):
        version = locked(name).get(canonicalize_name(dependency.name))
        assert version, f"{dependency.name} is missing"
        assert dependency.specifier.contains(version), dependency


def test_the_lock_has_the_dependencies_of_dependencies():
    """All that is needed on this machine, as its packages say themselves."""
    waiting, needed = [*map(Requirement, LOCKS["requirements.lock"])], set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in needed and (not requirement.marker or requirement.marker.evaluate({"extra": ""})):
            needed.add(name)
            waiting += map(Requirement, importlib.metadata.requires(name) or [])

    assert needed <= set(locked("requirements.lock"))
