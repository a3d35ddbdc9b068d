"""The image, built and run as a cluster would: without root, capabilities, a writable root, or more than 128 MiB."""

import json
import time

import pytest
from engine import IMAGE, LIMITS, NAME, ROOT, USER
from sidecar_process import free_port, receiving
from test_dockerfile import PROJECT, locked

MOST_ADDED_BYTES = 50_000_000
"""What the image may add to its base."""

VERSION = PROJECT["project"]["version"]
VOLUME = "journal"


@pytest.fixture
def volume(engine):
    """A new named volume, of which the image says whose it is."""
    yield VOLUME
    engine.podman("volume", "rm", "--force", VOLUME)


@pytest.fixture
def hook():
    """A receiver on the loopback of the network that the container shares, as containers of a pod do."""
    with receiving() as hook:
        yield hook


@pytest.fixture
def config(tmp_path, hook):
    """A config file with free ports and a subscriber."""
    path = tmp_path / "sidecar.yaml"
    sections = {
        "journal": {"path": "/var/lib/fsm-sidecar/journal.db"},
        "api": {"listen": f"127.0.0.1:{free_port()}"},
        "ops": {"listen": f"127.0.0.1:{free_port()}"},
        "subscribers": [{"id": "console", "url": hook.url}],
    }
    path.write_text(json.dumps(sections))  # JSON is YAML
    return path


def place(container):
    answer = container.api.get("/v1/state").json
    return answer["epoch"], answer["snapshot"]["version"], answer["snapshot"]["state"]


# --- what is in it ---


def test_it_is_small(engine, measured):
    """Little comes on top of the base."""
    base, whole = engine.size(NAME), engine.size(IMAGE)
    sizes = engine.python(
        "import os\n"
        "for place in ('lib', 'bytecode'):\n"
        "    walked = os.walk(f'/opt/fsm-sidecar/{place}')\n"
        "    print(sum(os.lstat(f'{folder}/{name}').st_size for folder, _, names in walked for name in names))"
    )
    packages, bytecode = map(int, sizes.split())
    measured(
        f"size: {whole / 1e6:.1f} MB = base {base / 1e6:.1f} + packages {packages / 1e6:.1f} + bytecode {bytecode / 1e6:.1f}"
    )

    assert whole - base < MOST_ADDED_BYTES


def test_it_holds_what_is_locked_and_nothing_else(engine):
    """No installer beside the sidecar either."""
    found = engine.python(
        "import importlib.metadata, json, sys\n"
        "found = importlib.metadata.distributions(path=sys.path[-1:])\n"
        "print(json.dumps({each.name.lower().replace('_', '-'): each.version for each in found}))"
    )
    installed = json.loads(found)

    assert VERSION == installed.pop("fsm-sidecar")
    assert installed.items() <= locked("requirements.lock").items()
    assert {"aiohttp", "msgspec", "uvloop"} <= installed.keys()


def test_it_holds_the_whole_package(engine):
    """Also the files that are not Python; nothing that lay about."""
    found = engine.python(
        "import os, sidecar\n"
        "root = os.path.dirname(sidecar.__file__)\n"
        "print(*(os.path.relpath(f'{folder}/{name}', root) for folder, _, names in os.walk(root) for name in names))"
    )
    ours = [path for path in (ROOT / "sidecar").rglob("*") if path.is_file() and path.suffix != ".pyc"]

    assert {str(path.relative_to(ROOT / "sidecar")) for path in ours} == set(found.split())


def test_it_says_what_it_is(engine):
    """The label and the command agree on the version."""
    labels = engine.inspect(IMAGE)["Config"]["Labels"]

    assert VERSION == labels["org.opencontainers.image.version"]
    assert f"fsm-sidecar {VERSION}\n" == engine.podman("run", "--rm", "--network=none", *LIMITS, IMAGE, "--version").stdout


# --- how it runs ---


def test_it_runs_locked_down(engine, volume):
    """The first process is the sidecar's own, without root and capabilities; only the journal's volume can be written."""
    with engine.container(volume=volume) as container:
        assert container.ready
        status = container.status
        writable = container.python(
            "import os\n"
            "apart = ('/proc', '/sys', '/dev')\n"
            "walked = (folder for folder, below, _ in os.walk('/') if not folder.startswith(apart))\n"
            "print(*(folder for folder in walked if os.access(folder, os.W_OK)))"
        )

        assert ["1"] == status["NSpid"][1:]
        assert [str(USER)] * 4 == status["Uid"] == status["Gid"]
        assert (["0000000000000000"], ["0000000000000000"], ["1"]) == (status["CapEff"], status["CapBnd"], status["NoNewPrivs"])
        assert ["/var/lib/fsm-sidecar"] == writable.split()


def test_it_starts_on_nothing_but_a_volume(engine, volume, measured):
    """On the config in the image. Docker finds it healthy, and it stops at SIGTERM, in order."""
    with engine.container(volume=volume) as container:
        assert "/var/lib/fsm-sidecar/journal.db" == container.ready["journal"]
        assert container.healthy()
        measured(f"start: ready {container.start_seconds:.2f} s after the process began")
        began = time.monotonic()
        code = container.stop()
        measured(f"stop: {time.monotonic() - began:.1f} s, of which 2 s are drain_delay")

        assert 0 == code
        assert container.events("stopping")


def test_docker_finds_out_when_it_does_not_answer(engine, volume, tmp_path):
    """Here because its probes are elsewhere."""
    path = tmp_path / "elsewhere.yaml"
    path.write_text("ops: {listen: '127.0.0.1:9999'}")
    with engine.container(volume=volume, config=path) as container:
        assert container.ready
        assert not container.healthy()


def test_a_mounted_config_need_not_name_the_volume(engine, volume, tmp_path):
    """The working directory is where it is mounted."""
    path = tmp_path / "short.yaml"
    path.write_text("fsm: {name: robot}")
    with engine.container(volume=volume, config=path) as container:
        assert "/var/lib/fsm-sidecar/journal.db" == container.ready["journal"]


def test_a_forgotten_volume_is_told(engine):
    """It does not start, and says which folder it could not write to."""
    with engine.container() as container:
        assert 74 == container.ended()
        assert "/var/lib/fsm-sidecar" in container.log
        assert "must exist and be writable" in container.log


def test_a_config_is_checked_by_the_image(engine, tmp_path):
    """A good one is printed; a bad one ends with 64 and its problem."""
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("fsm: {name: robot}")
    bad.write_text("fsm: {nam: robot}")

    def checked(path):
        mount = ("--volume", f"{path}:/etc/fsm-sidecar/sidecar.yaml:ro")
        command = ("check-config", "/etc/fsm-sidecar/sidecar.yaml")
        return engine.podman("run", "--rm", "--network=none", *LIMITS, *mount, IMAGE, *command, check=False)

    assert "name: robot" in checked(good).stdout
    assert 64 == checked(bad).returncode
    assert "fsm.nam" in checked(bad).stderr


def test_a_life_in_a_container(engine, volume, config, hook, measured):
    """It becomes ready, takes writes, delivers them, shows its metrics, stops at SIGTERM, and goes on where it was."""
    with engine.container(volume=volume, config=config, network="host") as container:
        api, ops = container.api, container.ops
        assert 200 == ops.get("/readyz").status
        for number in range(300):
            written = api.put("/v1/state", {"state": "ACTIVE", "context_data": {"number": number, "filling": "x" * 1000}})
            assert 200 == written.status
        hook.wait_for_revision(written.json["revision"])
        metrics = ops.get("/metrics").body.decode()
        measured(f"memory: {int(container.status['VmHWM'][0]) / 1024:.1f} MiB at most, after 300 writes and their deliveries")
        before = place(container)

        assert f"fsm_store_current_version {before[1]}.0\n" in metrics
        assert api.get("/v1/journal/backup").body.startswith(b"SQLite format 3")  # without any other place to write
        assert 0 == container.stop()

    with engine.container(volume=volume, config=config, network="host") as container:
        assert before == place(container)
        after = container.api.put("/v1/state", {"state": "IDLE"})
        hook.wait_for_revision(after.json["revision"])
        assert 0 == container.stop()


def test_a_start_compiles_nothing(engine, volume, config, hook):
    """Nor does a write, a delivery or a scrape: all the bytecode is there, which nothing could keep."""
    with engine.container("--env=PYTHONVERBOSE=1", volume=volume, config=config, network="host") as container:
        written = container.api.put("/v1/state", {"state": "IDLE"})
        hook.wait_for_revision(written.json["revision"])
        assert 200 == container.ops.get("/metrics").status
        assert 0 == container.stop()
        sources = [
            line for line in container.log.splitlines() if line.startswith("# code object from ") and line.endswith(".py")
        ]

        assert "matches" in container.log
        assert [] == sources
