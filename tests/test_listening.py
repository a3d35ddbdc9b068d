"""Where the API listens, and who gets that far: Unix sockets by mode and peer, TLS by certificate."""

import http.client
import os
import socket
import ssl
import stat
from contextlib import closing

import pytest
from holders import bearer, entry
from rawhttp import connected, many, metric, said
from scraping import of
from secrecy import token
from sidecar_process import BASE, PATIENCE_SECONDS, Client, eventually, free_port, running, written
from test_configwatch import Running

from sidecar import config
from sidecar.errors import ConfigError


def problems_of(path):
    """What is wrong with a config file."""
    try:
        config.load(str(path))
    except ConfigError as refusal:
        return refusal.problems
    return ()


# --- Unix sockets ---


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "api.sock")


def at(path, **settings):
    """The section of an API on this socket."""
    return {"api": {"listen": f"unix:{path}", "socket": settings}}


@pytest.mark.parametrize(("settings", "mode"), [({}, 0o600), ({"mode": "0660"}, 0o660)])
def test_the_socket_has_its_mode_and_goes_with_the_process(tmp_path, path, settings, mode):
    """0600 unless another one is configured."""
    with running(written(tmp_path, **at(path, **settings))) as sidecar:
        sidecar.wait_for("ready")
        assert mode == stat.S_IMODE(os.stat(path).st_mode)
        assert 200 == Client(f"unix:{path}").get("/v1/state").status
        assert 0 == sidecar.stop()
    assert not os.path.exists(path)


def test_a_stop_leaves_the_socket_of_another_process_alone(tmp_path, path):
    """One that has taken the path since."""
    with running(written(tmp_path, **at(path))) as sidecar, closing(socket.socket(socket.AF_UNIX)) as other:
        sidecar.wait_for("ready")
        os.unlink(path)
        other.bind(path)
        assert 0 == sidecar.stop()
    assert os.path.exists(path)


def test_what_a_killed_process_left_is_removed(tmp_path, path):
    """The next one listens there."""
    file = written(tmp_path, **at(path))
    with running(file) as killed:
        killed.wait_for("ready")
        killed.kill()
    assert os.path.exists(path)
    with running(file) as sidecar:
        sidecar.wait_for("ready")
        assert 200 == Client(f"unix:{path}").get("/v1/state").status


def test_a_socket_on_which_somebody_listens_is_left_to_him(tmp_path, path):
    """The second one ends with 64, and the first one goes on."""
    file = written(tmp_path, **at(path))
    with running(file) as first:
        first.wait_for("ready")
        with running(file) as second:
            assert 64 == second.exit_code()
            assert f"api.listen: cannot listen on unix:{path}: another process listens there" in second.stderr
        assert 200 == Client(f"unix:{path}").get("/v1/state").status


def test_a_file_that_is_no_socket_is_left_alone(tmp_path, path):
    """Perhaps it is somebody's."""
    with open(path, "w") as file:
        file.write("precious")
    with running(written(tmp_path, **at(path))) as sidecar:
        assert 64 == sidecar.exit_code()
        assert "there is a file which is no socket" in sidecar.stderr
    with open(path) as file:
        assert "precious" == file.read()


@pytest.mark.parametrize(
    ("settings", "admitted"),
    [
        ({"uids": [os.getuid()]}, True),
        ({"gids": [os.getgid()]}, True),
        ({"uids": [os.getuid() + 1], "gids": [os.getgid()]}, True),
        ({"uids": [os.getuid() + 1]}, False),
        ({"gids": [os.getgid() + 1]}, False),
        ({"uids": [os.getuid() + 1], "gids": [os.getgid() + 1]}, False),
    ],
)
def test_the_kernel_says_who_connects(tmp_path, path, settings, admitted):
    """Others are closed before anything is read, and counted."""
    with running(written(tmp_path, **at(path, **settings))) as sidecar:
        sidecar.wait_for("ready")
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.settimeout(10)
            connection.connect(path)
            try:
                connection.sendall(b"GET /v1/state HTTP/1.1\r\nHost: a\r\n\r\n")
                got = connection.recv(12)
            except (BrokenPipeError, ConnectionResetError):
                got = b""

        assert (b"HTTP/1.1 200" if admitted else b"") == got
        refused = 0 if admitted else 1
        assert eventually(lambda: of(sidecar, "fsm_http_auth_failures_total", reason="peer") == refused)


WRONG_SOCKETS = {
    "uids on TCP": (
        {"api": {"listen": "127.0.0.1:0", "socket": {"uids": [1]}}},
        "api.socket: uids and gids are looked at on a Unix socket, and 127.0.0.1:0 is none",
    ),
    "everybody": (at("/nowhere/api.sock", mode="0666"), 'api.socket.mode: "0666" lets everybody on this host connect'),
    "no mode": (at("/nowhere/api.sock", mode="rw"), "api.socket.mode: expected a mode in octal digits"),
    "a number": (at("/nowhere/api.sock", mode=660), "api.socket.mode: expected text, got 660; put it in quotes"),
}


@pytest.mark.parametrize(("section", "problem"), WRONG_SOCKETS.values(), ids=WRONG_SOCKETS)
def test_settings_of_a_socket_that_protect_nobody_are_refused(tmp_path, section, problem):
    """Rather than not looked at."""
    (found,) = problems_of(written(tmp_path, **section))
    assert problem in found


def test_everybody_may_connect_where_the_kernel_or_tokens_tell_them_apart(tmp_path, path):
    """With either of them."""
    tokens = [entry(tmp_path, "agent", ["admin"], token("agent"))]
    sections = [at(path, mode="0666", uids=[0]), {"api": at(path, mode="0666")["api"] | {"tokens": tokens}}]
    for section in sections:
        assert () == problems_of(written(tmp_path, **section))


# --- TLS ---


def status(address, context, **headers):
    """What a new connection is answered; None: nothing. And the serial number of the certificate it was shown."""
    connection = http.client.HTTPSConnection(address, context=context, timeout=10)
    with closing(connection):
        try:
            connection.request("GET", "/v1/state", headers=headers)
            return connection.getresponse().status, connection.sock and connection.sock.getpeercert()["serialNumber"]
        except (ssl.SSLError, OSError, http.client.HTTPException):
            return None, None


def tls(**files):
    return {"api": BASE["api"] | {"tls": files}}


def test_the_api_speaks_tls_and_nothing_else(start, ours, theirs):
    """To clients that trust the certificate; not in plain text, and not an old version of it."""
    address = start(**tls(**ours.server())).api.address
    old = ours.context()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")

    assert 200 == status(address, ours.context())[0]
    assert [None, None] == [status(address, context)[0] for context in (theirs.context(), old)]
    with pytest.raises((OSError, http.client.HTTPException)):
        Client(address).get("/v1/state")


@pytest.mark.parametrize("admitted", [True, False])
def test_the_kernel_says_who_may_shake_hands(tmp_path, path, ours, admitted):
    """TLS on a Unix socket changes nothing of who may connect to it."""
    section = at(path, uids=[os.getuid() + (not admitted)])
    section["api"]["tls"] = ours.server()
    with running(written(tmp_path, **section)) as sidecar:
        sidecar.wait_for("ready")
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.settimeout(10)
            connection.connect(path)
            try:
                with ours.context().wrap_socket(connection, server_hostname="localhost") as secured:
                    secured.sendall(b"GET /v1/state HTTP/1.1\r\nHost: a\r\n\r\n")
                    got = secured.recv(12)
            except OSError:
                got = b""

        assert (b"HTTP/1.1 200" if admitted else b"") == got
        refused = 0 if admitted else 1
        assert eventually(lambda: of(sidecar, "fsm_http_auth_failures_total", reason="peer") == refused)


def test_who_does_not_shake_hands_is_not_waited_for(start, ours):
    """As for the head of a request: api.limits.header_timeout."""
    section = tls(**ours.server())["api"] | {"limits": {"header_timeout": "300ms"}}
    host, port = start(api=section).api.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), PATIENCE_SECONDS) as silent:
        assert b"" == silent.recv(1)


def test_who_has_not_shaken_hands_has_a_place_all_the_same(start, ours):
    """So that no more can be held open: one too many is closed unread, and the oldest makes room, once it had time."""
    limits = {"connections": 3, "header_timeout": "1m"}
    sidecar = start(api=tls(**ours.server())["api"] | {"limits": limits})
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # and no more of it
    with many(sidecar.api.address, 3, hello) as silent:
        eventually(lambda: 3 == metric(sidecar, 'fsm_http_connections{listener="api"}'))
        with connected(sidecar.api.address) as further:
            assert b"" == said(further).raw
        assert 200 == eventually(lambda: status(sidecar.api.address, ours.context())[0])
        assert b"" == said(silent[0]).raw
    assert 1 <= metric(sidecar, 'fsm_http_connections_refused_total{listener="api",reason="full"}')
    assert 1 == metric(sidecar, 'fsm_http_connections_refused_total{listener="api",reason="displaced"}')
    eventually(lambda: 0 == metric(sidecar, 'fsm_http_connections{listener="api"}'))


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x01\x00", os.urandom(2000)])
def test_a_handshake_that_fails_gives_its_place_back(start, ours, sent):
    """Cut off, plain text, or nonsense: nothing is logged, and nothing is kept."""
    sidecar = start(**tls(**ours.server()))
    for _ in range(20):
        with connected(sidecar.api.address) as connection:
            connection.sendall(sent)
    eventually(lambda: 0 == metric(sidecar, 'fsm_http_connections{listener="api"}'))

    assert 200 == status(sidecar.api.address, ours.context())[0]
    assert ["ready", "api_open"] == [line["event"] for line in sidecar.log]


def test_clients_show_a_certificate_of_the_ca(start, ours, theirs):
    """Nobody else gets in. Whoever does needs no token, where there are none."""
    address = start(**tls(**ours.server(), client_ca_file=theirs.file)).api.address
    shown = {"none": None, "ours": ours, "theirs": theirs}
    got = {name: status(address, ours.context(client))[0] for name, client in shown.items()}

    assert {"none": None, "ours": None, "theirs": 200} == got


def test_with_tokens_too_both_are_needed(start, tmp_path, ours):
    """A certificate is no scope."""
    tokens = [entry(tmp_path, "agent", ["admin"], token("agent"))]
    section = tls(**ours.server(), client_ca_file=ours.file)["api"] | {"tokens": tokens}
    address = start(api=section).api.address
    headers = bearer(token("agent"))

    assert 401 == status(address, ours.context(ours))[0]
    assert 200 == status(address, ours.context(ours), Authorization=headers["authorization"])[0]
    assert None is status(address, ours.context(), Authorization=headers["authorization"])[0]


def test_new_certificates_are_taken_over(tmp_path, ours, theirs):
    """The server's and the CA of clients, for new connections; a pair that does not fit changes nothing."""
    sidecar = Running(tmp_path)
    sidecar.write(**tls(**ours.server(), client_ca_file=shared(tmp_path, ours)))
    with running(sidecar.path) as sidecar.process:
        address = sidecar.process.wait_for("ready")[0]["api"]
        before = status(address, ours.context(ours))
        ours.server()
        renewed = sidecar.reload()["applied"], status(address, ours.context(ours))
        with open(tmp_path / "ours.key", "w") as key:
            key.write("nonsense")
        broken = sidecar.reload("config_file_invalid")["problems"], status(address, ours.context(ours))
        ours.server()
        shared(tmp_path, theirs)
        moved = sidecar.reload()["applied"], [status(address, ours.context(client))[0] for client in (ours, theirs)]

    assert 200 == before[0] == renewed[1][0]
    assert before[1] != renewed[1][1]
    assert ["api.tls"] == renewed[0] == moved[0]
    assert renewed[1] == broken[1]
    assert "api.tls: " in broken[0][0]
    assert [None, 200] == moved[1]


def test_a_withdrawn_ca_lets_nobody_in_by_an_old_session(tmp_path, ours, theirs):
    """A session that is taken up again shows no certificate: it ends with those that let it in."""
    sidecar, context = Running(tmp_path), ours.context(ours)
    sidecar.write(**tls(**ours.server(), client_ca_file=shared(tmp_path, ours)))
    with running(sidecar.path) as sidecar.process:
        host, port = sidecar.process.wait_for("ready")[0]["api"].split(":")

        def asked(session=None):
            """What the answer begins with, and the session; nothing: there is no answer."""
            try:
                with (
                    closing(socket.create_connection((host, port), timeout=10)) as plain,
                    context.wrap_socket(plain, server_hostname=host, session=session) as secured,
                ):
                    secured.sendall(b"GET /v1/state HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    return secured.recv(12), secured.session
            except OSError:
                return b"", None

        got, session = asked()
        taken_up = asked(session)[0]
        shared(tmp_path, theirs)
        assert ["api.tls"] == sidecar.reload()["applied"]
        assert [b"HTTP/1.1 200", b"HTTP/1.1 200", b""] == [got, taken_up, asked(session)[0]]


def shared(folder, authority):
    """The file of the CA of clients, with this one in it."""
    path = folder / "clients.ca"
    with open(authority.file) as file:
        path.write_text(file.read())
    return str(path)


def test_beyond_loopback_a_ca_of_clients_is_enough(tmp_path, ours):
    """A certificate alone is not: it says who the sidecar is."""
    listen = {"listen": f"0.0.0.0:{free_port()}"}
    alone, both = (
        problems_of(written(tmp_path, api=listen | {"tls": ours.server() | more}))
        for more in ({}, {"client_ca_file": ours.file})
    )
    assert "can be reached from elsewhere" in alone[0]
    assert () == both


def test_wrong_files_are_refused_with_a_mend(tmp_path, ours, theirs):
    """Missing, open to everybody, of different pairs, no PEM, or half of what is needed."""
    good, other = ours.server(), theirs.server()
    leaky = ours.server(prefix="leaky-")
    os.chmod(leaky["key_file"], 0o644)
    cases = [
        (good | {"cert_file": "/nowhere"}, "api.tls: /nowhere cannot be read (No such file or directory); check the path"),
        (good | {"key_file": str(tmp_path)}, "cannot be read (Is a directory)"),
        (good | {"key_file": other["key_file"]}, "are no certificate and its key, both PEM, the key not encrypted"),
        (good | {"client_ca_file": good["key_file"]}, "holds no CA certificate as PEM"),
        (leaky, f"is open to everybody; chmod o= {leaky['key_file']}"),
        ({"cert_file": good["cert_file"]}, "api.tls.key_file: missing: a certificate and its key go together"),
        ({"key_file": good["key_file"]}, "api.tls.cert_file: missing: a certificate and its key go together"),
        ({"client_ca_file": ours.file}, "api.tls.client_ca_file: needs cert_file and key_file"),
    ]
    for files, problem in cases:
        (found,) = problems_of(written(tmp_path, **tls(**files)))
        assert problem in found
