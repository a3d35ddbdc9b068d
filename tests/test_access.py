"""Who may do what: with tokens, every request needs one that has the scope of its route."""

from contextlib import closing
from http.client import HTTPConnection

import pytest
from holders import TOKENS, WRONG, bearer, entry, one_for_each_scope
from hypothesis import given
from hypothesis import strategies as st
from scraping import of
from secrecy import token
from sidecar_process import BASE, problem_of

from sidecar.access import ANYBODY, EVERYTHING, MAX_PEERS, Access, Scope, holder
from sidecar.api.app import PUBLIC_ROUTES, SCOPES
from sidecar.config.sections import Token
from sidecar.errors import ForbiddenError, TooManyFailuresError, UnauthorizedError

CHALLENGE = "WWW-Authenticate"


def guarded_by(tokens, **settings):
    """The section of an API with these tokens."""
    return {"api": BASE["api"] | {"tokens": tokens} | settings}


@pytest.fixture
def guarded(start, tmp_path):
    """A sidecar that has a holder for each scope."""
    return start(**guarded_by(one_for_each_scope(tmp_path), max_auth_failures=100_000))


# --- every route ---


def test_every_route_is_for_its_scope_alone(guarded):
    """Each route and method of the router, with each token, with a wrong one and with none: let in, or told what lacks."""
    for (template, method), scope in SCOPES.items():
        path = template.replace("{id}", "a") + "?nonsense=1"  # those who are let in are refused for that
        for has, held in TOKENS.items():
            answer = guarded.api.ask(method, path, **bearer(held))
            if has in (scope, Scope.ADMIN):
                assert 400 == answer.status, (template, method, has)
            else:
                assert 403 == answer.status, (template, method, has)
                assert f'Bearer error="insufficient_scope", scope="{scope}"' == answer.headers[CHALLENGE]
                assert method == "HEAD" or scope == problem_of(answer, 403, "forbidden")["scope"]
        for headers in ({}, bearer(WRONG)):
            answer = guarded.api.ask(method, path, **headers)
            assert (401, "Bearer") == (answer.status, answer.headers[CHALLENGE]), (template, method)


def test_what_is_not_there_is_not_told_without_a_token(guarded):
    """Unknown paths, wrong methods and the right ones are 401 as well; with any token they are what they are."""
    unknown = [
        ("POST", "/"),
        ("GET", "/v1/nowhere"),
        ("PATCH", "/v1/health"),
        ("OPTIONS", "/v1/state"),
        ("GET", "/v1/subscribers/a/b"),
    ]
    without = [guarded.api.ask(*each).status for each in unknown]
    with_one = [guarded.api.ask(*each, **bearer(TOKENS[Scope.SUBSCRIBE])).status for each in unknown]

    assert [401] * 5 == without
    assert [True] * 5 == [status in (403, 404, 405, 204) for status in with_one]


def test_only_the_files_of_the_status_page_are_for_everybody(guarded):
    """They hold no data; each route without a scope has to be named here."""
    methods = ("GET", "HEAD")
    assert {(template, method) for template in ("/", "/page/{file}") for method in methods} == PUBLIC_ROUTES
    assert [200] * 4 == [guarded.api.ask(method, path).status for path in ("/", "/page/main.js") for method in methods]
    assert 404 == guarded.api.get("/page/state").status


def test_scopes_of_the_configuration_are_those_of_the_routes():
    """The same words in both places."""
    (scopes,) = (field for field in Token.__struct_fields__ if field == "scopes")
    literal = Token.__annotations__[scopes].__origin__.__args__[0]
    assert set(Scope) == set(literal.__args__)


# --- presenting a token ---


def test_the_answer_does_not_tell_what_was_wrong(guarded):
    """No token, a wrong one, half of one, too much, another scheme, two of them: the same bytes, but for the date."""
    good = TOKENS[Scope.READ]
    wrong = [
        None,
        "Bearer",
        "Bearer ",
        f"Bearer {WRONG}",
        f"Bearer {good[:-1]}",
        f"Bearer {good}x",
        f"Bearer {good},",
        f"Bearer {good} {good}",
        f"Basic {good}",
        good,
        f"Bearer {'x' * 3000}",
        "Bearer ü\xff\x80",
        [f"Bearer {good}", f"Bearer {good}"],
    ]
    answers = [guarded.api.get("/v1/state", authorization=each) for each in wrong]

    assert {(401, "Bearer")} == {(answer.status, answer.headers[CHALLENGE]) for answer in answers if answer.status != 400}
    assert 1 == len({answer.body for answer in answers if answer.status != 400})
    assert "unauthorized" == answers[0].json["type"]
    assert [401] * 12 == [answer.status for answer in answers[:-1]]
    assert answers[-1].status in (400, 401)  # twice: the parser may refuse it first


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_may_be_written_in_any_case(guarded, scheme):
    """RFC 9110, section 11.1."""
    assert 200 == guarded.api.get("/v1/state", authorization=f"{scheme} {TOKENS[Scope.READ]}").status


def test_old_and_new_tokens_count_together(start, tmp_path):
    """So that they can be changed without a moment in which neither counts; several holders may have the same scope."""
    old, new, long = token("old", 32), token("new", 32), token("long", 256)
    tokens = [
        entry(tmp_path, "agent", ["state:read", "state:write"], old, new),
        entry(tmp_path, "viewer", ["state:read"], long),
    ]
    api = start(**guarded_by(tokens)).api
    read = [api.get("/v1/state", **bearer(held)).status for held in (old, new, long)]
    written = [api.put("/v1/state", {"state": "IDLE"}, **bearer(held)).status for held in (old, new, long)]

    assert [200, 200, 200] == read
    assert [200, 200, 403] == written


class Door:
    """A connection."""

    def __init__(self, peer="peer"):
        self.peer = peer
        self.shown = None


@given(token=st.text(), tokens=st.lists(st.binary(min_size=1, max_size=40), max_size=4, unique=True))
def test_only_a_token_that_is_known_lets_in(token, tokens):
    """Whatever was sent: an error that is meant, and nothing else."""
    access = Access([holder("known", ["admin"], tokens)], max_failures=10**9)
    encoded = token.encode("utf-8").strip()
    try:
        caller = access.admit([f"Bearer {token}"], Scope.ADMIN, Door())
    except UnauthorizedError:
        assert encoded not in tokens
    else:
        assert ("known", EVERYTHING) == (caller.name, caller.scopes)
        assert encoded in tokens


def test_each_request_of_a_connection_is_judged_by_what_it_presents(guarded):
    """Whatever was presented before: another token counts as that one, none as none, and a wrong one not at all."""
    reader, writer = TOKENS[Scope.READ], TOKENS[Scope.WRITE]
    presented = [reader, reader, WRONG, reader, writer, None, reader, reader + "x", reader]
    with closing(HTTPConnection(guarded.api.address, timeout=10)) as connection:
        statuses = []
        for token in presented:
            connection.request("GET", "/v1/machine", headers={"Authorization": f"Bearer {token}"} if token else {})
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)

    assert [200, 200, 401, 200, 403, 401, 200, 401, 200] == statuses


@given(steps=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([Scope.READ, Scope.WRITE, None]), st.booleans())))
def test_what_a_connection_presented_before_changes_nothing(steps):
    """However tokens come and go meanwhile: it is answered as a new connection is."""
    holders = [holder("a", ["state:read"], [b"a"]), holder("b", ["admin"], [b"b"])]
    access, kept = Access(holders, max_failures=10**9), Door()

    def outcome(name, scope, door):
        try:
            return access.admit([f"Bearer {name}"], scope, door).name
        except (ForbiddenError, UnauthorizedError) as error:
            return type(error)

    for name, scope, swapped in steps:
        if swapped:
            holders.reverse()
            access.hold(holders[:1])
        assert outcome(name, scope, Door()) == outcome(name, scope, kept)


def test_an_unknown_route_needs_any_token():
    """And a known one the scope."""
    access = Access([holder("reader", ["state:read"], [b"token"])])
    assert "reader" == access.admit(["Bearer token"], None, Door()).name
    with pytest.raises(ForbiddenError):
        access.admit(["Bearer token"], Scope.WRITE, Door())


# --- without tokens ---


def test_without_tokens_whoever_reaches_it_may_do_everything(start):
    """Said once at the start; a token that somebody sends all the same is not looked at."""
    sidecar = start()

    assert ["ready", "api_open"] == [line["event"] for line in sidecar.log]
    assert 200 == sidecar.api.put("/v1/state", {"state": "IDLE"}, **bearer(WRONG)).status
    assert EVERYTHING == ANYBODY.scopes


def test_with_tokens_it_is_not_said_to_be_open(guarded):
    """It is not."""
    assert [] == [line for line in guarded.log if line["event"] == "api_open"]


# --- guessing ---


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_who_guesses_too_often_is_told_to_wait_and_a_valid_token_passes(start, tmp_path):
    """Ten in a second by default; what is counted says why each was not let in."""
    sidecar = start(**guarded_by(one_for_each_scope(tmp_path)))
    answers = [sidecar.api.get("/v1/state", **bearer(WRONG)) for _ in range(200)]
    limited = [answer for answer in answers if answer.status == 429]

    assert [401] * 10 == [answer.status for answer in answers[:10]]
    assert limited
    assert "1" == limited[0].headers["Retry-After"]
    problem_of(limited[0], 429, "too-many-failures")
    assert 200 == sidecar.api.get("/v1/state", **bearer(TOKENS[Scope.READ])).status
    assert 200 == len(limited) + of(sidecar, "fsm_http_auth_failures_total", reason="unknown")
    assert len(limited) == of(sidecar, "fsm_http_auth_failures_total", reason="limited")


def test_every_reason_is_counted(guarded):
    """By a closed set of names."""
    guarded.api.get("/v1/state")
    guarded.api.get("/v1/state", **bearer(WRONG))
    guarded.api.put("/v1/state", {"state": "IDLE"}, **bearer(TOKENS[Scope.READ]))
    counts = {
        reason: of(guarded, "fsm_http_auth_failures_total", reason=reason)
        for reason in ("missing", "unknown", "scope", "limited")
    }
    assert {"missing": 1, "unknown": 1, "scope": 1, "limited": 0} == counts


def test_peers_are_limited_each_for_itself_and_for_a_second():
    """The limit is for whoever fails; a second later it begins anew."""
    clock = Clock()
    access = Access([holder("known", ["admin"], [b"token"])], max_failures=3, clock=clock)

    def fails_with(peer):
        with pytest.raises((UnauthorizedError, TooManyFailuresError)) as refusal:
            access.admit([], Scope.READ, Door(peer))
        return refusal.type

    assert [UnauthorizedError] * 3 + [TooManyFailuresError] * 2 == [fails_with("a") for _ in range(5)]
    assert UnauthorizedError is fails_with("b")
    assert "known" == access.admit(["Bearer token"], Scope.READ, Door("a")).name
    clock.now += 1
    assert UnauthorizedError is fails_with("a")


def test_a_bounded_number_of_peers_is_remembered():
    """However many come; the newest are."""
    access = Access([holder("known", ["admin"], [b"token"])], max_failures=1, clock=Clock())
    for n in range(2 * MAX_PEERS):
        access.failures.too_many(str(n))

    assert not access.failures.too_many("0")
    assert access.failures.too_many(str(2 * MAX_PEERS - 1))


# --- what others may see ---


def test_where_webhooks_go_is_for_those_who_may_change_it(guarded, hook):
    """To others the path, which often is the receiver's secret, is not shown."""
    url = hook.url + "/s3cret?key=1"
    made = guarded.api.put("/v1/subscribers/a", {"url": url}, **bearer(TOKENS[Scope.SUBSCRIBE]))
    seen = {}
    for scope in (Scope.READ, Scope.ADMIN):
        one = guarded.api.get("/v1/subscribers/a", **bearer(TOKENS[scope])).json["url"]
        (each,) = guarded.api.get("/v1/subscribers", **bearer(TOKENS[scope])).json["subscribers"]
        seen[scope] = one, each["url"]

    assert url == made.json["url"]
    assert {Scope.READ: (hook.url.removesuffix("/hook"),) * 2, Scope.ADMIN: (url, url)} == seen


def test_tokens_are_not_told_anywhere(start, tmp_path):
    """Not in logs, metrics or answers, whether they are right, wrong, or of too little."""
    sidecar = start(**guarded_by(one_for_each_scope(tmp_path)))
    texts = [
        str((answer.headers.items(), answer.body))
        for token in (*TOKENS.values(), WRONG)
        for answer in (
            sidecar.api.get("/v1/state", **bearer(token)),
            sidecar.api.put("/v1/state", {"state": "NO"}, **bearer(token)),
        )
    ]
    texts += [sidecar.ops.get("/metrics").body.decode(), str(sidecar.log)]

    assert [] == [token for token in (*TOKENS.values(), WRONG) if any(token in text for text in texts)]
