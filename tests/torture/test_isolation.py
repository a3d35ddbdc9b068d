"""One healthy subscriber beside many dead ones: they cost it nothing, they cost the writer nothing, and in the end they go."""

import os
import re
import time
from pathlib import Path

import pytest
from hostile import DEAD, dead
from sidecar_process import Client, eventually, free_port, on_disk, receiving, running, written
from torture import TORTURE, report, scale

import sidecar

MAX_IN_FLIGHT = 64
CLOSING = 8
"""Connections whose place was given back, and that are about to be closed."""
WEBHOOKS = {
    "max_in_flight": MAX_IN_FLIGHT,
    "timeout": "500ms",
    "connect_timeout": "500ms",
    "dns_timeout": "500ms",
    "retry": ["100ms", "200ms"],
    "probe_interval": "500ms",
    "evict_after": {"failures": 3, "time": scale("4s", "20s")},
}
WRITES = scale(200, 1000)
TESTS = Path(__file__).parent.parent
ENV = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [TESTS, Path(sidecar.__file__).parent.parent]))}
LONGEST_SECONDS = 240
KINDS = {"mixed": DEAD} | ({kind: (kind,) for kind in DEAD} if TORTURE else {})


class Sample:
    """What the process uses: memory in bytes, CPU in seconds, and its connections to others."""

    def __init__(self, pid, own_ports):
        page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
        self.memory = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
        self.cpu = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])) / tick
        self.at = time.monotonic()
        self.connections = len(_inodes(pid) & _tcp_inodes(pid, own_ports))


def _inodes(pid):
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(os.readlink(fd))
        except FileNotFoundError:
            continue  # closed meanwhile
    return {inode[1] for name in found if (inode := re.fullmatch(r"socket:\[(\d+)\]", name))}


def _tcp_inodes(pid, own_ports):
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if int(row[1].split(":")[1], 16) not in own_ports}


def percentile(values, share):
    return sorted(values)[int(share * (len(values) - 1))]


def write(api, sidecar_pid, own_ports):
    """Write them all: how long each took, when each was acknowledged, and the samples meanwhile."""
    took, acknowledged, samples = [], {}, []
    for n in range(WRITES):
        began = time.monotonic()
        answer = api.put("/v1/state", {"state": "IDLE" if n % 2 else "ACTIVE"})
        now = time.monotonic()
        assert answer.status < 300, answer
        took.append(now - began)
        acknowledged[answer.json["revision"]] = now
        if n % 10 == 0:
            samples.append(Sample(sidecar_pid, own_ports))
    return took, acknowledged, samples


def lags(got, acknowledged):
    first = {}
    for request in got:
        first.setdefault(request.revision, request.at)
    return [max(0.0, first[revision] - at) for revision, at in acknowledged.items()]


def tried(process):
    """How many attempts there were that acknowledged nothing."""
    lines = process.ops.get("/metrics").body.decode().splitlines()
    counts = [line for line in lines if line.startswith("fsm_webhook_attempts_total{") and "delivered" not in line]
    return sum(float(line.split()[-1]) for line in counts)


def all_evicted(api, count):
    """The dead ones, once all are given up."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < deadline:
        gone = [
            each
            for each in api.get("/v1/subscribers").json["subscribers"]
            if each["id"].startswith("dead") and each["status"] == "evicted"
        ]
        if len(gone) == count:
            return gone
        time.sleep(0.2)
    raise AssertionError(f"{count - len(gone)} of {count} are still served")


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_the_dead_cost_the_healthy_nothing(tmp_path, kinds):
    """It gets every revision in order while they are tried; sockets and memory stay bounded; all are evicted, cursors kept."""
    count, refused = scale(150, 999), free_port()
    config = written(tmp_path, journal=on_disk(tmp_path), webhooks=WEBHOOKS)
    with receiving() as healthy, dead(refused, ENV) as others, running(config) as process:
        api = Client(process.wait_for("ready")[0]["api"])
        own_ports = {int(process.wait_for("ready")[0][name].rsplit(":", 1)[1]) for name in ("api", "ops")}
        assert 201 == api.put("/v1/subscribers/healthy", {"url": healthy.url}).status
        alone, before, _ = write(api, process.pid, own_ports)
        eventually(lambda: healthy.got[-1].revision == max(before))
        calm = Sample(process.pid, own_ports)
        for n in range(count):
            url = others.url(kinds[n % len(kinds)], n)
            assert 201 == api.put(f"/v1/subscribers/dead-{n}?from={max(before) + 1}", {"url": url}).status
        failed = tried(process)
        beside, after, samples = write(api, process.pid, own_ports)
        eventually(lambda: healthy.got[-1].revision == max(after))
        still_tried = tried(process) - failed
        late = lags(healthy.got, after)
        gone = all_evicted(api, count)
        end = Sample(process.pid, own_ports)
        revisions = [request.revision for request in healthy.got]
        redirected = others.redirected()
    connections = max(sample.connections for sample in samples)
    memory = (max(sample.memory for sample in [*samples, end]) - calm.memory) / (1 << 20)
    cpu = (end.cpu - calm.cpu) / (end.at - calm.at)
    p99 = percentile(beside, 0.99) / percentile(alone, 0.99)
    report(
        f"isolation, {count} {'mixed' if len(kinds) > 1 else kinds[0]}: lag p50/p99 {percentile(late, 0.5) * 1e3:.1f}/"
        f"{percentile(late, 0.99) * 1e3:.1f} ms, write p99 {percentile(beside, 0.99) * 1e3:.1f} ms ({p99:.2f} of without), "
        f"{connections} connections, memory {memory:+.1f} MiB, CPU {cpu:.0%} of a core, {still_tried:.0f} failures meanwhile"
    )

    assert list(range(revisions[0], max(after) + 1)) == revisions
    assert still_tried > 0
    assert connections <= MAX_IN_FLIGHT + 1 + CLOSING
    assert memory <= 64
    assert {(max(before), "failing")} == {(each["cursor"], each["evicted"]["reason"]) for each in gone}
    assert 0 == redirected
    if TORTURE:
        assert percentile(late, 0.99) <= 0.25
