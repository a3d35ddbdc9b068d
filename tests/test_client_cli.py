"""The command line as a client: what it prints for people and for scripts, and how it ends."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys

import pytest
from holders import entry
from receiver import Receiver, answer
from secrecy import keeps_tokens, token
from sidecar_process import eventually, free_port, on_disk, served, written

PROGRAM = [sys.executable, "-m", "sidecar"]
MOVES = {"BOOTING": ["IDLE"], "IDLE": ["ACTIVE", "SHUTDOWN"], "ACTIVE": ["IDLE"]}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A sidecar whose state these tests only read."""
    with served(written(tmp_path_factory.mktemp("plain"))) as sidecar:
        yield sidecar


@pytest.fixture
def sidecar(start):
    """A sidecar of this test alone."""
    return start(fsm={"transitions": MOVES}, store={"max_subscribers": 1})


def run(sidecar, *arguments, **environment):
    """The exit code, and what went to standard output and to standard error."""
    url = {"FSM_SIDECAR_URL": f"http://{sidecar.api.address}"} if sidecar else {}
    ended = subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=20,
        env=os.environ | url | environment,
        stdin=subprocess.DEVNULL,
    )
    assert "Traceback" not in ended.stderr
    assert keeps_tokens(ended.stdout + ended.stderr)
    return ended.returncode, ended.stdout, ended.stderr


def answered(sidecar, *arguments):
    """The JSON document that it prints when all is well."""
    code, out, err = run(sidecar, *arguments, "--json")
    assert (0, "") == (code, err)
    return json.loads(out)


# --- reading ---


def test_state_get_tells_the_state(plain):
    """In words for people; for scripts what the API answers; and one field alone."""
    code, out, err = run(plain, "state", "get")
    told = dict(line.split(maxsplit=1) for line in out.splitlines())

    assert (0, "", "BOOTING", "initial_boot", "COLD_START") == (code, err, told["state"], told["by"], told["reason"])
    assert plain.api.get("/v1/state").json == answered(plain, "state", "get")
    assert (0, "BOOTING\n", "") == run(plain, "state", "get", "--field", "state")
    assert (0, "1\n", "") == run(plain, "state", "get", "--field", "revision", "--json")
    assert (1, "", "") == run(plain, "state", "get", "--field", "context_data.battery")


def test_an_empty_store_is_a_no(start):
    """Exit 1, and what to do."""
    code, out, err = run(start(fsm={"initial": None}), "state", "get")

    assert (1, "") == (code, out)
    assert "fsm-sidecar state set" in err


def test_history_tells_the_newest_oldest_first(sidecar):
    """As many as are asked for; or those behind a revision."""
    for n in range(1, 6):
        sidecar.api.put("/v1/state", {"state": "IDLE", "reason": f"write {n}"})

    assert ["write 4", "write 5"] == [
        line.split(maxsplit=6)[-1] for line in run(sidecar, "state", "history", "--limit", 2)[1].splitlines()[1:]
    ]
    page = answered(sidecar, "state", "history", "--after", 1, "--limit", 2)
    assert [2, 3] == [entry["revision"] for entry in page["entries"]]
    assert [1, 2, 3, 4, 5, 6] == [entry["revision"] for entry in answered(sidecar, "state", "history")["entries"]]


@pytest.mark.parametrize("place", [(), ("--after", 1)])
def test_a_history_of_large_states_is_told_to_its_end(start, place):
    """They come on several pages; for who asks, it is one."""
    sidecar = start()
    for _ in range(8):
        sidecar.api.put("/v1/state", {"state": "IDLE", "context_data": {"x": "x" * 200_000}})
    told = answered(sidecar, "state", "history", "--limit", 7, *place)

    assert [n + (not place) for n in range(2, 9)] == [entry["revision"] for entry in told["entries"]]
    assert 9 == told["head"]


def test_a_field_is_told_to_a_script_as_it_is(sidecar):
    """Characters that steer a terminal are kept from terminals only."""
    text = "a\nb\u00a0c\u200d\x1b[31m"
    sidecar.api.put("/v1/state", {"state": "IDLE", "context_data": {"text": text}})
    field = ("state", "get", "--field", "context_data.text")

    assert f"{text}\n" == run(sidecar, *field)[1]
    assert "a\ufffdb\ufffdc\ufffd\ufffd[31m" == on_terminal(sidecar, *field).strip()


@pytest.mark.parametrize("command", ["state get >&-", "health >&-", "state get --field nothing >&- 2>&-", "heartbeat >&-"])
def test_a_closed_output_is_no_fault(sidecar, command):
    """Whoever wants no words gets the exit code."""
    program = f"{sys.executable} -m sidecar {command}"
    ended = subprocess.run(
        ["sh", "-c", program],
        env=os.environ | {"FSM_SIDECAR_URL": f"http://{sidecar.api.address}"},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (int("nothing" in command), "") == (ended.returncode, ended.stderr)


def test_health_is_an_exit_code(start, plain):
    """0 when it is healthy; 1 and the reason when it is not."""
    code, out, err = run(plain, "health")
    assert (0, "healthy", "") == (code, out.splitlines()[0], err)
    code, out, _ = run(start(fsm={"initial": None}), "health")

    assert (1, "unhealthy") == (code, out.splitlines()[0])
    assert "issue: store not initialised" in out


# --- writing ---


def test_state_set_and_transition_write(sidecar, tmp_path):
    """With what belongs to it, from the command line or from a file."""
    (tmp_path / "context.json").write_text('{"battery": 0.87}')
    code, out, _ = run(
        sidecar, "state", "set", "IDLE", "--reason", "ready", "--source", "ops", "--context-data", f"@{tmp_path}/context.json"
    )
    assert (0, "IDLE, version 1, revision 2\n") == (code, out)
    moved = answered(sidecar, "state", "transition", "ACTIVE", "--from", "IDLE", "--reason", "go")["snapshot"]

    assert ("ACTIVE", "IDLE", "go", "cli", {"battery": 0.87}) == (
        moved["state"],
        moved["prev_state"],
        moved["reason"],
        moved["source_module"],
        moved["context_data"],
    )


CONDITIONS = [("--if-version", "0"), ("--if-match", "{epoch}-0"), ("--if-match", '"{epoch}-0"')]


@pytest.mark.parametrize("condition", CONDITIONS, ids=" ".join)
def test_who_expects_another_version_gets_a_conflict(sidecar, condition):
    """Exit 3, with the winner; the one who expects the right one writes."""
    epoch = sidecar.api.get("/v1/state").json["epoch"]
    write = ("state", "set", "IDLE", condition[0], condition[1].format(epoch=epoch))
    assert 0 == run(sidecar, *write)[0]
    code, out, err = run(sidecar, *write)

    assert (3, "") == (code, out)
    assert "Another write came first" in err
    assert "IDLE, written by cli" in err
    assert 3 == run(sidecar, "state", "set", "IDLE", "--if-none")[0]


REFUSED = [
    (("state", "transition", "SHUTDOWN"), 4, "from BOOTING: IDLE"),
    (("state", "set", "ASLEEP"), 4, "expected one of"),
    (("state", "set", "IDLE", "--key", "é"), 4, "Idempotency-Key"),
    (("state", "transition", "IDLE", "--from", "ACTIVE"), 3, "state ACTIVE"),
    (("subscribers", "remove", "nobody"), 1, "subscribers list"),
    (("subscribers", "resume", "nobody"), 1, "no subscriber has this id"),
    (("subscribers", "add", "x", "ftp://x"), 4, "expected an http or https URL"),
    (("subscribers", "add", "a/../b", "http://127.0.0.1:9/"), 4, "id"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "said"), REFUSED, ids=lambda value: " ".join(value) if isinstance(value, tuple) else None
)
def test_a_refusal_has_its_exit_code_and_says_what_is_wrong(sidecar, arguments, code, said):
    """On standard error; nothing is changed. For scripts the problem is on standard output."""
    ended, out, err = run(sidecar, *arguments)
    as_json = run(sidecar, *arguments, "--json")

    assert (code, "") == (ended, out)
    assert said in err
    assert (code, 4) == (as_json[0], json.loads(as_json[1])["status"] // 100)
    assert 0 == sidecar.api.get("/v1/state").json["snapshot"]["version"]


def test_a_key_makes_a_write_count_once(sidecar):
    """And says that it was the first answer again."""
    write = ("state", "set", "IDLE", "--key", "once")

    assert "IDLE, version 1, revision 2\n" == run(sidecar, *write)[1]
    assert "IDLE, version 1, revision 2 (as the first time: this key was used before)\n" == run(sidecar, *write)[1]


def test_state_patch_changes_what_it_names(sidecar):
    """And leaves the rest, the reason too unless there is a new one."""
    data = ("--context-data", '{"battery": 0.87, "goal": 3}')
    assert 0 == run(sidecar, "state", "set", "IDLE", "--reason", "ready", *data)[0]
    change = ("state", "patch", "--context-data", '{"battery": 0.85, "goal": null}')

    assert (0, "IDLE, version 2, revision 3\n", "") == run(sidecar, *change)
    patched = answered(sidecar, "state", "get")["snapshot"]
    assert ("ready", "cli", {"battery": 0.85}) == (patched["reason"], patched["source_module"], patched["context_data"])
    assert "drained" == answered(sidecar, *change, "--reason", "drained")["snapshot"]["reason"]
    assert 3 == run(sidecar, *change, "--if-version", 1)[0]


DRY = [("set", "IDLE"), ("transition", "IDLE"), ("patch", "--reason", "why")]


@pytest.mark.parametrize("write", DRY, ids=" ".join)
def test_a_dry_run_tells_and_does_not_write(sidecar, write):
    """What would be there, or the refusal."""
    state = "BOOTING" if write[0] == "patch" else "IDLE"

    assert (0, f"{state}, version 1, not written: a dry run\n", "") == run(sidecar, "state", *write, "--dry-run")
    assert answered(sidecar, "state", *write, "--dry-run")["dry_run"]
    assert 4 == run(sidecar, "state", "transition", "SHUTDOWN", "--dry-run")[0]
    assert 1 == sidecar.api.get("/v1/state").json["revision"]


# --- subscribers ---


def test_a_write_waits_for_acknowledgements(sidecar, hook):
    """Exit 1 when they are not complete in time: it says who is missing, and the write counts all the same."""
    hook.answers(answer(200), answer(200), answer(503))
    sidecar.api.put("/v1/subscribers/console", {"url": hook.url})

    first = run(sidecar, "state", "transition", "IDLE", "--wait-acks", "all", "--acks-timeout", "20s")
    second = run(sidecar, "state", "set", "IDLE", "--wait-acks", "1", "--acks-timeout", "100ms")
    assert (0, "IDLE, version 1, revision 2\nacknowledged by 1 of 1\n", "") == first
    assert (1, "IDLE, version 2, revision 3\nacknowledged by 0 of 1; not by console\n", "") == second
    code, out, _ = run(sidecar, "state", "patch", "--reason", "on", "--wait-acks", "all", "--acks-timeout", "100ms", "--json")
    assert (1, ["console"]) == (code, json.loads(out)["acks"]["waiting_for"])


def test_a_script_is_the_only_writer(start):
    """It takes the lease, shows its token by flag or environment, and is told when another one has taken over."""
    sidecar = start(writes={"writers": "exclusive"})
    code, _, err = run(sidecar, "state", "set", "IDLE")
    assert 4 == code
    assert "fsm-sidecar writer take" in err

    _, token, _ = run(sidecar, "writer", "take", "pod-1", "--ttl", "1m")
    mine = {"FSM_SIDECAR_WRITER_TOKEN": token.strip()}
    assert 0 == run(sidecar, "state", "set", "IDLE", **mine)[0]
    assert 0 == run(sidecar, "state", "patch", "--reason", "on", "--writer-token", token.strip())[0]
    assert "heard" in run(sidecar, "heartbeat", "--ttl", "10s", **mine)[1]
    assert (0, token) == run(sidecar, "writer", "take", "pod-1", **mine)[:2]
    assert "pod-1" == answered(sidecar, "writer", "get")["holder"]["name"]
    assert "only the writer may write\nthe writer is pod-1, until" in run(sidecar, "writer", "get")[1]

    code, _, err = run(sidecar, "writer", "take", "pod-2")
    assert 4 == code
    assert "--takeover" in err
    assert 0 == run(sidecar, "writer", "take", "pod-2", "--takeover")[0]
    for late in (["state", "set", "IDLE"], ["heartbeat"], ["writer", "take", "pod-1"]):
        code, _, err = run(sidecar, *late, **mine)
        assert 4 == code
        assert "the writer is pod-2, until " in err


def test_a_lease_that_is_over_is_told_as_free(sidecar):
    """Not as if its holder had it still."""
    run(sidecar, "writer", "take", "pod-1", "--ttl", "1ms")

    assert "the lease is free; pod-1 had it until " in run(sidecar, "writer", "get")[1]


def test_subscribers_live_from_add_to_remove(sidecar, hook, tmp_path):
    """Registered with a secret shown once, listed, pinged, changed, resumed, removed; one too many is refused."""
    code, out, _ = run(sidecar, "subscribers", "add", "console", hook.url)
    assert 0 == code
    assert "console is registered: active" in out
    assert "its secret, shown this once: whsec_" in out
    hook.wait_for_revision(1)
    assert 0 == run(sidecar, "subscribers", "ping", "console")[0]
    changed = answered(
        sidecar, "subscribers", "add", "console", hook.url, "--on", "transition", "--state", "IDLE", "--max-lag", 9
    )
    assert (["transition"], ["IDLE"], 9) == (changed["on"], changed["states"], changed["max_lag"])
    resumed = answered(sidecar, "subscribers", "resume", "console")
    assert {key: changed[key] for key in ("url", "on", "states", "max_lag")} == {
        key: resumed[key] for key in ("url", "on", "states", "max_lag")
    }
    assert "console" in run(sidecar, "subscribers", "list")[1]
    assert 4 == run(sidecar, "subscribers", "add", "another", hook.url)[0]
    hook.answers(500)
    assert 1 == run(sidecar, "subscribers", "ping", "console")[0]
    assert (0, "console is removed\n", "") == run(sidecar, "subscribers", "remove", "console")
    assert {"subscribers": []} == answered(sidecar, "subscribers", "list")


def test_who_was_evicted_is_listed_with_the_reason(sidecar, hook):
    """A receiver that says it is gone."""
    hook.answers(410)
    run(sidecar, "subscribers", "add", "console", hook.url)
    eventually(lambda: sidecar.api.get("/v1/subscribers/console").json["evicted"])

    assert "evicted (gone)" in run(sidecar, "subscribers", "list")[1]


def test_subscribers_set_changes_what_it_names(sidecar, hook):
    """All other settings stay, and so does the secret; a change of nothing is wrong usage."""
    before = answered(sidecar, "subscribers", "add", "console", hook.url, "--on", "transition", "--answers-within", "2s")
    del before["secret"]
    hook.wait_for_revision(1)
    changed = answered(sidecar, "subscribers", "set", "console", "--max-lag", 9, "--endpoint", f"{hook.url}/new")
    settings = ("url", "timeout", "max_lag", "on", "states", "max_batch")

    assert {"url": f"{hook.url}/new", "max_lag": 9} == {key: changed[key] for key in settings if changed[key] != before[key]}
    assert "secret" not in changed
    code, out, err = run(sidecar, "subscribers", "set", "console")
    assert (64, "") == (code, out)
    assert "nothing to change" in err
    assert 1 == run(sidecar, "subscribers", "set", "nobody", "--max-lag", 9)[0]


def test_subscribers_rotate_makes_a_new_secret(sidecar, hook):
    """Shown this once, with the time until which the one before signs too: for people, and for scripts."""
    first = answered(sidecar, "subscribers", "add", "console", hook.url)["secret"]
    code, out, err = run(sidecar, "subscribers", "rotate", "console")
    second = answered(sidecar, "subscribers", "rotate", "console")

    assert (0, "") == (code, err)
    assert out.startswith("its new secret, shown this once: whsec_")
    assert "the one before signs too until " in out
    assert first not in out
    assert second["secret"] not in out
    assert 1 == run(sidecar, "subscribers", "rotate", "nobody")[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("subscribers", "list"), "`fsm-sidecar subscribers add` registers a webhook"),
        (("state", "conflicts"), "no write has met another one"),
        (("state", "history", "--after", 1), "no revision is there"),
    ],
    ids=lambda given: " ".join(map(str, given)) if isinstance(given, tuple) else "",
)
def test_where_there_is_nothing_it_says_so(plain, arguments, said):
    """In words, in place of columns without rows."""
    code, out, err = run(plain, *arguments)

    assert (0, 1, "") == (code, len(out.splitlines()), err)
    assert said in out


def test_a_secret_comes_from_a_file(sidecar, hook, tmp_path):
    """Never from the command line, where everybody sees it; then it is not shown."""
    (tmp_path / "secret").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    code, out, _ = run(sidecar, "subscribers", "add", "console", hook.url, "--secret-file", tmp_path / "secret")

    assert (0, False) == (code, "whsec_" in out)
    assert 64 == run(sidecar, "subscribers", "add", "console", hook.url, "--secret-file", tmp_path / "missing")[0]


# --- where it is ---


def test_it_finds_the_sidecar_by_flag_environment_and_config_file(plain, tmp_path):
    """In this order."""
    url, nowhere = f"http://{plain.api.address}", f"http://127.0.0.1:{free_port()}"
    config = written(tmp_path, api={"listen": plain.api.address})
    get = ("state", "get", "--field", "state")

    assert 0 == run(None, *get, "--url", url, "--config", config, FSM_SIDECAR_URL=nowhere)[0]
    assert 0 == run(None, *get, "--url", plain.api.address)[0]
    assert 0 == run(None, *get, "--config", config, FSM_SIDECAR_URL=nowhere)[0]
    assert 0 == run(None, *get, FSM_SIDECAR_URL=url)[0]
    assert 69 == run(None, *get, FSM_SIDECAR_URL=nowhere)[0]


def test_the_config_file_tells_the_token_too(tmp_path):
    """Of several the one that may do most; a flag says another one."""
    scopes = {"reader": ["state:read"], "all": ["admin"], "agent": ["state:read", "state:write"]}
    tokens = [entry(tmp_path, name, each, token(name)) for name, each in scopes.items()]
    path = written(tmp_path, api={"listen": f"127.0.0.1:{free_port()}", "tokens": tokens})
    with served(path):
        assert 0 == run(None, "subscribers", "list", "--config", path)[0]
        assert 0 == run(None, "state", "set", "IDLE", "--config", path)[0]
        assert 4 == run(None, "state", "set", "IDLE", "--config", path, "--token-file", tokens[0]["file"])[0]


def test_it_speaks_over_a_unix_socket(tmp_path):
    """By flag, and as the config file has it."""
    socket = f"unix:{tmp_path}/api.sock"
    config = written(tmp_path, api={"listen": socket})
    with served(config):
        assert (0, "BOOTING\n", "") == run(None, "state", "get", "--field", "state", "--url", socket)
        assert (0, "BOOTING\n", "") == run(None, "state", "get", "--field", "state", "--config", config)


WRONG = [
    ("state", "get", "--url", "ftp://x"),
    ("state", "get", "--url", "http://user:secret@x"),
    ("state", "get", "--url", "unix:relative"),
    ("state", "get", "--timeout", "soon"),
    ("state", "get", "--config", "missing.yaml"),
    ("state", "get", "--token-file", "missing"),
    ("state", "get", "--ca-file", "missing"),
    ("state", "set"),
    ("state", "set", "IDLE", "--if-version", "-1"),
    ("state", "set", "IDLE", "--if-match", "€"),
    ("state", "set", "IDLE", "--key", "a\nb"),
    ("state", "set", "IDLE", "--if-version", "1", "--if-none"),
    ("state", "set", "IDLE", "--context-data", "[1]"),
    ("state", "set", "IDLE", "--context-data", "@missing"),
    ("state", "watch", "--for", "soon"),
    ("state", "patch"),
    ("state", "set", "IDLE", "--writer-token", ""),
    ("heartbeat", "--writer-token", ""),
    ("state", "watch", "--count", "0"),
    ("state", "watch", "--until", "IDEL"),
    ("state", "history", "--limit", "0"),
    ("completion", "tcsh"),
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_usage_is_told(plain, arguments):
    """Exit 64, nothing on standard output, no password repeated."""
    code, out, err = run(plain, *arguments)

    assert (64, "") == (code, out)
    assert err
    assert "secret" not in err


def test_who_cannot_be_reached_is_told(tmp_path):
    """Exit 69, the address, and what to look at."""
    code, out, err = run(None, "state", "get", "--url", f"unix:{tmp_path}/nobody.sock")

    assert (69, "") == (code, out)
    assert "nobody.sock cannot be reached (No such file or directory)" in err
    assert "is it running?" in err


def test_who_is_no_sidecar_is_told(plain):
    """The ops listener answers, but not as the API does."""
    code, _, err = run(None, "state", "get", "--url", f"http://{plain.ops.address}")

    assert 4 == code
    assert "is this the API's listener?" in err


# --- on a terminal ---


def on_terminal(sidecar, *arguments, **environment):
    """What it writes to a terminal."""
    ours, theirs = pty.openpty()
    env = os.environ | {"FSM_SIDECAR_URL": f"http://{sidecar.api.address}", "TERM": "xterm"} | environment
    with subprocess.Popen([*PROGRAM, *arguments], stdout=theirs, env=env) as process:
        os.close(theirs)
        written = b""
        try:
            while chunk := os.read(ours, 4096):
                written += chunk
        except OSError:  # Linux's way to say that the other end is closed
            pass
    os.close(ours)
    assert 0 == process.returncode
    return written.decode()


def test_colour_is_for_terminals(plain):
    """Not with NO_COLOR, on a dumb terminal, or in a pipe."""
    assert "\x1b[1mBOOTING\x1b[0m" in on_terminal(plain, "state", "get")
    for quiet in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in on_terminal(plain, "state", "get", **quiet)
    assert "\x1b" not in run(plain, "state", "get")[1]


def test_a_writers_text_never_steers_the_terminal(sidecar):
    """Control characters are not printed, in whatever column."""
    sidecar.api.put("/v1/state", {"state": "IDLE", "reason": "\x1b]0;gotcha\x07", "source_module": "\x1b[2J"})

    for command in (("state", "get"), ("state", "history"), ("state", "conflicts")):
        assert not {"\x07", "\x1b[2J", "\x1b]"} & set(run(sidecar, *command)[1])
        assert "\x1b" not in run(sidecar, *command)[1]


def test_a_closed_pipe_ends_it_quietly(sidecar):
    """No traceback, and no answer claimed."""
    for _ in range(50):
        sidecar.api.put("/v1/state", {"state": "IDLE", "reason": "x" * 4000})
    env = os.environ | {"FSM_SIDECAR_URL": f"http://{sidecar.api.address}"}
    with subprocess.Popen(
        [*PROGRAM, "state", "history", "--limit", "50"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as process:
        process.stdout.close()
        assert (74, b"") == (process.wait(20), process.stderr.read())


def test_it_imports_little(plain):
    """A command that a person waits for: no aiohttp, no YAML, no store."""
    code = (
        "import sys; from sidecar.cli import main; main(['state', 'get']);"
        "print(sorted({'aiohttp', 'yaml', 'structlog', 'prometheus_client', 'sqlite3'} & set(sys.modules)))"
    )
    env = os.environ | {"FSM_SIDECAR_URL": f"http://{plain.api.address}"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)

    assert "[]" == ended.stdout.splitlines()[-1]


# --- watching ---


class Watching:
    """`fsm-sidecar state watch` as a process; its lines as they come."""

    def __init__(self, address, *arguments):
        self._popen = subprocess.Popen(
            [*PROGRAM, "state", "watch", "--url", f"http://{address}", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._popen.kill()
        self._popen.communicate()

    def line(self):
        return self._popen.stdout.readline().rstrip("\n")

    def send(self, number):
        self._popen.send_signal(number)

    def end(self):
        """The exit code, the rest of standard output, and standard error."""
        out, err = self._popen.communicate(timeout=20)
        assert "Traceback" not in err
        return self._popen.returncode, out, err


def test_watch_prints_each_state_as_it_is_written(sidecar):
    """The current one first; Ctrl-C ends it with 130 and without a word."""
    with Watching(sidecar.api.address) as watching:
        first = watching.line()
        run(sidecar, "state", "transition", "IDLE", "--reason", "ready")
        second = watching.line()
        watching.send(signal.SIGINT)

        assert (130, "", "") == watching.end()
    assert ["r1", "v0", "BOOTING", "initial_boot", "COLD_START"] == first.split()[1:]
    assert ["r2", "v1", "BOOTING", "→", "IDLE", "cli", "ready"] == second.split()[1:]


def test_watch_gives_scripts_one_document_for_each_line(sidecar):
    """With what the stream says; it ends after so many."""
    with Watching(sidecar.api.address, "--json", "--count", "2") as watching:
        first = json.loads(watching.line())
        sidecar.api.put("/v1/state", {"state": "IDLE"})
        second = json.loads(watching.line())

        assert (0, "", "") == watching.end()
    assert [("state", 1, True), ("state", 2, False)] == [
        (each["event"], each["revision"], each["initial"]) for each in (first, second)
    ]
    assert sidecar.api.get("/v1/state").json["snapshot"] == second["snapshot"]


def test_watch_waits_for_a_state(sidecar):
    """0 when it is reached, 1 when the time is over before."""
    with Watching(sidecar.api.address, "--until", "IDLE", "--for", "20s") as watching:
        watching.line()
        run(sidecar, "state", "transition", "IDLE")
        assert 0 == watching.end()[0]
    assert 0 == run(sidecar, "state", "watch", "--until", "IDLE")[0]
    assert 1 == run(sidecar, "state", "watch", "--until", "ACTIVE", "--for", "300ms")[0]
    assert 0 == run(sidecar, "state", "watch", "--for", "300ms")[0]


def test_watch_draws_an_arrow_where_the_agent_moved(sidecar):
    """And none where only its data changed, or its reason."""
    with Watching(sidecar.api.address, "--count", "4") as watching:
        watching.line()
        run(sidecar, "state", "transition", "IDLE")
        run(sidecar, "state", "patch", "--context-data", '{"a": 1}')
        run(sidecar, "state", "transition", "ACTIVE")
        _, out, _ = watching.end()

    assert ["BOOTING → IDLE  cli", "IDLE  cli", "IDLE → ACTIVE  cli"] == [line.split("  ", 2)[2] for line in out.splitlines()]


def test_an_idle_watch_keeps_its_connection(sidecar):
    """`--timeout` is for answers; of a stream, silence is the rule."""
    code, _, err = run(sidecar, "state", "watch", "--timeout", "100ms", "--for", "1s")
    assert (0, "") == (code, err)


def test_watch_goes_on_over_a_restart_and_shows_a_gap(tmp_path):
    """What was written meanwhile comes; another journal is told; both on one watch, each notice on standard error."""
    address = f"127.0.0.1:{free_port()}"
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    config, other = (written(folder, api={"listen": address}, journal=on_disk(folder)) for folder in folders)
    with served(config) as sidecar:
        watching = Watching(address, "--json", "--count", "4")
        got = [watching.line()]
        sidecar.api.put("/v1/state", {"state": "IDLE"})
        got.append(watching.line())
    with served(config) as sidecar:
        sidecar.api.put("/v1/state", {"state": "ACTIVE"})
        got.append(watching.line())
    with watching, served(other):
        got += [watching.line(), watching.line()]
        code, out, err = watching.end()
    events = [json.loads(line) for line in got]

    assert (0, "") == (code, out)
    assert [("state", 1), ("state", 2), ("state", 3), ("gap", 1), ("state", 1)] == [
        (each["event"], each["revision"]) for each in events
    ]
    assert 2 == err.count("trying again")


def test_watch_says_that_nobody_is_there():
    """At the start; later it would wait."""
    code, out, err = run(None, "state", "watch", "--url", f"127.0.0.1:{free_port()}")

    assert (69, "") == (code, out)
    assert "cannot be reached" in err


NOT_OURS = [b"<html>", b"{}", b"[]", b"5", b'{"snapshot": 5}', b"event: state\ndata: {}\n\n", b"event: state\ndata: x\n\n"]


@pytest.mark.parametrize("body", NOT_OURS, ids=repr)
async def test_an_answer_that_is_not_a_sidecars_is_told(body):
    """Whatever the command; never a traceback."""
    async with Receiver(answer(200, body, Connection="close")) as remote:
        for command in (("state", "get"), ("state", "history"), ("subscribers", "list"), ("health",), ("state", "set", "IDLE")):
            code, _, err = await asyncio.to_thread(run, None, *command, FSM_SIDECAR_URL=f"http://127.0.0.1:{remote.port}")
            assert (4, True) == (code, "not as a sidecar" in err)
        if body.startswith(b"event"):
            url = f"http://127.0.0.1:{remote.port}"
            assert 4 == (await asyncio.to_thread(run, None, "state", "watch", "--count", "1", FSM_SIDECAR_URL=url))[0]


def test_a_terminal_that_knows_few_characters_shows_the_rest(sidecar):
    """What it cannot show is a question mark; JSON is ASCII anyway."""
    sidecar.api.put("/v1/state", {"state": "IDLE", "reason": "café →"})

    for ascii_only in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        assert (0, "caf? ?\n", "") == run(sidecar, "state", "get", "--field", "reason", **ascii_only)
        assert "café →" == json.loads(run(sidecar, "state", "get", "--json", **ascii_only)[1])["snapshot"]["reason"]


def test_another_writer_is_no_conflict_to_try_again(start):
    """Where writes are exclusive, exit 4: who repeats on 3 would repeat for ever."""
    code, _, err = run(start(writes={"writers": "exclusive"}), "state", "set", "IDLE")

    assert (4, True) == (code, "POST /v1/writer" in err)


def test_a_token_opens_what_its_scope_says(start, tmp_path):
    """From a file, by flag or environment; without one, or with one for less, exit 4 and what to do. No token in any output."""
    tokens = []
    for name, scope in (("reader", "state:read"), ("writer", "state:write")):
        file = tmp_path / name
        file.write_text(f"{token(name)}\n")
        file.chmod(0o600)
        tokens.append({"name": name, "file": str(file), "scopes": [scope]})
    sidecar = start(api={"listen": "127.0.0.1:0", "tokens": tokens})
    reader, writer = tmp_path / "reader", tmp_path / "writer"

    assert 0 == run(sidecar, "state", "get", "--token-file", reader)[0]
    assert 0 == run(sidecar, "state", "set", "IDLE", FSM_SIDECAR_TOKEN_FILE=str(writer))[0]
    none, less = run(sidecar, "state", "get"), run(sidecar, "state", "set", "IDLE", "--token-file", reader)
    assert (4, 4) == (none[0], less[0])
    assert "--token-file, or FSM_SIDECAR_TOKEN_FILE" in none[2]
    assert "state:write" in less[2]
