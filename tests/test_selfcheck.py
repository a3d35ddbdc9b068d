"""`fsm-sidecar selfcheck` against real sidecars, and against ones that break their contract: it says so, and what to do."""

import contextlib
import http.server
import json
import re
import signal
from pathlib import Path

import pytest
from documents import blocks
from liar import Lie, lying
from secrecy import keeps_tokens, token
from sidecar_process import eventually, free_port, on_disk, process

from sidecar import asking, cli
from sidecar.selfcheck import roundtrip

OPERATIONS = Path(__file__).parents[1] / "docs" / "operations.md"

CHECKS = {
    "state": "the API tells the state",
    "probes": "the probes are well",
    "write": "a write is taken (dry run)",
    "stale": "a stale write is refused (dry run)",
    "field": "an unknown field is refused",
    "webhook": "a webhook arrives, signed",
    "metrics": "the metrics are there",
    "real": "a write counts, and a stale one does not",
}


@pytest.fixture
def call(capsys):
    """Runs the command in this process; gives its exit code and what it printed."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def run(*arguments):
        try:
            code = cli.main(["selfcheck", *map(str, arguments)])
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def check(call):
    """Checks a sidecar; gives the exit code, and check → ok."""

    def run(sidecar, *arguments):
        code, out, err = call(sidecar.api.address, "--ops", sidecar.ops.address, "--json", *arguments)
        assert "" == err
        verdicts = {each["check"]: each["ok"] for each in json.loads(out)["checks"]}
        return code, {short: verdicts[name] for short, name in CHECKS.items() if name in verdicts}

    return run


def traces(sidecar):
    """What an agent would notice of a visit."""
    paths = ("/v1/state", "/v1/history", "/v1/conflicts", "/v1/subscribers")
    return [sidecar.api.get(path).body for path in paths]


WELL = dict.fromkeys(CHECKS, True)
DRY = {name: True for name in CHECKS if name != "real"}

SIDECARS = {
    "the defaults": {},
    "no state yet": {"fsm": {"initial": None}},
    "preconditions required": {"writes": {"require_precondition": True}},
    "a state that nothing follows": {"fsm": {"transitions": {"IDLE": ["ACTIVE"]}}},
    "other states": {"fsm": {"states": ["OPEN", "SHUT"], "initial": "SHUT"}},
}


# --- one that is well ---


@pytest.mark.parametrize("sections", SIDECARS.values(), ids=SIDECARS)
def test_a_sidecar_that_is_well_is_told_so_and_left_as_it_was(start, check, sections):
    """Exit 0; state, history, conflicts and subscribers are the same to the byte."""
    sidecar = start(**sections)
    before = traces(sidecar)

    assert (0, DRY) == check(sidecar)
    assert before == traces(sidecar)


def test_each_check_is_a_line_for_who_reads(start, call, tmp_path):
    """With what it saw; the last line is the sum."""
    sidecar = start(journal=on_disk(tmp_path))
    code, out, err = call(f"http://{sidecar.api.address}", "--ops", f"http://{sidecar.ops.address}/")
    *lines, last = out.splitlines()

    assert (0, "") == (code, err)
    assert [f"ok       {CHECKS[name]}" for name in DRY] == [line.partition(": ")[0] for line in lines]
    assert f"http://{sidecar.api.address} keeps its contract" == last
    assert "BOOTING, version 0" in lines[0]


def test_the_page_shows_what_is_printed(start, call, tmp_path):
    """docs/operations.md has the lines of today, but for the numbers."""
    sidecar = start(journal=on_disk(tmp_path))
    out = call(sidecar.api.address, "--ops", sidecar.ops.address)[1]
    (shown,) = [block for block in blocks(OPERATIONS.read_text(), "console") if "selfcheck --url http" in block]

    def words(text):
        return re.sub(r"http://\S+|[A-Z]{3,}, version|epoch \w+|\d[\d.]*", "", text).split()

    assert words(out) == words(shown.partition("\n")[2])


def test_a_socket_is_reached_too(tmp_path, start, call):
    """`unix:`; the ops listener has an address of its own."""
    sidecar = start(api={"listen": f"unix:{tmp_path}/api.sock"})

    assert 0 == call(f"unix:{tmp_path}/api.sock", "--ops", sidecar.ops.address)[0]
    assert 0 == call("--url", f"unix:{tmp_path}/api.sock", "--ops", sidecar.ops.address)[0]


def test_a_real_write_has_to_be_asked_for(start, check):
    """It repeats the state as one more version; the stale one after it is refused. Without a state it is not judged."""
    sidecar, written = start(), {"state": "IDLE", "reason": "why", "source_module": "planner", "context_data": {"a": [1]}}
    before = sidecar.api.put("/v1/state", written | {"version": 7}).json["snapshot"]
    assert (0, WELL) == check(sidecar, "--write")
    after = sidecar.api.get("/v1/state").json["snapshot"]

    own = ("version", "snapshot_id", "ts_mono", "ts_wall")
    assert (8, 3) == (after["version"], sidecar.api.get("/v1/state").json["revision"])
    assert [(name, before[name]) for name in before if name not in own] == [
        (name, after[name]) for name in after if name not in own
    ]


def test_without_a_state_there_is_no_real_write(start, check):
    """It is not judged, which is no failure; there is no state afterwards."""
    sidecar = start(fsm={"initial": None})

    assert (0, DRY | {"real": None}) == check(sidecar, "--write")
    assert 404 == sidecar.api.get("/v1/state").status


# --- one that is not ---


@pytest.fixture
def deceived(start):
    """A sidecar, and liars before both of its listeners."""
    with contextlib.ExitStack() as stack:

        def begin(lie, **sections):
            sidecar = start(**sections)
            return sidecar, [stack.enter_context(lying(client, lie)) for client in (sidecar.api, sidecar.ops)]

        yield begin


def changed(**members):
    """Sends the body with these members instead."""
    return lambda method, path, body: (method, path, json.dumps(json.loads(body) | members).encode() if body else body)


def wet(method, path, body):
    """Sends a dry run as a write, as who does not know of it would."""
    return method, path.partition("?")[0], body


def as_if_dry(body):
    return json.dumps(json.loads(body) | {"dry_run": True}).encode()


DRY_RUN, SUBSCRIBER = r"dry_run=true", "/v1/subscribers/selfcheck-"
OTHER_SECRET = "whsec_" + "b3RoZXJz" * 4
LIES = {
    "no state is told": (Lie("GET", "/v1/state$", status=500), "state", "expected 200 with the ETag"),
    "another ETag": (Lie("GET", "/v1/state$", etag='"other-0"'), "state", "is a proxy in between?"),
    "no sidecar at all": (Lie("GET", "/v1/state", body=lambda _: b"<html>"), "state", "is this the API of a sidecar?"),
    "not alive": (Lie("GET", "/livez", status=503), "probes", "/livez: 503"),
    "not ready": (
        Lie("GET", "/readyz", status=503, body=lambda body: body.replace(b"true", b"false")),
        "probes",
        "storage: the last append worked",
    ),
    "every write is refused": (Lie("PUT", DRY_RUN, when=200, status=507), "write", "507, expected 200"),
    "a dry run is not known": (Lie("PUT", DRY_RUN, sends=wet), "write", "is this an older sidecar?"),
    "a dry run is written": (Lie("PUT", DRY_RUN, sends=wet, body=as_if_dry), "write", "a dry run was written"),
    "stale writes are taken": (Lie("PUT", DRY_RUN, when=412, status=200), "stale", "expected 412 version-conflict"),
    "unknown fields are taken": (Lie("PUT", DRY_RUN, when=422, status=200), "field", "expected 422 invalid"),
    "another secret signs": (
        Lie("PUT", SUBSCRIBER, sends=changed(secret=OTHER_SECRET)),
        "webhook",
        "no signature fits",
    ),
    "nothing arrives": (
        Lie("PUT", SUBSCRIBER, sends=changed(url=f"http://127.0.0.1:{free_port()}/")),
        "webhook",
        "nothing arrived",
    ),
    "nobody may subscribe": (Lie("PUT", SUBSCRIBER, status=403), "webhook", "--token-file"),
    "a subscriber cannot be removed": (Lie("DELETE", SUBSCRIBER, status=500), "webhook", "remove it by hand"),
    "a metric is missing": (
        Lie(
            "GET", "/metrics", body=lambda body: body.replace(b"fsm_sets_total", b"fsm_zets_total").replace(b"fsm_sets ", b"x ")
        ),
        "metrics",
        "fsm_sets_total missing",
    ),
    "no metrics": (Lie("GET", "/metrics", body=lambda _: b"<html>\n"), "metrics", "is this the ops listener?"),
    "stale writes count": (Lie("PUT", "/v1/state$", when=412, status=200), "real", "stale writes would overwrite newer states"),
}


@pytest.mark.parametrize(("lie", "short", "said"), LIES.values(), ids=LIES)
def test_what_breaks_the_contract_fails_its_check(deceived, call, monkeypatch, lie, short, said):
    """Exit 1, the check is named, and what to do; no subscriber stays."""
    monkeypatch.setattr(roundtrip, "PATIENCE_SECONDS", 0.3)
    sidecar, (api, ops) = deceived(lie)
    code, out, err = call(api.client.address, "--ops", ops.client.address, "--write")
    failed = [line for line in out.splitlines() if line.startswith("FAILED")]

    assert (1, "") == (code, err)
    assert [line for line in failed if line.startswith(f"FAILED   {CHECKS[short]}: ") and said in line], out
    assert [] == sidecar.api.get("/v1/subscribers").json["subscribers"]
    assert out.splitlines()[-1].startswith(f"{len(failed)} of ")


REFUSED = {
    "all places are taken": ({"store": {"max_subscribers": 1}}, "subscriber-limit", "raise store.max_subscribers"),
    "loopback is not allowed": ({"webhooks": {"targets": {"loopback": False}}}, "endpoint-refused", "webhooks.targets"),
}


@pytest.mark.parametrize(("sections", "kind", "said"), REFUSED.values(), ids=REFUSED)
def test_a_sidecar_that_takes_no_subscriber_is_told_why(start, call, sections, kind, said):
    """One check fails, and names the key of the configuration."""
    sidecar = start(**sections)
    if "store" in sections:
        sidecar.api.put("/v1/subscribers/taken", {"url": f"http://127.0.0.1:{free_port()}/"})
    code, out, _ = call(sidecar.api.address, "--ops", sidecar.ops.address)
    [failed] = [line for line in out.splitlines() if line.startswith("FAILED")]

    assert 1 == code
    assert failed.startswith(f"FAILED   {CHECKS['webhook']}")
    assert kind in failed
    assert said in failed


def test_what_it_quotes_cannot_steer_a_terminal(deceived, call):
    """What is not printable is a question mark."""
    body = json.dumps({"type": "x", "detail": "\x1b[2Jgone"}).encode()
    _, (api, ops) = deceived(Lie("PUT", DRY_RUN, status=500, body=lambda _: body))

    assert "?[2Jgone" in call(api.client.address, "--ops", ops.client.address)[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_is_interrupted_leaves_no_subscriber(deceived, number):
    """While it waits for a delivery that does not come: 130, and the subscriber is gone."""
    sidecar, (api, ops) = deceived(Lie("PUT", SUBSCRIBER, sends=changed(url=f"http://127.0.0.1:{free_port()}/")))
    with process("selfcheck", api.client.address, "--ops", ops.client.address) as checking:
        eventually(lambda: sidecar.api.get("/v1/subscribers").json["subscribers"])
        checking.send(number)

        assert 130 == checking.exit_code()
    assert [] == sidecar.api.get("/v1/subscribers").json["subscribers"]


# --- how it is called ---


def test_a_token_goes_to_the_api_only(deceived, call, tmp_path):
    """As a bearer token, read from its file."""
    _, (api, ops) = deceived(Lie("NONE"))
    (tmp_path / "token").write_text(f"{token('agent')}\n")
    code, out, _ = call(api.client.address, "--ops", ops.client.address, "--token-file", tmp_path / "token")

    assert (0, False) == (code, not keeps_tokens(out))
    assert ({f"Bearer {token('agent')}"}, {None}) == tuple({sent for *_, sent in liar.asked} for liar in (api, ops))


def test_who_may_not_register_left_nothing_behind(start, call, tmp_path):
    """One check fails, and says which scopes are needed; there is nothing to remove."""
    file = tmp_path / "token"
    file.write_text(f"{token('agent')}\n")
    file.chmod(0o600)
    holder = {"name": "agent", "file": str(file), "scopes": ["state:read", "state:write"]}
    sidecar = start(api={"listen": "127.0.0.1:0", "tokens": [holder]})
    code, out, _ = call(sidecar.api.address, "--ops", sidecar.ops.address, "--token-file", file)
    [failed] = [line for line in out.splitlines() if line.startswith("FAILED")]

    assert 1 == code
    assert failed.startswith(f"FAILED   {CHECKS['webhook']}")
    assert (True, False) == ("subscribe" in failed, "left behind" in failed)


def test_address_and_token_come_from_the_environment(deceived, call, monkeypatch, tmp_path):
    """As with the other commands that ask a sidecar."""
    _, (api, ops) = deceived(Lie("NONE"))
    (tmp_path / "token").write_text(f"{token('agent')}\n")
    monkeypatch.setenv("FSM_SIDECAR_URL", f"http://{api.client.address}")
    monkeypatch.setenv("FSM_SIDECAR_TOKEN_FILE", str(tmp_path / "token"))

    assert 0 == call("--ops", ops.client.address)[0]
    assert ({f"Bearer {token('agent')}"}, {None}) == tuple({sent for *_, sent in liar.asked} for liar in (api, ops))


@pytest.mark.parametrize("receiver", ["127.0.0.1", "localhost", "127.0.0.1:{port}"])
def test_the_receiver_can_be_named(start, call, receiver):
    """By a name or an address, and a port."""
    sidecar, receiver = start(), receiver.format(port=free_port())
    code, out, _ = call(sidecar.api.address, "--ops", sidecar.ops.address, "--receiver", receiver)

    assert 0 == code, out
    assert f"the current state at http://{receiver}" in out


def test_nobody_there_is_another_exit_code(call, monkeypatch):
    """69 with the reason, for a closed port and for one where nobody answers."""
    monkeypatch.setattr(asking, "TIMEOUT_SECONDS", 0.2)
    assert 69 == call(f"127.0.0.1:{free_port()}")[0]
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as silent:
        code, out, err = call(f"127.0.0.1:{silent.server_port}")

    assert (69, "") == (code, out)
    assert err.endswith("has not answered within 0.2s\n")


def test_no_ops_listener_is_a_failed_check(start, call):
    """It is said how to name it; the API is checked all the same."""
    code, out, _ = call(start().api.address, "--ops", f"127.0.0.1:{free_port()}")

    assert (1, 2) == (code, out.count("say with --ops where probes and metrics are"))
    assert out.endswith("2 of 7 checks failed\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["ftp://host"],
        ["--url", "ftp://host"],
        ["--url", "http://host", "http://host"],
        ["http://"],
        ["unix:"],
        ["http://user:s3cret@host"],
        ["http://host:99999"],
        ["--ops", "http://[::"],
        ["--receiver", "a/b"],
        ["--receiver", "host:x"],
        ["--token-file", "/nowhere"],
        ["--token-file", __file__],
        ["--what"],
    ],
    ids=lambda arguments: " ".join(arguments)[:24],
)
def test_wrong_usage_is_64(call, arguments):
    """With the argument and what is expected; no traceback."""
    code, out, err = call(*arguments)

    assert (64, "") == (code, out)
    assert (arguments[0] if arguments[0].startswith("--") else "URL: ") in err
    assert "s3cret" not in err
    assert "Traceback" not in err
