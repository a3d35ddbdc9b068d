"""Which endpoints may be called: the rules for a subscriber's URL, each with its name."""

import pytest

from sidecar.config.sections import Config, Subscriber
from sidecar.dispatch.target import MAX_URL, Targets, check_url
from sidecar.errors import ConfigError, EndpointRefusedError


@pytest.mark.parametrize(
    "text",
    [
        "http://console",
        "https://console.example/hook",
        "http://127.0.0.1:9000/hook?a=b&c=%20",
        "http://[::1]:9000/",
        "HTTPS://Console.Example/Hook",
        "http://console.example:65535/",
        "https://bücher.example/hook",
        "https://xn--bcher-kva.example/hook",
        "http://agent_1.pod.svc.cluster.local/",
        "http://console/" + "x" * (MAX_URL - len("http://console/")),
    ],
)
def test_an_http_url_with_a_host_may_be_called(text):
    """Names, addresses of both kinds, ports, paths and queries, up to the longest."""
    url = check_url(text)

    assert url.scheme in ("http", "https")
    assert url.host


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "scheme"),
        ("console", "scheme"),
        ("/hook", "scheme"),
        ("//console/hook", "scheme"),
        ("http://", "scheme"),
        ("http:///hook", "scheme"),
        ("http:console", "scheme"),
        ("ftp://console/hook", "scheme"),
        ("ws://console/hook", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("javascript:alert(1)", "scheme"),
        ("unix:/run/console.sock", "scheme"),
        ("http://user@console/", "credentials"),
        ("http://user:hunter2@console/", "credentials"),
        ("http://:hunter2@console/", "credentials"),
        ("http://a@b@console/", "credentials"),
        ("http://console/#top", "fragment"),
        ("http://console:0/", "port"),
        ("http://console:65536/", "syntax"),
        ("http://console:-1/", "syntax"),
        ("http://console:http/", "syntax"),
        ("http://[::1/", "syntax"),
        ("http://[::1]x/", "syntax"),
        ("http://con sole/", "syntax"),
        ("http://con\r\nsole/", "syntax"),
        ("http://console\x00/", "syntax"),
        ("http://console%0a/", "syntax"),
        ("http://console/\r\nX-Header: y", "syntax"),
        ("http://*/", "syntax"),
        ("http://xn--/", "syntax"),
        ("http://xn--a/", "syntax"),
        ("http://xn--a-ecp.example/", "syntax"),
        ("http://console/" + "x" * (MAX_URL - len("http://console/") + 1), "length"),
        ("http://console:" + "9" * 100_000, "length"),
    ],
)
def test_a_url_that_breaks_a_rule_is_refused_by_that_rule(text, rule):
    """The first rule it breaks; an odd URL is a refusal, never another kind of error."""
    with pytest.raises(EndpointRefusedError) as refused:
        check_url(text)

    assert rule == refused.value.rule


@pytest.mark.parametrize(
    "text", ["http://user:hunter2@console/", "ftp://hunter2/", "http://console:hunter2/", "http://[hunter2/"]
)
def test_a_refusal_does_not_repeat_the_url(text):
    """It may hold a password."""
    with pytest.raises(EndpointRefusedError) as refused:
        check_url(text)

    assert "hunter2" not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_a_configured_subscriber_that_may_not_be_called_is_told_before_the_start():
    """All of them at once, each with its place and what to do."""
    subscribers = [
        Subscriber(id="own", url="http://127.0.0.1:8470/hook"),
        Subscriber(id="well", url="http://console/hook"),
        Subscriber(id="metadata", url="http://169.254.169.254/latest"),
    ]
    with pytest.raises(ConfigError) as refused:
        Targets.of(Config(subscribers=tuple(subscribers)))

    assert ["subscribers[0].url", "subscribers[2].url"] == [problem.partition(":")[0] for problem in refused.value.problems]
