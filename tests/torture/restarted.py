"""A sidecar that is killed and started again, on the same ports and the same journal, while others talk to it."""

import contextlib
import subprocess
import sys
from pathlib import Path

from sidecar_process import Client, eventually, on_disk, written
from wire import fixed_port

MUTANTS = Path(__file__).parent / "mutants.py"


class Restarted:
    """The sidecar with these sections of the config, or a mutant of it. It runs from `start` to `kill`."""

    def __init__(self, folder, mutant=None, **sections):
        self.port, self.ops_port = fixed_port(), fixed_port()
        listen = {"api": {"listen": f"127.0.0.1:{self.port}"}, "ops": {"listen": f"127.0.0.1:{self.ops_port}"}}
        quiet = {"journal": on_disk(folder), "logging": {"level": "warning"}}
        config = written(folder, **(quiet | listen | sections))
        start = [MUTANTS, mutant] if mutant else ["-m", "sidecar"]
        self._command = [sys.executable, *start, "run", "--config", config]
        self._log = folder / "sidecar.log"
        self._process = None
        self.api = Client(f"127.0.0.1:{self.port}")
        self.ops = Client(f"127.0.0.1:{self.ops_port}")
        self.starts = 0

    @property
    def pid(self):
        return self._process.pid

    def start(self):
        """And wait until it is ready."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
        self.starts += 1
        eventually(self._ready)

    def _ready(self):
        assert self._process.poll() is None, f"it ended:\n{self._log.read_text()[-4000:]}"
        with contextlib.suppress(OSError):
            return self.ops.get("/readyz").status == 200

    def kill(self):
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()
        _, traceback, cause = self._log.read_text().partition("Traceback")
        assert not traceback, cause[:4000]
