"""Tables of evasions against the rules for a subscriber's URL: what other filters had to learn, and every block's two ends."""

from ipaddress import ip_address, ip_network

import pytest

from sidecar.config.sections import TargetSettings
from sidecar.dispatch.target import Rule, Targets
from sidecar.errors import EndpointRefusedError

EVERYTHING = TargetSettings(public="any", allow=("0.0.0.0/0", "::/0"))
NO_LOOPBACK = TargetSettings(loopback=False, public="any")

NEVER = {
    Rule.LINK_LOCAL: ["169.254.0.0/16", "fe80::/10", "fec0::/10"],
    Rule.METADATA: ["168.63.129.16", "100.100.100.200", "fd00:ec2::254"],
    Rule.RESERVED: [
        *("0.0.0.0/8", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        *("::", "2001:db8::/32", "ff00::/8"),
    ],
    Rule.EMBEDDED: ["64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::ffff:0:0:0/96"],
}

DISGUISES = [
    *("http://2130706433/", "http://0x7f000001/", "http://0X7F000001/", "http://017700000001/", "http://0177.0.0.1/"),
    *("http://0177.0.0.01/", "http://0x7f.0.0.1/", "http://0x7f.1/", "http://127.0.0.0x1/", "http://127.1/", "http://127.0.1/"),
    *("http://127.0.0.1./", "http://localhost./", "http://localhost../", "http://.127.0.0.1/", "http://127..0.1/"),
    *(
        "http://127.0.0.256/",
        "http://08.0.0.1/",
        "http://1.2.3.4.5/",
        "http://console.1/",
        "http://console.0x7f/",
        "http://0x/",
    ),
    *("http://①②⑦.⓪.⓪.①/", "http://１２７.0.0.1/", "http://127。0。0。1/", "http://127。1/", "http://١٢٧.0.0.1/"),
    *("http://①⑥⑨.②⑤④.①⑥⑨.②⑤④/", "http://①⑨②.168.0.1/"),
]

UNREADABLE = [
    *("http://[::1%25eth0]/", "http://[::1%eth0]/", "http://[fe80::1%25eth0]/", "http://[::ffff:127.0.0.1%25lo]/"),
    *("http://127.0.0.1%00/", "http://127%2e0.0.1/", "http://%31%32%37.0.0.1/", "http://[127.0.0.1]/", "http://[v1.fe80::a]/"),
    *("http://127.0.0.1:80\\@console/", "http://console\\@127.0.0.1/", "http://127.0.0.1\u200b/", "http://lo\u00adcalhost/"),
]

LOOPBACK = [
    *("http://localhost/", "http://LOCALHOST/", "http://console.localhost/", "http://localho\u017ft/", "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/"),
    *("http://127.0.0.1/", "http://127.255.255.254/", "http://[::1]/", "http://[0:0:0:0:0:0:0:1]/", "http://[::0001]/"),
    *("http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[0:0:0:0:0:ffff:127.0.0.1]/"),
]


def rule_of(url, settings):
    """The rule that refuses to register the URL."""
    with pytest.raises(EndpointRefusedError) as refused:
        Targets(settings).check(url)
    return refused.value.rule


def url_of(address):
    return f"https://[{address}]/" if address.version == 6 else f"https://{address}/"


@pytest.mark.parametrize(("rule", "block"), [(rule, block) for rule, blocks in NEVER.items() for block in blocks])
def test_a_block_that_is_never_called_is_refused_from_end_to_end(rule, block):
    """Its first and its last address, plain and (IPv4) mapped into IPv6, though everything is allowed."""
    network = ip_network(block)
    ends = [network[0], network[-1]]
    if network.version == 4:
        ends += [ip_address(f"::ffff:{end}") for end in ends]

    assert [rule] * len(ends) == [rule_of(url_of(end), EVERYTHING) for end in ends]


@pytest.mark.parametrize("url", DISGUISES, ids=ascii)
def test_an_address_in_disguise_is_refused_as_a_host(url):
    """Whatever is allowed: libraries differ on what these mean."""
    assert "host" == rule_of(url, EVERYTHING)


@pytest.mark.parametrize("url", UNREADABLE, ids=ascii)
def test_an_address_with_something_in_it_is_no_url(url):
    """Zone ids, escapes, invisible characters, backslashes."""
    assert "syntax" == rule_of(url, EVERYTHING)


@pytest.mark.parametrize("url", LOOPBACK, ids=ascii)
def test_every_plain_form_of_loopback_is_loopback(url):
    """Also as a name: refused when this pod may not be called, and taken when it may."""
    assert Rule.LOOPBACK == rule_of(url, NO_LOOPBACK)
    assert Targets(TargetSettings()).check(url).host


@pytest.mark.parametrize(
    "outside", ["9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0"]
)
def test_the_neighbours_of_private_networks_are_public(outside):
    """No block is wider than it should be."""
    assert Rule.PLAIN_HTTP == rule_of(f"http://{outside}/", TargetSettings())
    assert Targets(TargetSettings(private=False)).check(f"https://{outside}/").host == outside
