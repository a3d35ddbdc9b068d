"""Tokens change while the sidecar runs."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from holders import bearer, entry
from rawhttp import many, said
from scraping import of
from secrecy import token
from sidecar_process import BASE, eventually, free_port, process, running
from test_configwatch import Running
from watching import watching

OLD, NEW = token("old"), token("new")
SCOPES = ["state:read", "state:write"]


@pytest.fixture
def sidecar(tmp_path):
    """A sidecar with one holder, whose token is `OLD`."""
    sidecar = Running(tmp_path)
    sidecar.write(api=BASE["api"] | {"tokens": [entry(tmp_path, "agent", SCOPES, OLD)]})
    with running(sidecar.path) as sidecar.process:
        sidecar.process.wait_for("ready")
        yield sidecar
        assert not [token for token in (OLD, NEW) if token in sidecar.process.stderr]


def statuses(sidecar):
    """What the old and the new token get."""
    return [sidecar.process.api.get("/v1/state", **bearer(token)).status for token in (OLD, NEW)]


def test_a_token_is_rotated_without_a_restart(sidecar, tmp_path):
    """Old and new together for a while; the revoked one stops to count with the next request."""
    seen, applied = [statuses(sidecar)], []
    for tokens in ((OLD, NEW), (NEW,)):
        entry(tmp_path, "agent", SCOPES, *tokens)
        applied.append(sidecar.reload()["applied"])
        seen.append(statuses(sidecar))

    assert [[200, 401], [200, 200], [401, 200]] == seen
    assert [["api.tokens"], ["api.tokens"]] == applied


def test_a_revoked_token_reads_no_longer(sidecar, tmp_path):
    """Streams and long polls that were asked for with it end with the reload; those of others go on."""
    entry(tmp_path, "agent", SCOPES, OLD, NEW)
    sidecar.reload()
    api, polled = sidecar.process.api, []
    revision = api.get("/v1/state", **bearer(NEW)).json["revision"]
    poll = f"/v1/state?after={revision}&wait=10s"
    waits = threading.Thread(target=lambda: polled.append(api.get(poll, **bearer(OLD)).status))
    streams = [watching(api, headers={"Authorization": f"Bearer {token}"}) for token in (OLD, NEW)]
    with streams[0] as revoked, streams[1] as other:
        waits.start()
        assert ["state", "state"] == [stream.event().kind for stream in (revoked, other)]
        eventually(lambda: 1 == of(sidecar.process, "fsm_watchers", kind="poll"))
        entry(tmp_path, "agent", SCOPES, NEW)
        sidecar.reload()

        assert ("end", {"reason": "revoked"}) == revoked.event()[:2]
        assert b"" == revoked.rest()
        waits.join()
        assert [401] == polled
        api.put("/v1/state", {"state": "IDLE"}, **bearer(NEW))
        assert "IDLE" == other.event().data["snapshot"]["state"]


def test_who_came_before_there_were_tokens_reads_no_longer(tmp_path):
    """Also the streams of an open sidecar end when tokens come to it."""
    sidecar = Running(tmp_path)
    with running(sidecar.path) as sidecar.process, watching(sidecar.process.api) as stream:
        assert "state" == stream.event().kind
        sidecar.reload(api=BASE["api"] | {"tokens": [entry(tmp_path, "agent", SCOPES, OLD)]})

        assert ("end", {"reason": "revoked"}) == stream.event()[:2]


def test_a_revocation_finds_who_is_on_the_way_in(sidecar, tmp_path):
    """Two hundred ask for a stream while their token is taken back: each is refused, or its stream ends. None stays."""
    lines = ("GET /v1/watch HTTP/1.1", "Host: localhost", f"Authorization: Bearer {OLD}", "Connection: close", "", "")
    ask = "\r\n".join(lines).encode()
    with many(sidecar.process.api.address, 200) as connections:
        entry(tmp_path, "agent", SCOPES, NEW)
        with ThreadPoolExecutor() as pool:
            reload = pool.submit(sidecar.reload)
            for connection in connections:
                connection.sendall(ask)
            reload.result()
        answers = [said(connection) for connection in connections]

    ended = [answer.raw.endswith(b'{"reason":"revoked"}\n\n') for answer in answers if answer.statuses == [200]]
    assert all(ended)
    assert {200, 401, 429} >= {status for answer in answers for status in answer.statuses}


def test_a_reload_cuts_nobody_else_short(sidecar):
    """Who waits with a token that still counts waits on."""
    api = sidecar.process.api
    revision = api.get("/v1/state", **bearer(OLD)).json["revision"]
    with ThreadPoolExecutor() as pool:
        poll = pool.submit(api.get, f"/v1/state?after={revision}&wait=10s", **bearer(OLD))
        eventually(lambda: 1 == of(sidecar.process, "fsm_watchers", kind="poll"))
        sidecar.reload(health={"stale_after": "5m"})
        api.put("/v1/state", {"state": "IDLE"}, **bearer(OLD))

        assert (200, revision + 1) == (poll.result().status, poll.result().json["revision"])


def test_a_revocation_does_not_wait_for_other_changes(tmp_path):
    """The same edit raises a limit, which waits for a restart, and uses it already."""
    sidecar = Running(tmp_path)
    sidecar.write(api=BASE["api"] | {"tokens": [entry(tmp_path, "agent", SCOPES, OLD)]}, store={"max_subscribers": 1})
    two = [{"id": name, "url": "http://127.0.0.1:9/"} for name in ("one", "two")]
    with running(sidecar.path) as sidecar.process:
        sidecar.process.wait_for("ready")
        entry(tmp_path, "agent", SCOPES, NEW)
        line = sidecar.reload(store={"max_subscribers": 2}, subscribers=two)

        assert [401, 200] == statuses(sidecar)
        assert ["store.max_subscribers"] == line["needs_restart"]


def test_holders_come_and_go(sidecar, tmp_path):
    """And change their scopes."""
    api = sidecar.sections["api"]
    more = [*api["tokens"], entry(tmp_path, "viewer", ["state:read"], NEW)]
    sidecar.reload(api=api | {"tokens": more})
    both = statuses(sidecar)
    sidecar.reload(api=api | {"tokens": [more[0] | {"scopes": ["subscribe"]}]})

    assert ([200, 200], [403, 401]) == (both, statuses(sidecar))


@pytest.mark.parametrize("tokens", [(), ("short",), (NEW, "short")])
def test_a_bad_file_keeps_the_old_tokens(sidecar, tmp_path, tokens):
    """And says why."""
    entry(tmp_path, "agent", SCOPES, *tokens)
    line = sidecar.reload("config_file_invalid")

    assert [200, 401] == statuses(sidecar)
    assert "api.tokens[0].file" in line["problems"][0]
    assert "short" not in str(line)
    assert 0 == of(sidecar.process, "fsm_config_file_valid")


def test_on_loopback_tokens_may_be_given_up(sidecar):
    """It is said again that it is open."""
    line = sidecar.reload(api=BASE["api"])

    assert (["api.tokens"], [200, 200]) == (line["applied"], statuses(sidecar))
    assert 1 == len(sidecar.process.wait_for("api_open"))


def test_tokens_may_come_to_an_open_sidecar(tmp_path):
    """From the next request on there is no way around them."""
    sidecar = Running(tmp_path)
    with running(sidecar.path) as sidecar.process:
        before = sidecar.process.api.get("/v1/state").status
        line = sidecar.reload(api=BASE["api"] | {"tokens": [entry(tmp_path, "agent", SCOPES, OLD)]})

        assert (200, 401, ["api.tokens"]) == (before, sidecar.process.api.get("/v1/state").status, line["applied"])


def test_a_listener_that_others_reach_is_never_opened_by_a_reload(tmp_path):
    """The file moves it to loopback and gives up its tokens: both wait for the restart."""
    sidecar, port = Running(tmp_path), free_port()
    sidecar.write(api={"listen": f"0.0.0.0:{port}", "tokens": [entry(tmp_path, "agent", SCOPES, OLD)]})
    with running(sidecar.path) as sidecar.process:
        sidecar.process.wait_for("ready")
        line = sidecar.reload(api={"listen": f"127.0.0.1:{port}"})

        assert (["api.listen", "api.tokens"], []) == (sorted(line["needs_restart"]), line["applied"])
        assert [200, 401] == statuses(sidecar)
        assert [] == sidecar.process.events("api_open")


def test_others_may_reach_it_only_with_tokens(tmp_path):
    """Otherwise the start is refused with 64."""
    sidecar = Running(tmp_path)
    sidecar.write(api={"listen": "0.0.0.0:0"})
    with process("run", "--config", sidecar.path) as refused:
        assert 64 == refused.exit_code()
        assert "name who may come in with `tokens`" in refused.stderr


def test_checking_the_config_does_not_show_tokens(sidecar):
    """Their files' names, and no more."""
    with process("check-config", sidecar.path) as checked:
        assert 0 == checked.exit_code()
        assert OLD not in checked.stderr
