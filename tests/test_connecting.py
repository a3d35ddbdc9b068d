"""Where a connection may go: the same rules at registration and on the address that is really called, whatever its form."""

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager
from ipaddress import IPv4Address

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nameserver import Nameserver
from receiver import PATIENCE_SECONDS, Receiver, answer
from sidecar_process import free_port
from yarl import URL

from sidecar.config.sections import TargetSettings
from sidecar.dispatch.connecting import client_session
from sidecar.dispatch.message import ping
from sidecar.dispatch.target import Rule, Targets
from sidecar.dispatch.webhook import Outcome, attempt
from sidecar.errors import EndpointRefusedError

CLOSED = TargetSettings(loopback=False, private=False, public="none")
OPEN = TargetSettings(public="any")


def refusal(address, port=80, scheme="http", own=(), **wishes):
    return Targets(TargetSettings(**wishes), own).refusal(address, port, scheme)


# --- the rule, by address ---


@pytest.mark.parametrize(
    ("rule", "addresses"),
    [
        (Rule.LINK_LOCAL, ["169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "fec0::1", "::ffff:169.254.169.254"]),
        (Rule.METADATA, ["168.63.129.16", "100.100.100.200", "fd00:ec2::254", "::ffff:6464:64c8"]),
        (Rule.EMBEDDED, ["::127.0.0.1", "::a9fe:a9fe", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1"]),
        (Rule.EMBEDDED, ["2002:a9fe:a9fe::1", "2002:7f00:1::", "2001:0:53aa:64c:0:0:5601:5601", "::ffff:0:127.0.0.1"]),
        (Rule.RESERVED, ["0.1.2.3", "0.255.255.255", "::", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"]),
        (Rule.RESERVED, ["ff02::1", "192.0.2.1", "198.51.100.7", "203.0.113.9", "2001:db8::1", "3fff::1", "198.18.0.1"]),
        (Rule.RESERVED, ["192.0.0.8", "100::1", "", "nonsense"]),
    ],
    ids=str,
)
def test_some_addresses_are_never_called(rule, addresses):
    """Not even when everything is allowed."""
    everything = {"public": "any", "allow": ("0.0.0.0/0", "::/0")}

    assert dict.fromkeys(addresses, rule) == {address: refusal(address, **everything) for address in addresses}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_called_if_configured(address):
    """It is by default: receivers may live in the same pod."""
    assert (None, Rule.LOOPBACK) == (refusal(address), refusal(address, loopback=False))


@pytest.mark.parametrize("address", ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fd12::1"])
def test_private_networks_are_called_if_configured(address):
    """They are by default: that is the cluster."""
    assert (None, Rule.PRIVATE) == (refusal(address), refusal(address, private=False))


@pytest.mark.parametrize("address", ["93.184.216.34", "172.32.0.1", "11.0.0.1", "100.128.0.1", "2606:2800:220:1::1"])
def test_the_public_is_called_by_https_unless_configured_otherwise(address):
    """Plain http only with `any`; nothing with `none`."""
    assert (None, Rule.PLAIN_HTTP) == (refusal(address, 443, "https"), refusal(address))
    assert (None, None) == (refusal(address, 443, "https", public="any"), refusal(address, public="any"))
    assert (Rule.PUBLIC, Rule.PUBLIC) == (refusal(address, 443, "https", public="none"), refusal(address, public="none"))


def test_allow_and_deny_come_before_the_defaults():
    """And deny comes before allow."""
    closed = {"loopback": False, "private": False, "public": "none", "allow": ("127.0.0.1", "10.1.0.0/16", "93.184.216.0/24")}

    assert [None] * 3 == [refusal(address, **closed) for address in ("127.0.0.1", "10.1.2.3", "93.184.216.34")]
    assert [Rule.LOOPBACK, Rule.PRIVATE] == [refusal(address, **closed) for address in ("127.0.0.2", "10.2.0.1")]
    assert Rule.DENIED is refusal("10.1.2.3", deny=("10.1.2.0/24",), allow=("10.0.0.0/8",))


def test_the_cluster_itself_is_not_called(monkeypatch):
    """The API server at its port, and kubelets; another service at that address may be."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")

    assert [Rule.CONTROL_PLANE, None] == [refusal("10.96.0.1", port, "https") for port in (443, 8443)]
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00:0:0::1")
    assert Rule.CONTROL_PLANE is refusal("fd00::1", 443, "https")
    assert [Rule.CONTROL_PLANE] * 2 == [refusal("10.0.0.7", port, "https") for port in (10250, 10255)]


def test_the_sidecar_does_not_call_itself():
    """By none of this host's addresses; another host may listen on the same port."""
    assert [Rule.OWN_LISTENER] * 3 == [refusal(a, 8470, own=[8470]) for a in ("127.0.0.1", "127.9.9.9", "::ffff:127.0.0.1")]
    assert (None, None) == (refusal("127.0.0.1", 8472, own=[8470]), refusal("10.255.255.254", 8470, own=[8470]))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("10.255.255.254", 9))  # sends nothing; tells this host's own address, where it has one
        own = probe.getsockname()[0]
    assert Rule.OWN_LISTENER is refusal(own, 8470, own=[8470])


# --- forms of an address ---

FORMS = [
    *("http://{}/", "http://[::ffff:{}]/"),
    *("http://2852039166/", "http://0xa9fea9fe/", "http://0xA9.0xFE.0xA9.0xFE/", "http://0251.0376.0251.0376/"),
    *("http://169.254.43518/", "http://169.16689662/", "http://0251.254.169.254/", "http://169.254.169.254./"),
    *("http://[::a9fe:a9fe]/", "http://[64:ff9b::a9fe:a9fe]/", "http://[2002:a9fe:a9fe::]/", "http://[::ffff:a9fe:a9fe]/"),
    *("http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://①⑥⑨.②⑤④.①⑥⑨.②⑤④/", "http://１６９.254.169.254/"),
    *("http://169。254。169。254/", "http://169.254.169.254%00.example/", "http://169.254.169.254@example.com:80@x/"),
    *("http://127.1/", "http://127.0.1/", "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://0/"),
    *("http://127.0.0.1./", "http://[::127.0.0.1]/", "http://[::]/", "http://0.0.0.0/", "http://[0:0:0:0:0:ffff:7f00:1]/"),
    *("http://localhost/", "http://LOCALHOST/", "http://a.localhost/", "http://①②⑦.⓪.⓪.①/", "http://127.0.0.1%2f@x/"),
    *("http://0x7f.0.0.0x1/", "http://127.000.000.001/", "http://00000127.0.0.1/", "http://1.2.3.0x/"),
    *("http://127.0.0.1\t/", "http://127.0.0.1\\@example.com/", "http://exa mple/", "http:\\\\127.0.0.1/", "http://[::1]x/"),
]


@asynccontextmanager
async def canary():
    """A receiver on loopback that must never be reached."""
    async with Receiver() as reached:
        yield reached
        assert not reached.connections


async def called(url, targets, **options):
    """How an attempt ends: the rule that forbids it, or its outcome."""
    async with client_session(targets, **options) as session:
        timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
        result = await attempt(session, URL(url), ping(epoch="k3f9", subscriber_id="s", now=0.0), (), timeout)
        return result.rule or str(result.outcome)


async def registered_and_called(url, port, targets):
    """What stops it: at registration, or when it is called."""
    host, slash, rest = url.removeprefix("http://").partition("/")
    url = f"http://{host}:{port}{slash}{rest}"
    try:
        targets.check(url)
    except EndpointRefusedError as refused:
        return refused.rule
    return await called(url, targets)


@pytest.mark.parametrize("form", FORMS)
async def test_no_form_of_a_forbidden_address_gets_through(form):
    """Loopback is forbidden here, link-local always: nobody is called, and nothing but a rule says why."""
    async with canary() as reached:
        rule = await registered_and_called(form.format("169.254.169.254"), reached.port, Targets(CLOSED))

    assert rule not in [str(outcome) for outcome in Outcome if outcome is not Outcome.REFUSED]


def forms_of(number):
    """Ways to write an IPv4 address that one library or another understands."""
    parts = IPv4Address(number).packed
    spelled = st.tuples(
        *[st.sampled_from([f"{part}", f"0x{part:x}", f"0{part:o}", f"{part:04d}", f"0X{part:02X}"]) for part in parts]
    )
    high, low = number >> 16, number & 0xFFFF
    wrapped = ["::ffff:{}", "::{}", "64:ff9b::{}", "64:ff9b:1::{}", "::ffff:0:{}", "0:0:0:0:0:ffff:{}"]
    mapped = st.sampled_from(wrapped).flatmap(
        lambda form: st.sampled_from([form.format(IPv4Address(number)), form.format(f"{high:x}:{low:x}")])
    )
    whole = st.sampled_from([str(number), hex(number), f"0{number:o}", f"{parts[0]}.{number & 0xFFFFFF}"])
    return spelled.map(".".join) | mapped.map("[{}]".format) | whole | st.just(f"[2002:{high:x}:{low:x}::]")


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_spelling_of_the_metadata_service_passes(data):
    """However the number is written: refused at registration, or by the rule that its address meets when it is called."""
    for number in (int(IPv4Address("169.254.169.254")), int(IPv4Address("127.0.0.1"))):
        host = data.draw(forms_of(number))
        with pytest.raises(EndpointRefusedError):
            Targets(CLOSED).check(f"http://{host}:9000/")


# --- at the connection ---


async def test_a_name_is_judged_by_its_address_when_it_is_called():
    """It was registered as a name; what it stands for may not be called."""
    async with canary() as reached, Nameserver(evil_example=[["127.0.0.1"]]) as names:
        targets = Targets(CLOSED)
        url = targets.check(f"http://evil.example:{reached.port}/")

        assert Rule.LOOPBACK == await called(url, targets, nameservers=[names.address])
        assert ["evil.example"] == names.asked


async def test_a_name_that_changes_its_address_is_judged_again():
    """The first connection is made; at the next one the name stands for the metadata service."""
    names = Nameserver(rebind_example=[["127.0.0.1"], ["169.254.169.254"]])
    async with Receiver(answer(200, Connection="close")) as receiver, names:
        url, targets = f"http://rebind.example:{receiver.port}/", Targets(OPEN)
        outcomes = [await called(url, targets, nameservers=[names.address]) for _ in range(2)]

    assert ["delivered", Rule.LINK_LOCAL] == outcomes
    assert 1 == len(receiver.requests)


async def test_of_several_addresses_only_those_allowed_are_called():
    """A forbidden one beside it does no harm, and gets nothing."""
    async with Receiver() as receiver, Nameserver(both_example=[["169.254.169.254", "127.0.0.1"]]) as names:
        outcome = await called(f"http://both.example:{receiver.port}/", Targets(OPEN), nameservers=[names.address])
    async with Nameserver(both_example=[["169.254.169.254", "169.254.169.253", "fe80::1"]]) as names:
        refused = await called("http://both.example/", Targets(OPEN), nameservers=[names.address])

    async with Nameserver(both_example=[["169.254.169.254", "127.0.0.1"]]) as names:
        nobody = await called(f"http://both.example:{free_port()}/", Targets(OPEN), nameservers=[names.address])

    assert ("delivered", Rule.LINK_LOCAL, "connect") == (outcome, refused, nobody)


async def test_a_redirect_leads_nowhere():
    """Its target is not even looked at."""
    async with canary() as reached, Receiver(answer(307, Location=reached.url)) as receiver:
        assert "redirect" == await called(receiver.url, Targets(OPEN))


async def test_a_name_of_the_sidecars_own_listener_is_not_called():
    """Loopback may be called, but not there."""
    async with canary() as reached:
        assert Rule.OWN_LISTENER == await called(f"http://localhost:{reached.port}/", Targets(OPEN, [reached.port]))


async def test_plain_http_to_the_public_is_judged_at_the_connection():
    """The scheme counts there too."""
    async with Nameserver(public_example=[["93.184.216.34"]]) as names:
        assert Rule.PLAIN_HTTP == await called("http://public.example/", Targets(TargetSettings()), nameservers=[names.address])


# --- names ---


async def test_hung_lookups_delay_nobody():
    """Forty names that are never answered; one that is, is called while they wait. In the end each of them is a DNS failure."""
    async with contextlib.AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Receiver())
        names = await stack.enter_async_context(Nameserver(well_example=[["127.0.0.1"]]))
        sessions = client_session(Targets(OPEN), dns_timeout_seconds=3.0, nameservers=[names.address])
        session = await stack.enter_async_context(sessions)

        async def call(name):
            timeout, message = aiohttp.ClientTimeout(total=PATIENCE_SECONDS), ping(epoch="k3f9", subscriber_id="s", now=0.0)
            return (await attempt(session, URL(f"http://{name}:{receiver.port}/"), message, (), timeout)).outcome

        hung = [asyncio.create_task(call(f"hung{n}.example")) for n in range(40)]
        for _ in hung:
            await names.waiting.acquire()
        well = await call("well.example")
        pending = sum(not task.done() for task in hung)
        outcomes = {await task for task in hung}

    assert (Outcome.DELIVERED, 40, {Outcome.DNS}) == (well, pending, outcomes)


async def test_a_name_that_does_not_exist_is_a_dns_failure():
    """Told apart from a connection that fails."""
    async with Nameserver(nobody_example=[[]]) as names:
        assert "dns" == await called("http://nobody.example/", Targets(OPEN), nameservers=[names.address])


async def test_a_lookup_under_way_does_not_outlive_its_session():
    """When a session is closed, its lookups end with it, and nothing is left to call back."""
    async with Nameserver() as names:
        sessions = client_session(Targets(OPEN), dns_timeout_seconds=PATIENCE_SECONDS, nameservers=[names.address])
        async with sessions as session:
            calling = asyncio.create_task(session.get("http://hung.example/"))
            await names.waiting.acquire()
    with pytest.raises((asyncio.CancelledError, aiohttp.ClientError)):
        await calling
