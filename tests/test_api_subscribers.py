"""Subscribers over HTTP: registering, looking, removing, pinging; and what they may ask for."""

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from receiver import held
from secrecy import CANARY
from sidecar_process import eventually, free_port, on_disk, problem_of
from standardwebhooks import Webhook

OWN = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOWHERE = "http://127.0.0.1:9/hook"
FIELDS = {
    "id",
    "url",
    "timeout",
    "max_lag",
    "on",
    "states",
    "max_batch",
    "source",
    "status",
    "cursor",
    "lag",
    "failures",
    "last_outcome",
    "last_http_status",
}
FIELDS |= {"last_success_at", "evicted"}


@pytest.fixture
def api(start):
    return start().api


@pytest.fixture
def quiet_api(start):
    """Without a state there is nothing to deliver: nobody is called, no name is looked up."""
    return start(fsm={"initial": None}).api


def status_of(api, subscriber_id):
    return api.get(f"/v1/subscribers/{subscriber_id}").json["status"]


def kind_of(got):
    return json.loads(got.body)["type"]


# --- registering ---


def test_a_registration_is_idempotent(api, hook):
    """201, then 200 with the new settings; the place of the cursor is kept."""
    first = api.put("/v1/subscribers/console", {"url": hook.url, "timeout": "250ms", "max_lag": 0})
    hook.wait_for(1)
    eventually(lambda: api.get("/v1/subscribers/console").json["cursor"] == 1)
    second = api.put("/v1/subscribers/console", {"url": hook.url + "/2"})

    assert (201, FIELDS | {"secret"}) == (first.status, set(first.json))
    assert (200, FIELDS) == (second.status, set(second.json))
    assert (hook.url, "250ms", 0, "api") == tuple(first.json[key] for key in ("url", "timeout", "max_lag", "source"))
    assert (hook.url + "/2", None, None, 1, 0) == tuple(
        second.json[key] for key in ("url", "timeout", "max_lag", "cursor", "lag")
    )
    assert ["/v1/subscribers/console"] * 2 == [answer.headers["Location"] for answer in (first, second)]


def test_a_subscriber_gets_the_current_state_at_once_and_then_each_new_one(api, hook):
    """The first delivery is marked as the initial one."""
    api.put("/v1/subscribers/console", {"url": hook.url})
    current = api.get("/v1/state").json
    first = hook.wait_for(1)[0]
    changed = api.put("/v1/state", {"state": "IDLE"}).json
    second = hook.wait_for_revision(2)

    assert ("fsm.state.changed", "fsm.state.changed") == (kind_of(first), kind_of(second))
    assert current | {"initial": True, "previous_revision": 0, "skipped": 0} == first.data
    assert changed | {"initial": False, "previous_revision": 1, "skipped": 0} == second.data


def test_an_id_can_be_made(api, hook):
    """POST takes one or makes one, tells where the subscriber is, and is idempotent by id as well."""
    made = api.post("/v1/subscribers", {"url": hook.url})
    given = api.post("/v1/subscribers", {"url": hook.url, "id": "Console_1-a"})
    again = api.post("/v1/subscribers", {"url": hook.url, "id": "Console_1-a"})

    assert [201, 201, 200] == [answer.status for answer in (made, given, again)]
    assert re.fullmatch("sub-[0-9a-f]{16}", made.json["id"])
    assert made.json["id"] == api.get(made.headers["Location"]).json["id"]
    assert "/v1/subscribers/Console_1-a" == given.headers["Location"] == again.headers["Location"]


# --- secrets ---


def signed_with(secret, got):
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    return Webhook(secret).verify(got.body, {name: got.headers[name] for name in names})


def test_a_secret_that_the_sidecar_made_is_told_once(api, hook):
    """To whoever registered; deliveries are signed with it."""
    secret = api.put("/v1/subscribers/console", {"url": hook.url}).json["secret"]
    answers = [
        api.put("/v1/subscribers/console", {"url": hook.url}),
        api.get("/v1/subscribers/console"),
        api.get("/v1/subscribers"),
    ]

    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret)
    assert [False] * 3 == [secret.encode() in answer.body for answer in answers]
    assert signed_with(secret, hook.wait_for(1)[0])


def test_a_secret_of_ones_own_is_never_told(api, hook):
    """It stays when the subscriber is changed without one, and signs."""
    answers = [api.put("/v1/subscribers/console", {"url": hook.url, "secret": OWN})]
    answers += [api.put("/v1/subscribers/console", {"url": hook.url}), api.get("/v1/subscribers/console")]
    api.put("/v1/state", {"state": "IDLE"})

    assert [201, 200, 200] == [answer.status for answer in answers]
    assert [False] * 3 == [OWN.encode() in answer.body for answer in answers]
    assert signed_with(OWN, hook.wait_for_revision(2))


def test_whoever_comes_back_after_an_eviction_is_not_told_the_secret_again(api, hook):
    """201, and it resumes from its cursor; but the secret was told once, or is its own."""
    told = [api.put("/v1/subscribers/a", {"url": hook.url}).json["secret"], OWN]
    api.put("/v1/subscribers/b", {"url": hook.url, "secret": OWN})
    hook.wait_for(2)
    hook.answers(410)
    api.put("/v1/state", {"state": "IDLE"})
    eventually(lambda: [status_of(api, each) for each in "ab"] == ["evicted", "evicted"])
    hook.answers(200)
    back = [api.put(f"/v1/subscribers/{each}", {"url": hook.url}) for each in "ab"]
    eventually(lambda: [api.get(f"/v1/subscribers/{each}").json["cursor"] for each in "ab"] == [2, 2])

    assert [(201, 1), (201, 1)] == [(answer.status, answer.json["cursor"]) for answer in back]
    assert [] == [secret for secret in told for answer in back if secret.encode() in answer.body]


SECRETS = [
    "",
    "whsec_",
    OWN.removeprefix("whsec_"),
    "whsec_c2hvcnQ=",
    f"whsec_{'A' * 92}",
    OWN + "!",
    "whsec_ä" * 9,
]


@pytest.mark.parametrize("secret", SECRETS, ids=repr)
def test_a_secret_that_is_none_is_refused_and_not_repeated(api, secret):
    """422 at $.secret; nobody is registered."""
    answer = api.put("/v1/subscribers/console", {"url": NOWHERE, "secret": secret})

    assert "$.secret" == problem_of(answer, 422, "invalid")["path"]
    assert not secret.strip("whsec_") or secret not in answer.json["detail"]
    assert [] == api.get("/v1/subscribers").json["subscribers"]


# --- what may be asked for ---

REFUSED = {
    f"http://user:{CANARY}@127.0.0.1/": "credentials",
    f"http://{CANARY}@127.0.0.1/": "credentials",
    f"http://127.0.0.1/#{CANARY}": "fragment",
    "http://127.0.0.1:0/": "port",
    f"ftp://127.0.0.1/{CANARY}": "scheme",
    f"file:///{CANARY}": "scheme",
    "127.0.0.1:80": "scheme",
    "//127.0.0.1/": "scheme",
    f"http:///{CANARY}": "scheme",
    "": "scheme",
    "http://127.0.0.1:99999/": "syntax",
    "http://[::1": "syntax",
    "http://a b/": "syntax",
    "http://\x00/": "syntax",
    f"http://127.0.0.1/\r\nX: {CANARY}": "syntax",
    "http://xn--/": "syntax",
    f"http://127.0.0.1/{'x' * 2048}": "length",
}


@pytest.mark.parametrize(("url", "rule"), REFUSED.items(), ids=[repr(url[:40]) for url in REFUSED])
def test_an_endpoint_that_may_not_be_called_is_refused(api, url, rule):
    """422 with the rule, by both routes, and without repeating the URL: it may hold a password."""
    for answer in (api.put("/v1/subscribers/a", {"url": url}), api.post("/v1/subscribers", {"url": url})):
        assert rule == problem_of(answer, 422, "endpoint-refused")["rule"]
        assert CANARY.encode() not in answer.body
    assert [] == api.get("/v1/subscribers").json["subscribers"]


urls = st.builds("http://{}{}".format, st.text(max_size=12), st.sampled_from(["", "/", ":9/", "/a?b=c", "#x"])) | st.text()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(urls)
def test_no_url_causes_a_fault(quiet_api, url):
    """Each is taken or refused, and whoever was taken can be looked at and removed again."""
    answer = quiet_api.put("/v1/subscribers/a", {"url": url})

    assert answer.status in (201, 422)
    if answer.status == 201:
        assert url == quiet_api.get("/v1/subscribers/a").json["url"]
        assert 204 == quiet_api.delete("/v1/subscribers/a").status


WRONG = {
    "timeout": ["0s", "30.1s", "31s", "1h", "5", "-1s", "soon", "", 5, True],
    "max_lag": [-1, 1.5, "1", 2**53, True],
    "url": [None, 1, ["http://a/"]],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_a_setting_out_of_bounds_is_refused(api, field, value):
    """422 with its path."""
    answer = api.put("/v1/subscribers/a", {"url": NOWHERE} | {field: value})

    assert f"$.{field}" == problem_of(answer, 422, "invalid")["path"]


@pytest.mark.parametrize("body", [{}, {"url": NOWHERE, "retry": 1}, {"url": NOWHERE, "id": "a"}, []])
def test_a_registration_with_too_little_or_too_much_is_refused(api, body):
    """The id is in the path of a PUT, and only there."""
    assert "$" == problem_of(api.put("/v1/subscribers/a", body), 422, "invalid")["path"]


@pytest.mark.parametrize(("timeout", "told"), [("30s", "30s"), ("1ms", "1ms"), ("0.5m", "30s"), (None, None)])
@pytest.mark.parametrize("max_lag", [0, 1, 10**6, None])
def test_a_setting_within_bounds_is_kept(api, timeout, told, max_lag):
    """None is the default of the configuration."""
    answer = api.put("/v1/subscribers/a", {"url": NOWHERE, "timeout": timeout, "max_lag": max_lag})

    assert (201, told, max_lag) == (answer.status, answer.json["timeout"], answer.json["max_lag"])


@pytest.mark.parametrize("name", ["-a", "_a", "a" * 64, "a%20b", "a%2Fb", "a.b", "%C3%A4", "%00", "a%0A", "%E2%82%AC"])
def test_an_id_is_letters_digits_and_dashes(api, name):
    """422 on every route: it becomes a label and part of a message's id."""
    ways = [("PUT", "", {"url": NOWHERE}), ("GET", "", None), ("DELETE", "", None), ("POST", "/ping", None)]
    for method, rest, body in ways:
        problem_of(api.ask(method, f"/v1/subscribers/{name}{rest}", body), 422, "invalid")
    assert "$.id" == problem_of(api.post("/v1/subscribers", {"url": NOWHERE, "id": name}), 422, "invalid")["path"]


# --- looking and removing ---


def test_everybody_is_listed_and_found_by_id(api):
    """In the order of registration, each as by itself."""
    for name in ("c", "a", "b"):
        api.put(f"/v1/subscribers/{name}", {"url": NOWHERE})
    listed = api.get("/v1/subscribers").json["subscribers"]

    assert ["c", "a", "b"] == [each["id"] for each in listed]
    assert [FIELDS] * 3 == [set(each) for each in listed]
    assert "a" == api.get("/v1/subscribers/a").json["id"]


def test_whoever_is_removed_is_gone(api, hook):
    """204, then 404 on every route; nothing is delivered any more, and coming back begins anew."""
    api.put("/v1/subscribers/a", {"url": hook.url})
    hook.wait_for_revision(1)
    gone = api.delete("/v1/subscribers/a")
    for method, path in (("DELETE", ""), ("GET", ""), ("POST", "/ping")):
        problem_of(api.ask(method, f"/v1/subscribers/a{path}"), 404, "unknown-subscriber")
    api.put("/v1/state", {"state": "IDLE"})
    back = api.put("/v1/subscribers/a", {"url": hook.url})

    assert (204, b"") == (gone.status, gone.body)
    assert (201, None) == (back.status, back.json["cursor"])
    assert [True, True] == [got.data["initial"] for got in hook.wait_for(2)]


def test_whoever_comes_while_being_removed_is_served(start, hook, tmp_path):
    """Removing and registering at the same moment, again and again: after a 201 or 200 the deliveries come."""
    sidecar = start(journal=on_disk(tmp_path))
    with ThreadPoolExecutor(2) as pool:
        for turn in range(2, 32):
            sidecar.api.put("/v1/subscribers/a", {"url": hook.url})
            removing = pool.submit(sidecar.api.delete, "/v1/subscribers/a")
            coming = pool.submit(sidecar.api.put, "/v1/subscribers/a", {"url": hook.url})
            assert (204, True) == (removing.result().status, coming.result().status in (200, 201))
            sidecar.api.put("/v1/state", {"state": "IDLE"})
            if sidecar.api.get("/v1/subscribers/a").status == 200:
                hook.wait_for_revision(turn)


def test_the_places_are_limited(start, hook):
    """409 with the limit; whoever is there can still change, and a place that was left can be taken."""
    api = start(store={"max_subscribers": 2}).api
    for name in ("a", "b"):
        api.put(f"/v1/subscribers/{name}", {"url": hook.url})

    assert 2 == problem_of(api.put("/v1/subscribers/c", {"url": hook.url}), 409, "subscriber-limit")["limit"]
    assert 2 == problem_of(api.post("/v1/subscribers", {"url": hook.url}), 409, "subscriber-limit")["limit"]
    assert 200 == api.put("/v1/subscribers/a", {"url": hook.url}).status
    assert ["a", "b"] == [each["id"] for each in api.get("/v1/subscribers").json["subscribers"]]
    assert 204 == api.delete("/v1/subscribers/a").status
    assert 201 == api.put("/v1/subscribers/c", {"url": hook.url}).status


def test_a_subscriber_of_the_config_file_belongs_to_it(start, hook, tmp_path):
    """409 for changing and removing it; it is served, listed and can be pinged."""
    api = start(subscribers=[{"id": "console", "url": hook.url, "timeout": "1s"}], journal=on_disk(tmp_path)).api
    hook.wait_for_revision(1)

    problem_of(api.put("/v1/subscribers/console", {"url": NOWHERE}), 409, "configured-subscriber")
    problem_of(api.post("/v1/subscribers", {"url": NOWHERE, "id": "console"}), 409, "configured-subscriber")
    problem_of(api.delete("/v1/subscribers/console"), 409, "configured-subscriber")
    view = api.get("/v1/subscribers/console").json
    assert ("config", hook.url, "1s") == (view["source"], view["url"], view["timeout"])
    assert "delivered" == api.post("/v1/subscribers/console/ping").json["outcome"]


def test_pings_of_a_receiver_that_hangs_keep_nobody_from_the_api(start, hook):
    """They take no place of other requests; one too many is refused, and does not queue up behind them."""
    gate = asyncio.Event()
    hook.answers(held(gate))
    one = {"listen": "127.0.0.1:0", "limits": {"requests": 1}}
    api = start(api=one, webhooks={"max_in_flight": 16}, fsm={"initial": None}).api
    api.put("/v1/subscribers/console", {"url": hook.url, "timeout": "10s"})
    with ThreadPoolExecutor() as pool:
        ping = pool.submit(api.post, "/v1/subscribers/console/ping")
        hook.wait_for(1)
        problem_of(api.post("/v1/subscribers/console/ping"), 503, "overloaded")
        assert 200 == api.get("/v1/subscribers").status
        hook.call(gate.set)

        assert "delivered" == ping.result().json["outcome"]


def test_a_ping_tells_how_it_went(api, hook):
    """The outcome, the status and the seconds; it carries no state and moves no cursor."""
    api.put("/v1/subscribers/live", {"url": hook.url})
    api.put("/v1/subscribers/dead", {"url": f"http://127.0.0.1:{free_port()}/"})
    hook.wait_for_revision(1)
    live, dead = api.post("/v1/subscribers/live/ping"), api.post("/v1/subscribers/dead/ping")
    hook.answers(503)
    sick = api.post("/v1/subscribers/live/ping")
    pings = [got.data for got in hook.got if kind_of(got) == "fsm.ping"]

    assert [200] * 3 == [answer.status for answer in (live, dead, sick)]
    told = [(answer.json["outcome"], answer.json["status"]) for answer in (live, dead, sick)]
    assert [("delivered", 200), ("connect", None), ("server_error", 503)] == told
    assert [{"epoch": api.get("/v1/state").json["epoch"]}] * 2 == pings
    assert 0 < live.json["seconds"] < 5
