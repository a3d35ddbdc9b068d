"""Browsers carry strangers' pages into networks and onto loopback: such a page gets nothing, unless its origin is allowed."""

import http.client
from contextlib import nullcontext

import pytest
from holders import TOKENS, bearer, one_for_each_scope
from scraping import of
from sidecar_process import BASE, Client, eventually, problem_of, running, written

from sidecar.access import Scope
from sidecar.config.sections import Api
from sidecar.errors import MisdirectedError
from sidecar.units import Listen
from sidecar.wiring import browsers

CONSOLE = "https://console.example.org"
CROSSING = ["Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"]


def section(**settings):
    return {"api": BASE["api"] | settings}


def asked_as(client, host, method="GET", path="/v1/state", **headers):
    """Ask under another name than the address."""
    connection = http.client.HTTPConnection(client.address, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", host)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def allowed(names):
    """Those of these headers that an answer has."""
    return [name for name in CROSSING if name in names]


# --- names ---


def test_on_loopback_a_name_of_a_stranger_is_misdirected(start):
    """Whatever it resolves to; addresses and localhost are no names that somebody could rebind."""
    sidecar = start(**section(hosts=["sidecar.internal"]))
    port = sidecar.api.address.rpartition(":")[2]
    fine = ["127.0.0.1", f"127.0.0.1:{port}", "localhost", f"LOCALHOST:{port}", "[::1]:80", "10.1.2.3", "Sidecar.internal:1"]
    strange = [
        "evil.example",
        f"evil.example:{port}",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "2130706433",
        "localhost.",
    ]

    assert [200] * len(fine) == [asked_as(sidecar.api, host) for host in fine]
    assert [421] * len(strange) == [asked_as(sidecar.api, host) for host in strange]
    assert len(strange) == of(sidecar, "fsm_http_auth_failures_total", reason="host")


@pytest.mark.parametrize(
    ("listen", "hosts", "any_name"),
    [
        ("127.0.0.1:1", [], False),
        ("0.0.0.0:1", [], True),
        ("0.0.0.0:1", ["sidecar"], False),
        ("unix:/run/api.sock", ["sidecar"], True),
        ("evil.example:1", [], True),
    ],
)
def test_where_the_name_is_looked_at(listen, hosts, any_name):
    """On loopback, and where names are listed; a Unix socket is reached by no browser."""
    api = Api(listen=Listen.parse(listen), hosts=tuple(hosts))
    with nullcontext() if any_name else pytest.raises(MisdirectedError):
        browsers(api).check("GET", {"Host": "evil.example"})


def test_a_unix_socket_may_be_called_by_any_name(tmp_path):
    """Clients write there what they like."""
    path = f"unix:{tmp_path}/api.sock"
    with running(written(tmp_path, api={"listen": path})) as process:
        process.wait_for("ready")
        assert 200 == eventually(lambda: Client(path).get("/v1/state").status)


# --- pages ---


def test_a_page_of_another_origin_cannot_write(start):
    """Not even blindly. What it can read, its browser keeps from it."""
    sidecar = start()
    own = f"http://{sidecar.api.address}"
    strange = ["https://evil.example", "null", "http://127.0.0.1:1", "", f"{own}.evil.example"]
    refused = [sidecar.api.put("/v1/state", {"state": "IDLE"}, origin=origin) for origin in strange]
    read = sidecar.api.get("/v1/state", origin="https://evil.example")

    assert [403] * len(strange) == [answer.status for answer in refused]
    problem_of(refused[0], 403, "origin-refused")
    assert (200, [], "BOOTING") == (read.status, allowed(read.headers), read.json["snapshot"]["state"])
    assert len(strange) == of(sidecar, "fsm_http_auth_failures_total", reason="origin")
    assert 200 == sidecar.api.put("/v1/state", {"state": "IDLE"}, origin=own).status


def test_without_cors_a_preflight_allows_nothing(start):
    """It is answered as any `OPTIONS`, without the headers that a browser looks for."""
    answer = start().api.ask("OPTIONS", "/v1/state", origin=CONSOLE, access_control_request_method="PUT")
    assert (204, []) == (answer.status, allowed(answer.headers))


def test_pages_of_an_allowed_origin_may_read_and_write(start, tmp_path):
    """By its exact name, with a token, and never with the browser's credentials; also where they are refused."""
    sidecar = start(**section(cors=[CONSOLE], tokens=one_for_each_scope(tmp_path)))
    token = bearer(TOKENS[Scope.WRITE])
    question = sidecar.api.ask("OPTIONS", "/v1/subscribers/a", origin=CONSOLE, access_control_request_method="PUT")
    answers = [
        sidecar.api.put("/v1/state", {"state": "IDLE"}, origin=CONSOLE, **token),
        sidecar.api.get("/v1/state", origin=CONSOLE, **bearer(TOKENS[Scope.READ])),
        sidecar.api.get("/v1/machine?format=mermaid", origin=CONSOLE, **bearer(TOKENS[Scope.READ])),
        sidecar.api.get("/v1/state", origin=CONSOLE),
        sidecar.api.get("/v1/nowhere", origin=CONSOLE, **token),
        sidecar.api.ask("HEAD", "/v1/watch", origin=CONSOLE, **bearer(TOKENS[Scope.READ])),
    ]

    assert (204, "DELETE, GET, HEAD, PUT") == (question.status, question.headers["Access-Control-Allow-Methods"])
    assert "Authorization" in question.headers["Access-Control-Allow-Headers"]
    assert [200, 200, 200, 401, 404, 200] == [answer.status for answer in answers]
    for answer in (question, *answers):
        assert (CONSOLE, "Origin") == (answer.headers["Access-Control-Allow-Origin"], answer.headers["Vary"])
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://console.example.org:8443", "http://console.example.org", "null"]
)
def test_other_origins_stay_strangers(start, tmp_path, origin):
    """Nearly the same is another one; and without an origin nothing is said about it."""
    sidecar = start(**section(cors=[CONSOLE], tokens=one_for_each_scope(tmp_path)))
    token = bearer(TOKENS[Scope.ADMIN])
    question = sidecar.api.ask("OPTIONS", "/v1/state", origin=origin, access_control_request_method="PUT")
    answers = [question, sidecar.api.get("/v1/state", origin=origin, **token), sidecar.api.get("/v1/state", **token)]

    assert [401, 200, 200] == [answer.status for answer in answers]
    assert [[]] * 3 == [allowed(answer.headers) for answer in answers]
    assert 403 == sidecar.api.put("/v1/state", {"state": "IDLE"}, origin=origin, **token).status
