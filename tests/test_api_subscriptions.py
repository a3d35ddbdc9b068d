"""Where a subscriber begins, what it asks for, and its secrets over time, as the API takes it."""

import pytest
from sidecar_process import eventually, problem_of
from standardwebhooks import Webhook, WebhookVerificationError

OWN = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_dGhpcyBpcyBub3QgdGhlIHNhbWUgc2VjcmV0IQ=="


@pytest.fixture
def api(start):
    """The API of a sidecar with the state BOOTING, revision 1."""
    return start().api


def write(api, *states):
    for state in states:
        assert 200 == api.put("/v1/state", {"state": state}).status


def cursor_of(api):
    return api.get("/v1/subscribers/console").json["cursor"]


def signed_by(secret, got):
    """Whether the official library takes it."""
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    try:
        return bool(Webhook(secret).verify(got.body, {name: got.headers[name] for name in names}))
    except WebhookVerificationError:
        return False


# --- where to begin ---


def test_a_new_subscriber_can_begin_at_a_revision(api, hook):
    """Each from there on, none of them marked as the initial one."""
    write(api, "IDLE", "ACTIVE", "IDLE")
    answer = api.put("/v1/subscribers/console?from=2", {"url": hook.url})
    got = hook.wait_for(3)

    assert (201, 1) == (answer.status, answer.json["cursor"])
    assert [(2, 1, False), (3, 2, False), (4, 3, False)] == [
        (each.data["revision"], each.data["previous_revision"], each.data["initial"]) for each in got
    ]


def test_a_subscriber_can_go_back(api, hook):
    """To a revision, and it gets all from there on again; to the next one, and it gets nothing again."""
    api.put("/v1/subscribers/console", {"url": hook.url})
    hook.wait_for(1)
    write(api, "IDLE", "ACTIVE")
    hook.wait_for_revision(3)
    api.put("/v1/subscribers/console?from=2", {"url": hook.url})
    again = hook.wait_for(5)[3:]
    eventually(lambda: cursor_of(api) == 3)
    api.put("/v1/subscribers/console?from=4", {"url": hook.url})
    write(api, "IDLE")
    [last] = hook.wait_for(6)[5:]

    assert [2, 3] == [each.data["revision"] for each in again]
    assert (4, 3) == (last.data["revision"], last.data["previous_revision"])


def test_a_subscriber_can_begin_anew_with_the_latest(api, hook):
    """As if it had just registered: the current state, marked as initial, no gap told."""
    api.put("/v1/subscribers/console", {"url": hook.url})
    hook.wait_for(1)
    hook.answers(500)
    write(api, "IDLE", "ACTIVE")
    hook.wait_for(2)
    hook.answers(200)
    api.put("/v1/subscribers/console?from=latest", {"url": hook.url})
    eventually(lambda: cursor_of(api) == 3)
    data = hook.wait_for(3)[-1].data

    assert (3, 0, 0, True) == tuple(data[key] for key in ("revision", "previous_revision", "skipped", "initial"))


@pytest.mark.parametrize("begin", ["0", "3", "-1", "x", "", "1.0", "9" * 30, "earliest", "%32%32", "0" * 19 + "1999", "01"])
def test_where_nothing_is_nobody_can_begin(api, hook, begin):
    """422 at `from`; nobody is registered."""
    answer = api.put(f"/v1/subscribers/console?from={begin}", {"url": hook.url})

    assert "from" == problem_of(answer, 422, "invalid")["path"]
    assert [] == api.get("/v1/subscribers").json["subscribers"]


def test_beyond_its_max_lag_nobody_can_begin(api, hook):
    """It would jump at once: 422, and the first revision that can be had."""
    write(api, "IDLE", "ACTIVE", "IDLE")
    refused = api.put("/v1/subscribers/console?from=2", {"url": hook.url, "max_lag": 2})
    taken = api.put("/v1/subscribers/console?from=3", {"url": hook.url, "max_lag": 2})

    assert "begin at 3 or later" in problem_of(refused, 422, "invalid")["detail"]
    assert (201, 2) == (taken.status, taken.json["cursor"])


def test_what_is_compacted_is_nowhere_to_begin(start, hook):
    """410 with the oldest revision that is kept."""
    api = start(journal={"backend": "memory", "retention": {"revisions": 2}}, webhooks={"max_lag": 2}).api
    write(api, *["IDLE", "ACTIVE"] * 3)
    eventually(lambda: api.get("/v1/history?after=4").status == 410)

    assert 6 == problem_of(api.put("/v1/subscribers/console?from=2", {"url": hook.url}), 410, "compacted")["oldest"]


# --- what to get ---


def test_what_a_subscriber_asked_for_is_shown(api, hook):
    """Its filter and its batch; what it does not say is everything, one by one."""
    asked = api.put("/v1/subscribers/a", {"url": hook.url, "on": ["transition"], "states": ["IDLE"], "max_batch": 7}).json
    plain = api.put("/v1/subscribers/b", {"url": hook.url}).json
    names = ("on", "states", "max_batch")

    assert [["transition"], ["IDLE"], 7] == [asked[name] for name in names]
    assert [["transition", "update"], None, 1] == [plain[name] for name in names]


def test_a_filter_leaves_out_what_was_not_asked_for(api, hook):
    """The cursor goes on without a call; what comes next says no gap."""
    api.put("/v1/subscribers/console", {"url": hook.url, "states": ["ACTIVE"]})
    hook.wait_for(1)
    write(api, "IDLE", "IDLE")
    eventually(lambda: cursor_of(api) == 3)
    write(api, "ACTIVE")
    data = hook.wait_for(2)[-1].data

    assert (4, 1, 0) == tuple(data[key] for key in ("revision", "previous_revision", "skipped"))


@pytest.mark.parametrize(
    ("wish", "path"),
    [
        ({"on": []}, "$.on"),
        ({"on": ["everything"]}, "$.on[0]"),
        ({"on": "transition"}, "$.on"),
        ({"states": []}, "$.states"),
        ({"states": ["IDLE", "SLEEPING"]}, "$.states[1]"),
        ({"max_batch": 0}, "$.max_batch"),
        ({"max_batch": 101}, "$.max_batch"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for_is_refused(api, hook, wish, path):
    """422 at its place."""
    assert path == problem_of(api.put("/v1/subscribers/console", {"url": hook.url} | wish), 422, "invalid")["path"]


# --- secrets ---


def test_after_a_rotation_both_secrets_sign(api, hook):
    """The new one is told once; its receiver can take it up at any time until the old one ends."""
    old = api.put("/v1/subscribers/console", {"url": hook.url}).json["secret"]
    answer = api.post("/v1/subscribers/console/rotate")
    write(api, "IDLE")
    got = hook.wait_for_revision(2)

    assert (200, {"id", "secret", "previous_valid_until"}) == (answer.status, set(answer.json))
    assert answer.json["secret"] != old
    assert 2 == len(got.headers["webhook-signature"].split())
    assert signed_by(old, got)
    assert signed_by(answer.json["secret"], got)


def test_a_new_secret_in_a_change_is_a_rotation_too(api, hook):
    """The old one signs beside it; the same one again is none."""
    api.put("/v1/subscribers/console", {"url": hook.url, "secret": OWN})
    api.put("/v1/subscribers/console", {"url": hook.url, "secret": OTHER})
    api.put("/v1/subscribers/console", {"url": hook.url, "secret": OTHER})
    write(api, "IDLE")
    got = hook.wait_for_revision(2)

    assert (2, True, True) == (len(got.headers["webhook-signature"].split()), signed_by(OWN, got), signed_by(OTHER, got))


def test_after_the_overlap_only_the_new_secret_signs(start, hook):
    """Here there is none."""
    api = start(webhooks={"secret_overlap": "0s"}).api
    api.put("/v1/subscribers/console", {"url": hook.url, "secret": OWN})
    api.put("/v1/subscribers/console", {"url": hook.url, "secret": OTHER})
    write(api, "IDLE")
    got = hook.wait_for_revision(2)

    assert (False, True) == (signed_by(OWN, got), signed_by(OTHER, got))


def test_who_rotates_often_keeps_the_newest(api, hook):
    """The one in force and three before it."""
    secrets = [api.put("/v1/subscribers/console", {"url": hook.url}).json["secret"]]
    secrets += [api.post("/v1/subscribers/console/rotate").json["secret"] for _ in range(5)]
    write(api, "IDLE")
    got = hook.wait_for_revision(2)

    assert [False, False, True, True, True, True] == [signed_by(secret, got) for secret in secrets]


def test_nobody_unknown_and_nobody_of_the_config_file_is_rotated(start, hook):
    """404, and 409: its secret is in its file."""
    api = start(subscribers=[{"id": "console", "url": hook.url}]).api

    problem_of(api.post("/v1/subscribers/nobody/rotate"), 404, "unknown-subscriber")
    problem_of(api.post("/v1/subscribers/console/rotate"), 409, "configured-subscriber")
