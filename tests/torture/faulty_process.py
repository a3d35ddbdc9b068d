"""The real sidecar over HTTP while a system call on its journal's files fails, and what its clients were told."""

import re
import subprocess
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

import ledger
from faults import CALLS, Ending, hit_in, journal_files
from sidecar_process import PATIENCE_SECONDS, Process, eventually, on_disk, written
from strace_log import calls, injecting

CLIENTS = 3
WRITES = 5
EXIT_SECONDS = 5.0


class Traced(Process):
    """A sidecar whose calls are traced; it may fail to start."""

    def started(self):
        """Whether it became ready; if not, it is gone."""
        with self._changed:
            self._changed.wait_for(lambda: self.events("ready") or not self._reader, PATIENCE_SECONDS)
        return bool(self.events("ready"))


class Clients:
    """Write, each one write after the other, and remember what they were told."""

    def __init__(self, sidecar, promises):
        self.api, self.ops = sidecar.api, sidecar.ops
        self.promises = promises
        self.complaints = []
        self.failed_at = None
        self._lock = threading.Lock()

    def write_all(self):
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(self._write_some, range(CLIENTS)))

    def _write_some(self, client):
        for number in range(WRITES):
            filler = "x" * (100 << (number * 2))
            token = f"{client}-{number}-{zlib.crc32(filler.encode())}"
            self._note(f"intent {token}")
            late = self.failed_at is not None
            try:
                answer = self.api.put("/v1/state", {"state": "IDLE", "reason": token, "context_data": {"filler": filler}})
            except (OSError, HTTPException):
                self._note(f"unknown {token}")
                break
            self._take(token, answer, late)

    def _take(self, token, answer, late):
        told = answer.json
        match answer.status, told.get("type"):
            case ((200 | 201), _):
                self._note(f"acked {told['revision']} {token}")
                if late:
                    self.complaints.append("a write was acknowledged after the storage had failed")
            case 507, "storage-full":
                self._note(f"full {token}")
            case 503, "storage-failed":
                self._note(f"unknown {token}")
                if told.get("outcome") != "unknown":
                    self.complaints.append(f"the outcome of a failed write is {told.get('outcome')}, not unknown")
                self._look_whether_it_is_unready()
            case 503, "draining":
                pass  # not applied
            case _:
                self.complaints.append(f"{answer.status} {told}")

    def _look_whether_it_is_unready(self):
        self.failed_at = self.failed_at or time.monotonic()
        try:
            ready = self.ops.get("/readyz").status
        except (OSError, HTTPException):
            return  # it is gone already
        if ready != 503:
            self.complaints.append(f"/readyz is {ready} after the storage has failed")

    def _note(self, line):
        with self._lock:
            self.promises.take(line)


def prepared(folder):
    """The config of a sidecar with its journal in the folder."""
    (folder / "journal").mkdir(parents=True)
    return written(folder, journal=on_disk(folder / "journal"), fsm={"initial": None})


def run(folder, fault):
    """One run of the sidecar with this fault, its end, and what was wrong with it."""
    config, log, files = prepared(folder), folder / "log", journal_files(folder / "journal")
    strace = injecting(log, files, fault.call if fault else ",".join(CALLS), fault.words if fault else None)
    sidecar = Traced("run", "--config", config, before=strace)
    promises = ledger.Promises()
    try:
        complaints = _used(sidecar, promises)
        code = sidecar.exit_code()
    except subprocess.TimeoutExpired:
        complaints, code = [], None
    finally:
        sidecar.kill()
    gone = re.compile(rf"^{sidecar.pid} +\+\+\+", re.MULTILINE)
    eventually(lambda: gone.search(log.read_text()))  # strace may have to write it yet
    return Ending(code, sidecar.stderr, promises, hit_in(log, files)), complaints


def _used(sidecar, promises):
    """Use it until it ends by itself, or because it is asked to; gives what was wrong."""
    if not sidecar.started():
        return list(_untold(sidecar))
    clients = Clients(sidecar, promises)
    promises.take("phase writing")
    promises.take(f"epoch {sidecar.events('ready')[0]['epoch']}")
    clients.write_all()
    if clients.failed_at is None:
        promises.take("phase closing")
        sidecar.stop()
    else:
        sidecar.exit_code()
        took = time.monotonic() - clients.failed_at
        if took > EXIT_SECONDS:
            clients.complaints.append(f"it was gone {took:.1f} s after its storage had failed")
    return clients.complaints


def _untold(sidecar):
    """One that does not start says why, in one line."""
    lines = [line for line in sidecar.lines if not line.startswith("{")]
    if len(lines) != 1 or "journal.db" not in lines[0]:
        yield f"it should say in one line why it does not start: {lines}"


def census(folder):
    """The calls that a run makes, when none fails."""
    ending, complaints = run(folder, None)
    assert (0, []) == (ending.code, complaints), f"{complaints} {ending}"
    return list(calls(folder / "log", journal_files(folder / "journal")))
