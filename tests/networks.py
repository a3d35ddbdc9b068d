"""Two network namespaces of the test's own: a node, and on it a pod, with a wire between them that leads nowhere else."""

import contextlib
import functools
import json
import shutil
import subprocess
from typing import NamedTuple

NODE, POD = "192.0.2.1", "192.0.2.2"  # documentation's (RFC 5737): nobody's
PATIENCE_SECONDS = 10
_TOOLS = {"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2", "curl": "curl"}


@functools.cache
def missing():
    """What is not here, by the name of its package."""
    return sorted({package for tool, package in _TOOLS.items() if not shutil.which(tool)}) or _forbidden()


def _forbidden():
    tried = subprocess.run(["unshare", "--user", "--map-root-user", "--net", "true"], capture_output=True, check=False)
    return ["user namespaces"] if tried.returncode else []


class Response(NamedTuple):
    """What came back; status 0: nothing did."""

    status: int
    body: str

    @property
    def json(self):
        return json.loads(self.body)


class Network:
    """One namespace. `enter` before a command runs it there; `address`: where the other one finds it."""

    def __init__(self, holder, address):
        self.address = address
        self.enter = ("nsenter", f"--target={holder.pid}", "--user", "--net", "--preserve-credentials")

    def run(self, *command, check=True):
        """What it prints, once it has ended."""
        return subprocess.run([*self.enter, *command], stdout=subprocess.PIPE, text=True, check=check).stdout

    def ip(self, words):
        self.run("ip", *words.split())

    def ask(self, url):
        """A GET from here."""
        told = self.run("curl", "--silent", "--max-time", "5", "--write-out", "\n%{http_code}", url, check=False)
        body, _, status = told.rpartition("\n")
        return Response(int(status), body)

    @contextlib.contextmanager
    def running(self, command, **options):
        """A process in here while the block runs."""
        with subprocess.Popen([*self.enter, *command], **options) as process:
            try:
                yield process
            finally:
                process.kill()


@contextlib.contextmanager
def node_and_pod():
    """Both networks, up. They are gone after the block, with their last process."""
    with contextlib.ExitStack() as stack:
        node = Network(stack.enter_context(_holding("unshare", "--user", "--map-root-user", "--net")), NODE)
        holder = stack.enter_context(_holding(*node.enter, "unshare", "--net"))
        pod = Network(holder, POD)
        node.ip(f"link add pod type veth peer name eth0 netns {holder.pid}")
        for network, device in ((node, "pod"), (pod, "eth0")):
            network.ip("link set lo up")
            network.ip(f"address add {network.address}/30 dev {device}")
            network.ip(f"link set {device} up")
        yield node, pod


@contextlib.contextmanager
def _holding(*command):
    """A process that does nothing, in the namespaces that the command makes: it is there once it says so."""
    idle = ["sh", "-c", "echo; exec cat"]
    with subprocess.Popen([*command, *idle], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert b"\n" == process.stdout.readline()
            yield process
        finally:
            process.kill()
