"""The config file is followed: what can change while running is taken over, the rest is told, a bad file changes nothing."""

import asyncio
import json
import os
import signal

import pytest
import structlog
from scraping import of
from sidecar_process import BASE, eventually, on_disk, running

from sidecar import config
from sidecar.config.sections import Health
from sidecar.configwatch import ConfigWatch, Loaded
from sidecar.tasks import running as running_task

GOOD = "health: {stale_after: 5m}\n"


def in_one_step(path, text):
    """Nobody sees half a file."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


# --- the watch alone ---


class Watched:
    """A watch that looks all the time and takes over `health`, its file, and its log."""

    def __init__(self, path):
        self.path = path
        self.looks = 0
        path.write_text(GOOD)
        self.watch = ConfigWatch(self.load(), self.load, self.apply)

    def load(self):
        self.looks += 1
        return Loaded(config.load(str(self.path)), [])

    def apply(self, found):
        return config.Config(health=found.config.health)

    async def becomes(self, text, **expected):
        """Write the file, and wait until that has been seen."""
        in_one_step(self.path, text)
        async with asyncio.timeout(10):
            while {name: getattr(self.watch, name) for name in expected} != expected:  # noqa: ASYNC110  (it tells nobody)
                await asyncio.sleep(0.001)

    async def looked(self):
        """Wait until it has been looked at twice more, from the beginning to the end."""
        enough = self.looks + 3
        async with asyncio.timeout(10):
            while self.looks < enough:  # noqa: ASYNC110  (it tells nobody)
                await asyncio.sleep(0.001)

    @property
    def told(self):
        return [(line["event"], line["log_level"]) for line in self.log]


@pytest.fixture
async def watched(tmp_path):
    watched = Watched(tmp_path / "sidecar.yaml")
    crashed = asyncio.get_running_loop().create_future()
    with structlog.testing.capture_logs() as watched.log:
        async with running_task(watched.watch.run(look_seconds=0.001), name="watch", crashed=crashed):
            yield watched


async def test_a_bad_file_changes_nothing_and_is_told_once(watched):
    """With every problem, its line and its mend, however often it is looked at."""
    before = watched.watch.in_force, watched.watch.hash, watched.watch.loaded_at
    await watched.becomes("health: {stale_after: 5}\nwebhook: {}\n", valid=False)
    await watched.looked()
    (line,) = watched.log

    assert ("config_file_invalid", "warning", 2) == (line["event"], line["log_level"], len(line["problems"]))
    assert "health.stale_after" in line["problems"][0]
    assert before == (watched.watch.in_force, watched.watch.hash, watched.watch.loaded_at)


async def test_another_problem_is_news(watched):
    """And so is a mended file."""
    await watched.becomes("nonsense: 1", valid=False)
    await watched.becomes("nonsense: 1\nmore: 2", valid=False)
    async with asyncio.timeout(10):
        while len(watched.log) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await watched.becomes(GOOD, valid=True)

    assert ["config_file_invalid", "config_file_invalid", "config_unchanged"] == [event for event, _ in watched.told]


async def test_what_is_taken_over_is_told_and_what_waits_for_a_restart(watched):
    """By their keys; the hash is that of what is in force."""
    before = watched.watch.hash
    await watched.becomes("health: {stale_after: 7m}\nwrites: {max_queue: 7}\n", waiting=("writes.max_queue",))
    (line,) = watched.log

    assert ("config_reloaded", ["health.stale_after"], ("writes.max_queue",)) == (
        line["event"],
        line["applied"],
        line["needs_restart"],
    )
    assert 420 == watched.watch.in_force.health.stale_after_seconds
    assert before != watched.watch.hash
    await watched.becomes(GOOD, waiting=())
    assert before == watched.watch.hash


async def test_what_reads_the_same_is_no_change(watched):
    """Comments, order and spelling are not in force."""
    in_one_step(watched.path, "# another comment\nhealth:\n  stale_after: 300s\n")
    await watched.looked()

    assert (True, (), []) == (watched.watch.valid, watched.watch.waiting, watched.log)


async def test_a_file_that_is_gone_is_bad(watched):
    """The next start would fail."""
    watched.path.unlink()
    async with asyncio.timeout(10):
        while watched.watch.valid:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    assert [("config_file_invalid", "warning")] == watched.told


@pytest.mark.parametrize("with_file", [True, False])
async def test_whoever_asks_is_answered(watched, with_file):
    """Also when there is nothing to do, and where there is no file."""
    watch = watched.watch if with_file else ConfigWatch(watched.load(), None, watched.apply)
    crashed = asyncio.get_running_loop().create_future()
    async with running_task(watch.run(look_seconds=3600), name="asked", crashed=crashed), asyncio.timeout(10):
        watch.ask()
        while not watched.log:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    assert ("config_unchanged", "info") == watched.told[0]


def test_equal_configurations_have_equal_numbers():
    """Exactly kept by a float, so that a fleet can be compared."""

    async def number(settings):
        return ConfigWatch(Loaded(settings, []), None, lambda found: found.config).hash

    one, same = asyncio.run(number(config.Config())), asyncio.run(number(config.load(None)))
    other = asyncio.run(number(config.Config(health=Health(conflict_ratio=0.2))))

    assert one == same == int(float(one))
    assert one != other


# --- the running sidecar ---


class Running:
    """A process and its config file. `reload` changes sections of the file, sends SIGHUP, and gives the log line about it."""

    def __init__(self, folder):
        self.folder = folder
        self.path = folder / "sidecar.yaml"
        self.sections = BASE | {"journal": on_disk(folder)}
        self.write()

    def write(self, **sections):
        self.sections |= sections
        in_one_step(self.path, json.dumps(self.sections))

    def reload(self, event="config_reloaded", **sections):
        count = len(self.process.events(event))
        self.write(**sections)
        self.process.send(signal.SIGHUP)
        return self.process.wait_for(event, count + 1)[-1]

    def secret(self, letter):
        """A secret file, and its path."""
        path = self.folder / "secret"
        in_one_step(path, "whsec_" + letter * 32)
        path.chmod(0o600)
        return str(path)


@pytest.fixture
def sidecar(tmp_path):
    sidecar = Running(tmp_path)
    with running(sidecar.path) as sidecar.process:
        sidecar.process.wait_for("ready")
        yield sidecar


def subscribers(sidecar):
    """Id → status, as the API tells them."""
    return {each["id"]: each["status"] for each in sidecar.process.api.get("/v1/subscribers").json["subscribers"]}


def test_subscribers_come_change_and_go_without_a_restart(sidecar, hook):
    """A new one gets the current state; a changed URL gets the next revision; one that is no longer there is not served."""
    one = {"id": "console", "url": hook.url}
    assert ["subscribers"] == sidecar.reload(subscribers=[one])["applied"]
    first = hook.wait_for(1)[0]
    sidecar.reload(subscribers=[one | {"url": hook.url + "/elsewhere"}])
    sidecar.process.api.put("/v1/state", {"state": "IDLE"})
    second = hook.wait_for(2)[1]
    sidecar.reload(subscribers=[])
    sidecar.process.api.put("/v1/state", {"state": "ACTIVE"})

    assert (True, "/hook") == (first.data["initial"], first.target)
    assert ("IDLE", "/hook/elsewhere") == (second.data["snapshot"]["state"], second.target)
    assert {"console": "evicted"} == subscribers(sidecar)
    assert 2 == len(hook.got)


def test_one_who_waits_is_tried_again_when_its_url_is_mended(sidecar, hook):
    """At once, not at the end of its pause."""
    sidecar.write(webhooks={"retry": ["1h"]})
    sidecar.process.stop()
    with running(sidecar.path) as sidecar.process:
        sidecar.process.wait_for("ready")
        hook.answers(500)
        sidecar.reload(subscribers=[{"id": "console", "url": hook.url}])
        eventually(lambda: subscribers(sidecar) == {"console": "degraded"})
        hook.answers(200)
        sidecar.reload(subscribers=[{"id": "console", "url": hook.url + "/mended"}])

        assert eventually(lambda: [got for got in hook.got if got.target == "/hook/mended"])


def test_a_rotated_secret_is_taken_over(sidecar, hook):
    """The file says the same, and its secret file another secret: both sign for the overlap, the new one first."""
    entry = {"id": "console", "url": hook.url, "secret_file": sidecar.secret("A")}
    sidecar.reload(subscribers=[entry])
    before = hook.wait_for(1)[0].headers["webhook-signature"].split()
    sidecar.secret("B")
    line = sidecar.reload()
    sidecar.process.api.put("/v1/state", {"state": "IDLE"})
    after = hook.wait_for(2)[1].headers["webhook-signature"].split()

    assert (1, 2) == (len(before), len(after))
    assert ["subscribers"] == line["applied"]
    assert not [text for text in ("A" * 32, "B" * 32) if text in sidecar.process.stderr]


def test_thresholds_of_health_change(sidecar):
    """At the next look at it, and in what is expected of the agent."""
    sidecar.process.api.put("/v1/state", {"state": "IDLE"}, if_none_match="*")
    sick = sidecar.process.api.get("/v1/health").json["healthy"]
    line = sidecar.reload(health={"conflict_ratio": 1.0, "update_expected": True})

    assert (False, True) == (sick, sidecar.process.api.get("/v1/health").json["healthy"])
    assert ["health.conflict_ratio", "health.update_expected"] == line["applied"]
    assert 1 == of(sidecar.process, "fsm_update_expected")


def test_the_log_level_changes(sidecar):
    """Both ways."""
    before = of(sidecar.process, "fsm_config_hash")
    sidecar.write(logging={"level": "warning"})
    sidecar.process.send(signal.SIGHUP)
    eventually(lambda: of(sidecar.process, "fsm_config_hash") != before)
    sidecar.process.api.put("/v1/state", {"state": "IDLE"})
    sidecar.process.api.put("/v1/state", {"state": "IDLE"}, if_none_match="*")
    sidecar.process.wait_for("write_rejected")
    silent = sidecar.process.events("state_changed")
    sidecar.reload(logging={"level": "info"})
    sidecar.process.api.put("/v1/state", {"state": "ACTIVE"})

    assert [] == silent
    assert "ACTIVE" == sidecar.process.wait_for("state_changed")[-1]["state"]


def test_what_needs_a_restart_is_told_and_not_done(sidecar):
    """By key in the log, and as a gauge, until the restart."""
    line = sidecar.reload(writes={"max_body": "1KiB"}, fsm={"states": ["BOOTING", "IDLE"]})
    big = sidecar.process.api.put("/v1/state", {"state": "ACTIVE", "reason": "x" * 2000})

    assert (["fsm.states", "writes.max_body"], [], 200) == (sorted(line["needs_restart"]), line["applied"], big.status)
    assert 1 == of(sidecar.process, "fsm_config_file_changed")
    sidecar.reload(writes={}, fsm={})
    assert 0 == of(sidecar.process, "fsm_config_file_changed")


BAD = {
    "an unknown key": {"nonsense": 1},
    "a wrong value": {"health": {"window": "5"}},
    "a rule across keys": {"webhooks": {"connect_timeout": "9s"}},
    "a subscriber that may not be called": {"subscribers": [{"id": "a", "url": "http://169.254.169.254/"}]},
    "a secret that is not there": {"subscribers": [{"id": "a", "url": "http://127.0.0.1:1/", "secret_file": "/nowhere"}]},
}


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_any_more_is_bad(sidecar, make):
    """A folder, a pipe on which nobody writes: told, and nobody waits for it."""
    sidecar.path.unlink()
    make(sidecar.path)
    sidecar.process.send(signal.SIGHUP)
    (line,) = sidecar.process.wait_for("config_file_invalid")

    assert "is not a file" in line["problems"][0]
    assert 0 == of(sidecar.process, "fsm_config_file_valid")
    assert 0 == sidecar.process.stop()


@pytest.mark.parametrize("sections", BAD.values(), ids=BAD)
def test_a_bad_file_keeps_the_old_one_in_force(sidecar, hook, sections):
    """It says why, raises a metric, and the sidecar goes on as before; mended, all is well again."""
    sidecar.reload(subscribers=[{"id": "console", "url": hook.url}])
    good = dict(sidecar.sections)
    line = sidecar.reload("config_file_invalid", **sections)
    bad = of(sidecar.process, "fsm_config_file_valid")
    sidecar.process.api.put("/v1/state", {"state": "IDLE"})
    hook.wait_for(2)
    sidecar.sections = good
    sidecar.reload("config_unchanged")

    assert (0, 1) == (bad, of(sidecar.process, "fsm_config_file_valid"))
    assert line["problems"]
    assert all(str(sidecar.path) in problem or "subscribers[0]" in problem for problem in line["problems"])


def test_sighup_before_anything_is_there_is_survived(tmp_path):
    """A file that is read anyway; and without a file."""
    with running(Running(tmp_path).path) as process:
        eventually(lambda: process.pid)
        process.wait_for("ready")
        for _ in range(50):
            process.send(signal.SIGHUP)
        process.wait_for("config_unchanged")

        assert 0 == process.stop()
