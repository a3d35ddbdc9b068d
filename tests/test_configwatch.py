"""The config file is watched: whether the next start would succeed with it, and what it would change."""

import asyncio

import pytest
import structlog

from sidecar import config
from sidecar.config.sections import Health
from sidecar.configwatch import ConfigWatch
from sidecar.tasks import running

GOOD = "health: {stale_after: 5m}\n"


class Watched:
    """A watch that looks all the time, its file, and its log."""

    def __init__(self, path, watch, log):
        self.path, self.watch, self.log = path, watch, log

    async def becomes(self, text=None, **expected):
        """Write the file, or delete it, and wait until that has been seen."""
        if text is None:
            self.path.unlink()
        else:
            fresh = self.path.with_suffix(".new")
            fresh.write_text(text)
            fresh.replace(self.path)  # in one step: nobody sees half a file
        await self.sees(**expected)

    async def sees(self, **expected):
        async with asyncio.timeout(10):
            while {name: getattr(self.watch, name) for name in expected} != expected:  # noqa: ASYNC110  (it tells nobody)
                await asyncio.sleep(0.001)


@pytest.fixture
async def watched(tmp_path):
    path = tmp_path / "sidecar.yaml"
    path.write_text(GOOD)
    watch = ConfigWatch(config.load(str(path)), lambda: config.load(str(path)))
    crashed = asyncio.get_running_loop().create_future()
    with structlog.testing.capture_logs() as log:
        async with running(watch.run(look_seconds=0.001), name="watch", crashed=crashed):
            yield Watched(path, watch, log)


def told(watched):
    return [(line["event"], line["log_level"]) for line in watched.log]


async def test_a_file_that_goes_bad_is_found_out(watched):
    """With every problem, its line and its mend; and once, however often it is looked at."""
    await watched.becomes("health: {stale_after: 5}\nwebhook: {}\n", valid=False, changed=True)
    for _ in range(20):
        await asyncio.sleep(0.001)
    (line,) = watched.log

    assert ("config_file_invalid", "warning") == (line["event"], line["log_level"])
    assert 2 == len(line["problems"])
    assert "health.stale_after" in line["problems"][0]


async def test_a_mended_file_is_valid_again(watched):
    """As it was, or changed: then a restart would bring it into force."""
    await watched.becomes("nonsense: 1", valid=False)
    await watched.becomes(GOOD, valid=True, changed=False)
    await watched.becomes("health: {stale_after: 7m}\n", valid=True, changed=True)

    assert [("config_file_invalid", "warning"), ("config_file_valid", "info"), ("config_file_valid", "info")] == told(watched)
    assert [False, True] == [line["changed"] for line in watched.log[1:]]


async def test_what_reads_the_same_is_no_change(watched):
    """Comments, order and spelling are not in force."""
    watched.path.write_text("# another comment\nhealth:\n  stale_after: 300s\n")
    for _ in range(20):
        await asyncio.sleep(0.001)

    assert (True, False, []) == (watched.watch.valid, watched.watch.changed, watched.log)


async def test_a_file_that_is_gone_is_bad(watched):
    """The next start would fail."""
    await watched.becomes(None, valid=False)

    assert [("config_file_invalid", "warning")] == told(watched)


async def test_a_secret_that_is_gone_is_found_out(tmp_path, watched):
    """It is part of what a start needs. Its content is never told."""
    secret = tmp_path / "secret"
    secret.write_text("whsec_" + "A" * 32)
    secret.chmod(0o600)
    text = f'subscribers: [{{id: a, url: "http://127.0.0.1:1/", secret_file: "{secret}"}}]\n'
    await watched.becomes(text, valid=True, changed=True)
    secret.unlink()
    await watched.sees(valid=False)

    assert "secret_file" in watched.log[-1]["problems"][0]
    assert "AAAA" not in str(watched.log)


def test_equal_configurations_have_equal_numbers():
    """Exactly kept by a float, so that a fleet can be compared."""
    one, same = ConfigWatch(config.Config(), None), ConfigWatch(config.load(None), None)
    other = ConfigWatch(config.Config(health=Health(conflict_ratio=0.2)), None)

    assert one.hash == same.hash == int(float(one.hash))
    assert one.hash != other.hash
    assert (True, False) == (one.valid, one.changed)
