"""Clients of an API that speaks TLS: they trust whom they are told to, show their certificate, and say what is wrong."""

import asyncio
import datetime
import socket
import ssl

import pytest
from sidecar_process import free_port
from test_client_cli import run
from test_listening import tls

from sidecar import FsmSnapshot, FsmState
from sidecar.client import StateClient, UnavailableError


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
    """Of another host, or of yesterday: not trusted, why, and what to do about it: that nobody is to be trusted for."""
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    for host, end, why, mend in (
        ("other.example", None, "mismatch", "ask by a name that stands in it"),
        ("127.0.0.1", yesterday, "expired", "api.tls.cert_file"),
    ):
        url = f"https://{start(**tls(**ours.server(host, not_after=end))).api.address}"
        code, err = told(url, "--ca-file", ours.file)
        assert (69, True, True, False) == (code, why in err, mend in err, "--ca-file" in err), err
        with pytest.raises(UnavailableError, match=mend) as failed:
            asyncio.run(written(url, ours.context()))
        assert ("not-applied", True) == (failed.value.outcome, why in str(failed.value))


def test_a_command_shows_its_certificate(secured, ours, theirs, tmp_path):
    """Where clients have to; without one, or with a stranger's, it is told that one may be wanted."""
    url = secured(client_ca_file=ours.file)
    mine, strange = ours.client("mine"), theirs.client("strange")

    assert (0, "") == told(url, "--ca-file", ours.file, "--cert-file", mine)
    for flags in ([], ["--cert-file", strange]):
        code, err = told(url, "--ca-file", ours.file, *flags)
        assert (69, True) == (code, "--cert-file" in err), err


def test_plain_http_is_told_from_nobody(start):
    """Somebody is there, who does not speak TLS: exit 69, and nothing about whether it runs."""
    code, err = told(f"https://{start().api.address}")

    assert (69, True, False) == (code, "is it http://" in err, "is it running?" in err), err


def test_a_write_with_a_wrong_certificate_may_be_on_its_way(secured, ours):
    """TLS 1.3 refuses it after the request: the command says so, and it has not counted."""
    url = secured(client_ca_file=ours.file)
    code, out, err = run(None, "state", "set", "IDLE", "--url", url, "--ca-file", ours.file)

    assert (69, "", True, True) == (code, out, "--cert-file" in err, "it may count or not" in err), err
    files = "--ca-file", ours.file, "--cert-file", ours.client("mine")
    assert (0, "BOOTING\n", "") == run(None, "state", "get", "--field", "state", "--url", url, *files)


def test_files_that_are_none_are_told(tmp_path):
    """By their name and what was expected; exit 64, and nobody was asked."""
    url = f"https://127.0.0.1:{free_port()}"
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("nonsense")
    for flags, said in (
        (["--ca-file", nonsense], f"{nonsense}: expected a certificate of a CA, as PEM"),
        (["--cert-file", nonsense], f"{nonsense}: expected a certificate and its key"),
        (["--ca-file", tmp_path / "nowhere"], f"{tmp_path / 'nowhere'}: No such file"),
        (["--key-file", nonsense], "--key-file: expected --cert-file too"),
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
            with pytest.raises(UnavailableError, match=r"not trusted .* ssl= says whom to trust") as failed:
                await store.set(FsmSnapshot(6, FsmState.ACTIVE))
            assert "not-applied" == failed.value.outcome
    for context in (ours.context(), ours.context(theirs)):
        async with StateClient(url, ssl=context, retry_for=0) as store:
            with pytest.raises(UnavailableError, match="may want a certificate of yours, by ssl="):
                await store.get()
    async with StateClient(url, ssl=ours.context(ours)) as store:
        assert FsmState.IDLE is (await store.get()).state


async def written(url, context):
    """One try to write."""
    async with StateClient(url, ssl=context, retry_for=0, states=FsmState) as store:
        await store.set(FsmSnapshot(5, FsmState.IDLE))


def test_the_selfcheck_speaks_tls(start, ours, theirs):
    """With the flags of the other commands, and their words for what is wrong; exit 69, and 64 for files that are none."""
    sidecar = start(**tls(**ours.server(), client_ca_file=ours.file))
    url = f"https://{sidecar.api.address}"

    def checked(*flags):
        code, out, err = run(None, "selfcheck", url, "--ops", sidecar.ops.address, *flags)
        return code, out + err

    code, said = checked("--ca-file", ours.file, "--cert-file", ours.client("mine"))
    assert (0, True) == (code, said.endswith(f"{url} keeps its contract\n")), said
    for flags, expected, mend in (
        ([], 69, "--ca-file says whom to trust"),
        (["--ca-file", theirs.file], 69, "--ca-file says whom to trust"),
        (["--ca-file", ours.file], 69, "--cert-file"),
        (["--ca-file", "/nowhere"], 64, "/nowhere: No such file"),
    ):
        code, said = checked(*flags)
        assert (expected, 1, True) == (code, said.count("\n"), mend in said), said


def test_the_alerts_are_asked_for_over_tls(start, ours):
    """Where something in front of the metrics speaks it: whom to trust is told by the same flags."""
    address = start(**tls(**ours.server())).api.address
    untrusted = run(None, "alerts", f"https://{address}", "--interval", "0s")
    trusted = run(None, "alerts", f"https://{address}", "--interval", "0s", "--ca-file", ours.file)

    assert (69, True) == (untrusted[0], "--ca-file says whom to trust" in untrusted[2])
    assert (69, True) == (trusted[0], "answers 404, not metrics" in trusted[2])


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
