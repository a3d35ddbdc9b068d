"""Builds the image and runs it, with buildah, podman and runc, all that they store in one folder that goes away afterwards."""

import contextlib
import datetime
import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import NamedTuple

from sidecar_process import Client, eventually

ROOT = Path(__file__).parents[2]
NAME = "docker.io/library/python:3.12-slim"
IMAGE = "localhost/fsm-sidecar:test"
SUITE = os.environ.get("SUITE", "bookworm")
PULL = bool(os.environ.get("PULL"))
BASE = f"the real {NAME}" if PULL else f"a stand-in for {NAME}: Debian {SUITE} with its own Python"
USER = 65532
PATHS = f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"

LOCKED_DOWN = (
    *("--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt", "no-new-privileges"),
    *("--memory", "128m", "--memory-swap", "128m", "--pids-limit", "64"),
)
LIMITS = (
    "--ulimit",
    "nofile=1024:1024",
    "--ulimit",
    "nproc=4096:4096",
)  # else the runtime raises them, which not everybody may


def missing():
    """The tools that are not here."""
    tools = ["buildah", "podman", "runc", *([] if PULL else ["mmdebstrap"])]
    return [tool for tool in tools if not shutil.which(tool, path=PATHS)]


class Engine:
    """Images, containers and volumes in a folder."""

    def __init__(self, folder):
        self._folder = folder
        driver = os.environ.get("STORAGE_DRIVER", "overlay")
        self._places = ["--root", folder / "storage", "--runroot", folder / "run", "--storage-driver", driver]

    def podman(self, *arguments, check=True, **options):
        """What it printed and how it ended."""
        command = ["podman", *self._places, "--runtime", shutil.which("runc", path=PATHS), *arguments]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
        assert not check or done.returncode == 0, f"{arguments}: {done.stderr}"
        return done

    def inspect(self, thing):
        return json.loads(self.podman("inspect", thing).stdout)[0]

    def get_base(self):
        """The Dockerfile's base, under its name: the real one, or Debian's Python, without bytecode as the real one is."""
        if PULL:
            self.podman("pull", "--quiet", NAME)
            return
        tar = self._folder / "base.tar"
        hooks = (
            'ln -s python3 "$1/usr/bin/python"',
            'rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
            'find "$1/usr" -name "*.pyc" -delete',
        )
        subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--variant=minbase", "--include=python3,python3-venv,ca-certificates"),
                *("--dpkgopt=path-exclude=/usr/share/doc/*", *(f"--customize-hook={hook}" for hook in hooks), SUITE, tar),
            ],
            check=True,
            stdin=subprocess.DEVNULL,
        )
        self.podman("import", "--quiet", "--change", "ENV PATH=/usr/local/bin:/usr/bin:/bin", tar, NAME)
        tar.unlink()

    def build(self):
        """Build from the Dockerfile as it is, with the certificates that this machine trusts."""
        version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        done = subprocess.run(
            [
                *("buildah", *self._places, "build", "--format", "docker", "--isolation", "chroot", "--pull-never"),
                *("--build-arg", f"BASE={NAME}", "--build-arg", f"VERSION={version}", *self._trust(), "--tag", IMAGE, ROOT),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout

    def _trust(self):
        """Where this machine has certificates of its own, pip must know them inside the build too."""
        ours = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
        if not ours:
            return []
        settings = self._folder / "pip.conf"
        settings.write_text("[global]\ncert = /etc/pip-ca.crt\n")
        return ["--volume", f"{Path(ours).resolve()}:/etc/pip-ca.crt:ro", "--volume", f"{settings}:/etc/pip.conf:ro"]

    def python(self, code):
        """What a script prints that runs in the image in place of the sidecar."""
        return self.podman("run", "--rm", "--network=none", *LIMITS, "--entrypoint=python", IMAGE, "-c", code).stdout

    def size(self, image):
        return self.inspect(image)["Size"]

    @contextlib.contextmanager
    def container(self, *options, config=None, volume=None, network="none"):
        """The sidecar, locked down, with a config file and a volume, if any are named. It is gone after the block."""
        mounts = [f"--volume={config}:/etc/fsm-sidecar/sidecar.yaml:ro"] if config else []
        mounts += [f"--volume={volume}:/var/lib/fsm-sidecar"] if volume else []
        given = self.podman("run", "--detach", f"--network={network}", *LOCKED_DOWN, *LIMITS, *mounts, *options, IMAGE)
        container = Container(self, given.stdout.strip())
        try:
            yield container
        finally:
            self.podman("rm", "--force", "--time=0", container.id)

    def remove(self):
        """Everything."""
        self.podman("rm", "--all", "--force", "--time=0", check=False)
        self.podman("volume", "rm", "--all", "--force", check=False)
        self.podman("rmi", "--all", "--force", check=False)
        with contextlib.suppress(OSError):
            subprocess.run(["umount", self._folder / "storage" / "overlay"], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(self._folder)


class Container(NamedTuple):
    """One that was started."""

    engine: Engine
    id: str

    @property
    def log(self):
        done = self.engine.podman("logs", self.id)
        return done.stdout + done.stderr

    def events(self, name):
        lines = (json.loads(line) for line in self.log.splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] == name]

    @property
    def ready(self):
        """The line that says so, once it does."""

        def look():
            lines = self.events("ready")
            assert lines or self.engine.inspect(self.id)["State"]["Running"], self.log
            return lines

        return eventually(look)[0]

    api = property(lambda self: Client(self.ready["api"]))
    ops = property(lambda self: Client(self.ready["ops"]))

    @property
    def start_seconds(self):
        """From the start of the process to its being ready."""
        started = self.engine.inspect(self.id)["State"]["StartedAt"]
        return (_time(self.ready["timestamp"]) - _time(started)).total_seconds()

    @property
    def status(self):
        """Of its first process, as the kernel tells it: name → words."""
        text = Path(f"/proc/{self.engine.inspect(self.id)['State']['Pid']}/status").read_text()
        return {name: rest.split() for name, rest in (line.split(":", 1) for line in text.splitlines())}

    def python(self, code):
        """What a script prints that runs beside the sidecar, as the same user."""
        return self.engine.podman("exec", self.id, "python", "-c", code).stdout

    def healthy(self):
        """What Docker's HEALTHCHECK finds."""
        return self.engine.podman("healthcheck", "run", self.id, check=False).returncode == 0

    def stop(self):
        """The image's stop signal, and the exit code."""
        self.engine.podman("stop", "--time=30", self.id)
        return self.ended()

    def ended(self):
        """Its exit code, once it has ended."""
        self.engine.podman("wait", self.id)
        return self.engine.inspect(self.id)["State"]["ExitCode"]


def _time(text):
    """A time of a log line, or of podman, which gives nanoseconds."""
    whole, _, rest = text.partition(".")
    return datetime.datetime.fromisoformat(f"{whole}.{rest[:6].rstrip('Z')}+00:00")
