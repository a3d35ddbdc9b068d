"""`GET /v1/journal/backup`: a whole journal out of a running sidecar, and the way back into one."""

import concurrent.futures
import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading

from sidecar_process import eventually, on_disk, problem_of, running, written

from sidecar.database.at_rest import verify

WRITERS = 8


def backup(sidecar, path):
    """The answer, its body in a file."""
    answer = sidecar.api.get("/v1/journal/backup")
    path.write_bytes(answer.body)
    return answer


def metric(sidecar, name):
    lines = sidecar.ops.get("/metrics").body.decode().splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " "))


def outcomes(sidecar, outcome):
    return metric(sidecar, f'fsm_backups_total{{outcome="{outcome}"}}')


def put(sidecar, **content):
    answer = sidecar.api.put("/v1/state", {"state": "IDLE", **content})
    assert answer.status in (200, 201), answer
    return answer.json["revision"]


def large(sidecar, count):
    """Enough revisions that a backup does not fit into the buffers of a connection."""
    for _ in range(count):
        put(sidecar, context_data={"x": "x" * 200_000})


def parts(folder):
    return [path.name for path in folder.iterdir() if path.name.endswith(".part")]


def test_a_backup_is_a_journal(tmp_path, start):
    """Named by what it has; counted; nothing is left beside the journal."""
    sidecar = start(journal=on_disk(tmp_path))
    put(sidecar)
    answer = backup(sidecar, tmp_path / "b.db")
    report = verify(tmp_path / "b.db")

    assert (200, "application/vnd.sqlite3") == (answer.status, answer.headers["Content-Type"])
    assert f'attachment; filename="journal-{report.epoch}-2.db"' == answer.headers["Content-Disposition"]
    assert ((), 2) == (report.problems, report.head)
    assert [] == parts(tmp_path)
    assert 1 == eventually(lambda: outcomes(sidecar, "done"))
    assert 1 == metric(sidecar, "fsm_backup_duration_seconds_count")
    assert 0 < metric(sidecar, "fsm_backup_last_success_timestamp_seconds")


def test_writes_do_not_notice_a_backup(tmp_path):
    """Eight writers, and backups all the while: no write fails, each backup is whole and has all that went before it."""
    with running(written(tmp_path, journal=on_disk(tmp_path))) as sidecar:
        api, done, acknowledged = sidecar.api, threading.Event(), []

        def write():
            with contextlib.closing(http.client.HTTPConnection(api.address, timeout=10)) as connection:
                while not done.is_set():
                    connection.request("PUT", "/v1/state", b'{"state":"IDLE"}', {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    revision = json.loads(answer.read())["revision"]
                    assert 200 == answer.status
                    acknowledged.append(revision)

        with concurrent.futures.ThreadPoolExecutor(WRITERS) as writers:
            writing = [writers.submit(write) for _ in range(WRITERS)]
            try:
                for number in range(5):
                    eventually(lambda number=number: len(acknowledged) > 200 * (number + 1))
                    before = max(acknowledged)
                    assert 200 == backup(sidecar, tmp_path / f"{number}.db").status
                    report = verify(tmp_path / f"{number}.db")
                    assert ((), True) == (report.problems, before <= report.head)
                    assert report.head == report.revisions
            finally:
                done.set()
            for writer in writing:
                writer.result()
        assert 0 == sidecar.stop()


def test_there_is_one_at_a_time_and_a_cut_one_leaves_nothing(tmp_path):
    """409 while somebody reads one; when he goes away in the middle, the next can be made, and it is counted."""
    with running(written(tmp_path, journal=on_disk(tmp_path))) as sidecar:
        large(sidecar, 60)
        host, _, port = sidecar.api.address.partition(":")
        with contextlib.closing(socket.create_connection((host, int(port)))) as reader:
            reader.sendall(b"GET /v1/journal/backup HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert reader.recv(12) == b"HTTP/1.1 200"

            problem_of(sidecar.api.get("/v1/journal/backup"), 409, "backup-running")
            assert [] == parts(tmp_path)
        assert 1 == eventually(lambda: outcomes(sidecar, "cut"))

        assert 200 == backup(sidecar, tmp_path / "b.db").status
        assert () == verify(tmp_path / "b.db").problems
        assert 0 == sidecar.stop()
        assert [] == sidecar.events("request_failed")


def test_there_is_none_of_a_journal_in_memory(start):
    """404, with the reason; a HEAD makes none at all."""
    sidecar = start()

    problem_of(sidecar.api.get("/v1/journal/backup"), 404, "no-journal-file")
    problem_of(sidecar.api.get("/v1/journal/backup?x=1"), 400, "malformed")
    assert 405 == sidecar.api.ask("HEAD", "/v1/journal/backup").status


def test_a_killed_backup_is_cleared_away_at_the_next_start(tmp_path, start):
    """What it had written so far; nothing else."""
    left, mine = tmp_path / "journal.db.backup-0123456789abcdef.part", tmp_path / "journal.db.backup-monday"
    left.write_text("x")
    mine.write_text("x")
    start(journal=on_disk(tmp_path))

    assert (False, True) == (left.exists(), mine.exists())


def test_subscribers_are_told_of_a_restore(tmp_path, hook):
    """The restored state reaches them at the next start: a new epoch, a revision beyond all they were told, and the gap."""
    config = written(tmp_path, journal=on_disk(tmp_path))
    with running(config) as sidecar:
        sidecar.api.put("/v1/subscribers/s", {"url": hook.url})
        put(sidecar, state="ACTIVE", reason="before the backup")
        hook.wait_for_revision(2)
        epoch = sidecar.api.get("/v1/state").json["epoch"]
        backup(sidecar, tmp_path / "b.db")
        last = [put(sidecar, reason="lost") for _ in range(5)][-1]
        hook.wait_for_revision(last)
        assert 0 == sidecar.stop()

    command = [sys.executable, "-m", "sidecar", "journal", "restore", tmp_path / "b.db", "--config", config]
    restored = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert f"3 to {last}" in restored.stdout
    with running(config) as sidecar:
        told = hook.wait_for_revision(last + 1).data
        state = sidecar.api.get("/v1/state").json

        assert ("ACTIVE", "before the backup") == (told["snapshot"]["state"], told["snapshot"]["reason"])
        assert (state["epoch"], state["revision"]) == (told["epoch"], told["revision"])
        assert epoch != told["epoch"]
        assert told["skipped"] >= 5
        assert not sidecar.events("journal_has_no_mark")
        assert last + 2 == put(sidecar)
