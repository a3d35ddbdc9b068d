"""Clients of an API that speaks TLS: they trust whom they are told to, show their certificate, and say what is wrong."""

import datetime
import socket
import ssl

import pytest
from sidecar_process import free_port
from test_client_cli import run
from test_listening import Authority, tls

from sidecar import FsmSnapshot, FsmState
from sidecar.client import StateClient, UnavailableError


@pytest.fixture
def ours(tmp_path):
    return Authority(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path):
    return Authority(tmp_path, "theirs")


@pytest.fixture
def secured(start, ours):
    """Starts a sidecar with a certificate of ours: its URL."""
    return lambda **files: f"https://{start(**tls(**ours.server(), **files)).api.address}"


def told(url, *flags):
    """The exit code of `state get`, and what it says when it fails."""
    code, out, err = run(None, "state", "get", "--url", url, *flags)
    assert bool(out) == (code == 0)
    return code, err


def test_a_command_trusts_the_ca_that_it_is_told(secured, ours, theirs):
    """No other one, and nobody at all that it does not know: exit 69, and which flag says whom to trust."""
    url = secured()

    assert (0, "") == told(url, "--ca-file", ours.file)
    for flags in (["--ca-file", theirs.file], []):
        code, err = told(url, *flags)
        assert 69 == code
        assert "shows a certificate that is not trusted" in err
        assert "--ca-file" in err
        assert "is it running?" not in err


def test_a_certificate_is_for_its_names_and_its_time(start, ours):
    """Of another host, or of yesterday: not trusted, and why."""
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    for issued, why in ((("other.example",), "mismatch"), (("127.0.0.1",), "expired")):
        url = f"https://{start(**tls(**ours.server(*issued, not_after=yesterday if why == 'expired' else None))).api.address}"
        code, err = told(url, "--ca-file", ours.file)
        assert (69, True) == (code, why in err), err


def test_a_command_shows_its_certificate(secured, ours, theirs, tmp_path):
    """Where clients have to; without one, or with a stranger's, it is told that one may be wanted."""
    url = secured(client_ca_file=ours.file)
    mine, strange = ours.client("mine"), theirs.client("strange")

    assert (0, "") == told(url, "--ca-file", ours.file, "--cert-file", mine)
    for flags in ([], ["--cert-file", strange]):
        code, err = told(url, "--ca-file", ours.file, *flags)
        assert (69, True) == (code, "--cert-file" in err), err


def test_files_that_are_none_are_told(tmp_path):
    """By their name and what was expected; exit 64, and nobody was asked."""
    url = f"https://127.0.0.1:{free_port()}"
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("nonsense")
    for flags, said in (
        (["--ca-file", nonsense], f"{nonsense}: expected a certificate of a CA, as PEM"),
        (["--cert-file", nonsense], f"{nonsense}: expected a certificate and its key"),
        (["--ca-file", tmp_path / "nowhere"], f"{tmp_path / 'nowhere'}: No such file"),
    ):
        code, err = told(url, *map(str, flags))
        assert (64, True) == (code, said in err), err


async def test_a_state_client_trusts_its_context(secured, ours, theirs):
    """It reads and writes; with another one, or none, nothing was applied, and the certificate is named as the cause."""
    url = secured(client_ca_file=ours.file)
    async with StateClient(url, ssl=ours.context(ours)) as store:
        assert FsmState.IDLE is (await store.set(FsmSnapshot(5, FsmState.IDLE))).state
    for context in (theirs.context(ours), None):
        async with StateClient(url, ssl=context, retry_for=0, states=FsmState) as store:
            with pytest.raises(UnavailableError, match="certificate verify failed") as failed:
                await store.set(FsmSnapshot(6, FsmState.ACTIVE))
            assert "not-applied" == failed.value.outcome
    async with StateClient(url, ssl=ours.context(), retry_for=0) as store:
        with pytest.raises(UnavailableError):
            await store.get()
    async with StateClient(url, ssl=ours.context(ours)) as store:
        assert FsmState.IDLE is (await store.get()).state


def test_the_floor_is_tls_1_2(secured, ours):
    """Also for one that would rather have less."""
    address = secured().removeprefix("https://")
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ours.context()
        context.minimum_version = context.maximum_version = version
        assert version.name.replace("_", ".") == negotiated(address, context)


def negotiated(address, context):
    """The version of TLS that a new connection speaks."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 10) as plain, context.wrap_socket(plain, server_hostname=host) as secured:
        return secured.version()
