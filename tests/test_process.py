"""The process from outside: how it starts, what it refuses to start with, how it ends, and what is there afterwards."""

import asyncio
import contextlib
import http.client
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from receiver import held
from sidecar_process import Client, eventually, free_port, on_disk, problem_of, process, receiving, running, written

LONG = {"drain_delay": "20s", "flush_timeout": "5s", "grace_period": "60s"}


def place(client):
    """Epoch, revision, version and state, as the API tells them."""
    answer = client.get("/v1/state").json
    return answer["epoch"], answer["revision"], answer["snapshot"]["version"], answer["snapshot"]["state"]


@contextlib.contextmanager
def edited(folder):
    """The journal's file, opened by somebody who should not."""
    with contextlib.closing(sqlite3.connect(folder / "journal.db", isolation_level=None)) as connection:
        yield connection


# --- starting ---


def test_a_started_sidecar_says_where_it_is(tmp_path):
    """One line `ready`, once it is: both addresses, the journal, and what it found there."""
    with running(written(tmp_path, journal=on_disk(tmp_path))) as sidecar:
        (ready,) = sidecar.wait_for("ready")

        assert 200 == sidecar.ops.get("/readyz").status
        assert (ready["epoch"], ready["revision"], 0, ready["state"]) == place(sidecar.api)
        assert (str(tmp_path / "journal.db"), 1, "BOOTING", 0) == tuple(
            ready[key] for key in ("journal", "revision", "state", "subscribers")
        )


def test_it_runs_without_a_config_file(tmp_path):
    """On the defaults, its journal in the working directory. (Their ports may be taken for a moment by somebody else.)"""
    for _ in range(20):
        with process("run", cwd=tmp_path) as sidecar:
            eventually(lambda: sidecar.lines)
            if "cannot listen" not in sidecar.stderr:
                assert ("127.0.0.1:8470", "0.0.0.0:8471") == (sidecar.api.address, sidecar.ops.address)
                assert 200 == sidecar.api.get("/v1/state").status
                assert (tmp_path / "journal.db").exists()
                return
            sidecar.exit_code()
    pytest.fail("the ports are taken for good")


def test_a_unix_socket_is_for_the_owner_and_survives_a_crash(tmp_path):
    """Mode 0600; what a killed process left in its place is replaced."""
    path = tmp_path / "api.sock"
    config = written(tmp_path, api={"listen": f"unix:{path}"})
    with running(config) as sidecar:
        assert f"unix:{path}" == sidecar.api.address
        sidecar.kill()
    with running(config) as sidecar:
        assert 200 == sidecar.api.put("/v1/state", {"state": "IDLE"}).status
        assert 0o600 == path.stat().st_mode & 0o777
        assert 0 == sidecar.stop()


def test_a_journal_in_memory_is_another_one_each_time(tmp_path):
    """A new epoch: nobody's old ETag matches."""
    epochs = set()
    for _ in range(2):
        with running(written(tmp_path)) as sidecar:
            epochs.add(place(sidecar.api)[0])
    assert 2 == len(epochs)


# --- not starting ---


def refusal(config, **options):
    """The exit code and the lines of one that does not start. It says why without a traceback."""
    with running(config, **options) as sidecar:
        return sidecar.exit_code(), sidecar.stderr


def test_every_problem_of_the_config_is_told_at_once(tmp_path):
    """Exit 64, a line for each, with its place."""
    config = written(tmp_path, fsm={"initial": "ASLEEP"}, store={"max_subscribers": 0}, colour="red")
    code, told = refusal(config)

    assert 64 == code
    assert all(part in told for part in ("fsm.initial", "store.max_subscribers", "colour", str(config)))


@pytest.mark.parametrize("name", ["api", "ops"])
def test_a_port_that_is_taken_is_told(tmp_path, name):
    """Exit 64, and which of the two listeners it is."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, told = refusal(written(tmp_path, journal=on_disk(tmp_path), **{name: {"listen": address}}))

    assert (64, True, True) == (code, f"{name}.listen" in told, address in told)


def test_a_second_process_on_the_journal_is_refused_at_once(tmp_path):
    """Exit 69, naming the first, which does not notice."""
    config = written(tmp_path, journal=on_disk(tmp_path))
    with running(config) as first:
        before = place(first.api)
        started = time.monotonic()
        code, told = refusal(config)

        assert (69, True) == (code, f"process {first.pid}" in told)
        assert time.monotonic() - started < 5  # of which most is Python's start on a busy machine
        assert before == place(first.api)
        assert 200 == first.api.put("/v1/state", {"state": "IDLE"}).status


def test_the_same_sidecar_started_twice_is_told_so(tmp_path):
    """69 and the holder, although the first thing in its way is the port."""
    ports = {name: {"listen": f"127.0.0.1:{free_port()}"} for name in ("api", "ops")}
    config = written(tmp_path, journal=on_disk(tmp_path), **ports)
    with running(config) as first:
        first.wait_for("ready")
        code, told = refusal(config)

        assert (69, True) == (code, f"process {first.pid}" in told)


def test_an_unknown_host_to_listen_on_is_named(tmp_path):
    """64, and what the resolver said."""
    code, told = refusal(written(tmp_path, ops={"listen": "nowhere.invalid:0"}))

    assert (64, True, False) == (code, "ops.listen: cannot listen on nowhere.invalid:0" in told, "Unknown error" in told)


def garbage(folder):
    (folder / "journal.db").write_bytes(b"not a journal, but long enough to be one " * 200)


def a_torn_page(folder):
    with open(folder / "journal.db", "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(8 * 4096))


def half_a_document(folder):
    with edited(folder) as file:
        file.execute("UPDATE journal SET document = substr(document, 1, 40)")


def no_document(folder):
    with edited(folder) as file:
        file.execute("UPDATE journal SET document = CAST('[]' AS BLOB)")


def half_a_subscriber(folder):
    with edited(folder) as file:
        file.execute("UPDATE subscribers SET record = substr(record, 1, 20)")


@pytest.mark.parametrize("damage", [garbage, a_torn_page, half_a_document, no_document, half_a_subscriber])
def test_a_damaged_journal_is_told(tmp_path, damage):
    """Exit 65, naming the file, and nothing is served."""
    config = written(tmp_path, journal=on_disk(tmp_path))
    with running(config) as sidecar:
        for n in range(20):
            sidecar.api.put("/v1/state", {"state": "IDLE", "context_data": {"x": "x" * 2000}})
            sidecar.api.put(f"/v1/subscribers/s{n}", {"url": f"http://127.0.0.1:{free_port()}/"})
        assert 0 == sidecar.stop()
    damage(tmp_path)
    code, told = refusal(config)

    assert (65, True, False) == (code, str(tmp_path / "journal.db") in told, '"ready"' in told)


@pytest.mark.skipif(os.geteuid() != 0, reason="a small volume of its own needs root")
def test_a_small_volume_goes_on_for_ever(tmp_path):
    """What is kept fits, so writing never ends, although far more is written than there is space."""
    volume = tmp_path / "volume"
    volume.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", volume], check=True)
    try:
        journal = {"path": str(volume / "journal.db"), "retention": {"revisions": 20}}
        with running(written(tmp_path, journal=journal, webhooks={"max_lag": 20})) as sidecar:
            for n in range(3000):
                answer = sidecar.api.put("/v1/state", {"state": "IDLE", "context_data": {"x": "x" * 14_000}})
                assert 200 == answer.status, (n, answer)
            assert 0 == sidecar.stop()
    finally:
        subprocess.run(["umount", volume], check=True)


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path):
    """Whoever reads the log may go away, or the disk it goes to may be full."""
    with open("/dev/full", "w") as full:
        ports = {name: {"listen": f"127.0.0.1:{free_port()}"} for name in ("api", "ops")}
        config = written(tmp_path, journal=on_disk(tmp_path), **ports)
        sidecar = subprocess.Popen([sys.executable, "-m", "sidecar", "run", "--config", config], stderr=full)
    try:
        api = Client(ports["api"]["listen"])
        eventually(lambda: answers(api))
        for _ in range(3):
            assert 412 == api.put("/v1/state", {"state": "IDLE"}, if_match='"lost-1"').status
        assert 201 == api.put("/v1/subscribers/gone", {"url": f"http://127.0.0.1:{free_port()}/"}).status
        eventually(lambda: api.get("/v1/subscribers/gone").json["failures"])
        assert 200 == api.get("/v1/state").status
    finally:
        sidecar.terminate()
    assert 0 == sidecar.wait(10)


def answers(api):
    try:
        return api.get("/v1/state")
    except ConnectionError:
        return None


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    """Exit 74, with the path."""
    (tmp_path / "file").write_text("where a folder should be")
    code, told = refusal(written(tmp_path, journal={"path": str(tmp_path / "file" / "journal.db")}))

    assert (74, True) == (code, str(tmp_path / "file" / "journal.db") in told)


def test_a_state_that_is_no_longer_configured_is_told(tmp_path):
    """Exit 64: the config has changed under the journal. Listed again, it goes on."""
    states = {"states": ["OFF", "ON", "HOT"], "initial": "OFF"}
    with running(written(tmp_path, journal=on_disk(tmp_path), fsm=states)) as sidecar:
        sidecar.api.put("/v1/state", {"state": "HOT"})
        before = place(sidecar.api)
        assert 0 == sidecar.stop()
    code, told = refusal(written(tmp_path, journal=on_disk(tmp_path), fsm=states | {"states": ["OFF", "ON"]}))

    assert (64, True, True) == (code, "fsm.states" in told, "$.state" in told)
    with running(written(tmp_path, journal=on_disk(tmp_path), fsm=states)) as sidecar:
        assert before == place(sidecar.api)


def test_the_multiprocess_mode_of_prometheus_is_refused(tmp_path):
    """Exit 64: it would lose most metrics."""
    code, told = refusal(written(tmp_path), env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)})

    assert (64, True) == (code, "PROMETHEUS_MULTIPROC_DIR" in told)


# --- ending ---


def test_a_sigterm_before_anything_is_open_ends_it_in_order(tmp_path):
    """Heard from the start, for as process 1 of a container it would be lost: here while it still reads its configuration."""
    pipe = tmp_path / "sidecar.yaml"
    os.mkfifo(pipe)
    with process("run", "--config", pipe) as sidecar, pipe.open("w"):  # opened, once the other side reads
        assert 0 == sidecar.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_its_budget(tmp_path, number):
    """Exit 0 after the drain delay; an idle connection, kept open, does not hold it up."""
    with running(written(tmp_path, shutdown={"drain_delay": "300ms", "flush_timeout": "0s"})) as sidecar:
        idle = http.client.HTTPConnection(sidecar.api.address)
        idle.request("GET", "/v1/state")
        assert 200 == idle.getresponse().status
        started = time.monotonic()
        sidecar.send(number)

        assert 0 == sidecar.exit_code()
        assert 0.3 <= time.monotonic() - started < 2.5
        idle.close()


def test_the_last_write_gets_in_while_it_drains(tmp_path):
    """Unready at once, but the write is taken, delivered and durable; a second signal ends the delay."""
    with receiving() as hook, running(written(tmp_path, journal=on_disk(tmp_path), shutdown=LONG)) as sidecar:
        sidecar.api.put("/v1/subscribers/console", {"url": hook.url})
        hook.wait_for_revision(1)
        sidecar.send(signal.SIGTERM)
        sidecar.wait_for("stopping")
        ready = sidecar.ops.get("/readyz")
        last = sidecar.api.put("/v1/state", {"state": "SHUTDOWN"})
        before = place(sidecar.api)
        sidecar.send(signal.SIGTERM)
        started = time.monotonic()

        assert (503, False, "draining") == (ready.status, ready.json["ok"], ready.json["checks"][0]["detail"])
        assert [200, 200] == [last.status, sidecar.ops.get("/livez").status]
        assert 0 == sidecar.exit_code()
        assert time.monotonic() - started < 5
        assert ["SHUTDOWN"] == [line["state"] for line in sidecar.events("state_changed")]
    with running(written(tmp_path, journal=on_disk(tmp_path))) as sidecar:
        assert before == place(sidecar.api)


def test_what_is_left_is_delivered_before_the_end(tmp_path):
    """Within the flush timeout; and the cursor is saved: nothing is repeated after the restart."""
    config = written(tmp_path, journal=on_disk(tmp_path), shutdown={"drain_delay": "0s", "flush_timeout": "5s"})
    gate = asyncio.Event()
    with receiving() as hook:
        with running(config) as sidecar:
            sidecar.api.put("/v1/subscribers/console", {"url": hook.url})
            hook.wait_for_revision(1)
            hook.answers(held(gate), 200)
            for _ in range(50):
                sidecar.api.put("/v1/state", {"state": "IDLE"})
            sidecar.send(signal.SIGTERM)
            sidecar.wait_for("stopping")
            hook.call(gate.set)
            assert 0 == sidecar.exit_code()
        assert list(range(1, 52)) == [got.data["revision"] for got in hook.got]
        with running(config) as sidecar:
            sidecar.api.put("/v1/state", {"state": "IDLE"})
            hook.wait_for_revision(52)
        assert list(range(1, 53)) == [got.data["revision"] for got in hook.got]


def test_no_acknowledged_write_is_lost_when_it_ends(tmp_path):
    """Writers go on all the time: each gets an acknowledgement that holds, 503 draining, or no connection."""
    config = written(tmp_path, journal=on_disk(tmp_path), shutdown={"drain_delay": "100ms", "flush_timeout": "0s"})
    acknowledged, refused = [], []
    with running(config) as sidecar:
        api = sidecar.api

        def write():
            with contextlib.suppress(OSError, http.client.HTTPException):
                while (answer := api.put("/v1/state", {"state": "IDLE"})).status == 200:
                    acknowledged.append(answer.json["revision"])
                refused.append(problem_of(answer, 503, "draining"))

        writers = [threading.Thread(target=write) for _ in range(4)]
        for writer in writers:
            writer.start()
        eventually(lambda: len(acknowledged) > 20)
        assert 0 == sidecar.stop()
        for writer in writers:
            writer.join()
    with running(config) as sidecar:
        head = place(sidecar.api)[1]
        kept = sidecar.api.get(f"/v1/history?after={max(0, head - 900)}").json["head"]

        assert len(acknowledged) == len(set(acknowledged))
        assert max(acknowledged) <= head == kept


# --- crashing ---


def test_kill_9_loses_nothing(tmp_path):
    """Same epoch and version, the whole history; a subscriber goes on behind what it had."""
    config = written(tmp_path, journal=on_disk(tmp_path))
    with receiving() as hook:
        with running(config) as sidecar:
            sidecar.api.put("/v1/subscribers/console", {"url": hook.url})
            sidecar.api.put("/v1/state", {"state": "IDLE", "version": 41})
            eventually(lambda: sidecar.api.get("/v1/subscribers/console").json["cursor"] == 2)
            sidecar.api.put("/v1/subscribers/console", {"url": hook.url})  # durable, and its cursor with it
            before, history = place(sidecar.api), sidecar.api.get("/v1/history").body
            sidecar.kill()
        with running(config) as sidecar:
            assert before == place(sidecar.api)
            assert history == sidecar.api.get("/v1/history").body
            sidecar.api.put("/v1/state", {"state": "ACTIVE"}, if_match=f'"{before[0]}-41"')
            got = hook.wait_for_revision(3)
    assert (42, 2, False, 0) == (
        got.data["snapshot"]["version"],
        got.data["previous_revision"],
        got.data["initial"],
        got.data["skipped"],
    )


def test_a_storage_that_fails_ends_the_process(tmp_path):
    """503 with the outcome unknown, nothing more acknowledged, exit 74; and the restart finds what was acknowledged."""
    config = written(tmp_path, journal=on_disk(tmp_path), shutdown=LONG)
    with running(config) as sidecar:
        sidecar.api.put("/v1/state", {"state": "IDLE"})
        before = place(sidecar.api)
        largest = max(path.stat().st_size for path in tmp_path.iterdir())
        resource.prlimit(sidecar.pid, resource.RLIMIT_FSIZE, (largest, largest))
        answer = sidecar.api.put("/v1/state", {"state": "ACTIVE", "context_data": {"x": "x" * 200_000}})

        problem = problem_of(answer, 503, "storage-failed")
        assert ("unknown", "1") == (problem["outcome"], answer.headers["Retry-After"])
        assert 74 == sidecar.exit_code()
        assert str(tmp_path / "journal.db") in sidecar.stderr
    with running(config) as sidecar:
        assert before == place(sidecar.api)
