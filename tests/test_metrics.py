"""The scrape: whole, true, of one moment, within bounds, and named as Prometheus wants it."""

import re
import threading
from itertools import pairwise

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from sidecar_process import eventually, free_port, on_disk

from sidecar import metrics
from sidecar.api.app import ROUTES

LADDER = {"transitions": {"BOOTING": ["IDLE"], "IDLE": ["ACTIVE", "SHUTDOWN"]}}
STATES = ["UNSPECIFIED", "BOOTING", "IDLE", "ACTIVE", "ERROR_STATE", "SHUTDOWN"]


def families(sidecar):
    """The scrape's families by their full name, as the strict reader of OpenMetrics sees them."""
    answer = sidecar.ops.get("/metrics", accept="application/openmetrics-text; version=1.0.0")
    found = list(parse_openmetrics(answer.body.decode()))
    return {family.name + ("_total" if family.type == "counter" else ""): family for family in found}


class Scrape(dict):
    """The samples of one scrape: `scrape["fsm_state", "state", "IDLE"]`; the labels in their order."""

    def __init__(self, sidecar):
        for family in parse_text(sidecar.ops.get("/metrics").body.decode()):
            for sample in family.samples:
                self[(sample.name, *(part for label in sorted(sample.labels.items()) for part in label))] = sample.value

    def __getitem__(self, key):
        return super().__getitem__(key if isinstance(key, tuple) else (key,))

    def values_of(self, name):
        """Label value → value, of a family with one label."""
        return {key[-1]: value for key, value in self.items() if key[0] == name}


# --- the promise layer ---


def all_entries(sidecar):
    """The whole history."""
    return sidecar.api.get("/v1/history?limit=1000").json["entries"]


def test_every_number_of_the_store_is_a_gauge_of_the_same_value(start, hook):
    """Word for word, and all of one moment; only `subscriber_count` has another name, for promtool's sake."""
    sidecar = start()
    sidecar.api.put("/v1/state", {"state": "IDLE", "version": 7})
    sidecar.api.put("/v1/state?enforce_version=true", {"state": "IDLE", "version": 7})
    sidecar.api.put("/v1/subscribers/a", {"url": hook.url})
    eventually(lambda: sidecar.api.get("/v1/metrics.json").json["notifications_sent"])
    numbers = sidecar.api.get("/v1/metrics.json").json
    scrape = Scrape(sidecar)
    age = numbers.pop("uptime_seconds")

    assert ("IDLE", 7, 1, 1) == tuple(
        numbers[key] for key in ("current_state", "current_version", "version_conflicts", "subscriber_count")
    )
    numbers["subscribers"] = numbers.pop("subscriber_count")
    del numbers["current_state"]
    gauges = {name.removeprefix("fsm_store_"): value for (name, *_), value in scrape.items() if name.startswith("fsm_store_")}
    assert age <= gauges.pop("uptime_seconds") < age + 10
    assert numbers == gauges


def test_the_values_of_a_scrape_are_of_one_moment(start, hook, tmp_path):
    """While somebody writes as fast as he can, what tells the same thing stays equal: numbers read, and numbers counted."""
    sidecar = start(journal=on_disk(tmp_path))
    sidecar.api.put("/v1/subscribers/a", {"url": hook.url})
    done = threading.Event()

    def write():
        while not done.is_set():
            sidecar.api.put("/v1/state", {"state": "IDLE"})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        scrapes = [Scrape(sidecar) for _ in range(30)]
    finally:
        done.set()
        writer.join()

    assert len({scrape["fsm_version"] for scrape in scrapes}) > 1
    for scrape in scrapes:
        assert scrape["fsm_version"] == scrape["fsm_store_current_version"] == scrape["fsm_journal_head_revision"] - 1
        assert scrape["fsm_sets_total"] == scrape["fsm_store_total_sets"] == scrape["fsm_journal_head_revision"]
        assert scrape["fsm_last_update_timestamp_seconds"] == scrape["fsm_store_last_update_ts"]
        attempts = sum(scrape.values_of("fsm_webhook_attempts_total").values())
        assert attempts == scrape["fsm_webhook_attempt_duration_seconds_count"]


def test_the_health_gauges_agree_with_the_health_check(start):
    """Before the first state, well, and with too many conflicts."""
    sidecar = start(fsm={"initial": None}, store={"max_subscribers": 1})
    steps = [lambda: None, lambda: sidecar.api.put("/v1/state", {"state": "IDLE"})]
    steps += [lambda: sidecar.api.put("/v1/state", {"state": "IDLE"}, if_none_match="*")]
    steps += [lambda: sidecar.api.put("/v1/subscribers/a", {"url": "http://127.0.0.1:9/"})]
    for step, failing in zip(
        steps, [{"initialised"}, set(), {"version_conflicts"}, {"version_conflicts", "subscribers"}], strict=True
    ):
        step()
        health, scrape = sidecar.api.get("/v1/health").json, Scrape(sidecar)
        told = {key[2]: value for key, value in scrape.items() if key[0] == "fsm_health_check_ok"}

        checks = ("version_conflicts", "initialised", "subscribers", "freshness", "heartbeat", "dwell")
        assert {name: name not in failing for name in checks} == told
        assert (health["healthy"], len(health["issues"]), len(health["warnings"])) == tuple(
            scrape[f"fsm_health_{name}"] for name in ("healthy", "issues", "warnings")
        )


# --- what there is from the start ---


def test_exactly_one_state_is_the_current_one(start):
    """1 for it, 0 for every other configured one; none before the first."""
    sidecar = start(fsm={"states": ["OFF", "WARM", "HOT"], "initial": None})
    empty = Scrape(sidecar)
    sidecar.api.put("/v1/state", {"state": "HOT"})
    hot = Scrape(sidecar)

    assert {"OFF": 0, "WARM": 0, "HOT": 0} == empty.values_of("fsm_state")
    assert {"OFF": 0, "WARM": 0, "HOT": 1} == hot.values_of("fsm_state")
    assert [(-1, -1, 0), (2, 0, 1)] == [
        (scrape["fsm_state_code"], scrape["fsm_version"], scrape["fsm_state_entered_timestamp_seconds"] > 0)
        for scrape in (empty, hot)
    ]


CONFLICTS = {
    ("stale_version", "stale"),
    ("stale_version", "equal"),
    ("wrong_expectation", "stale"),
    ("wrong_expectation", "ahead"),
    ("wrong_expectation", "exists"),
    ("wrong_expectation", "missing"),
    ("wrong_expectation", "state"),
    ("wrong_epoch", "epoch"),
    ("fenced", "stale"),
    ("fenced", "ahead"),
    ("fenced", "missing"),
    ("fenced", "epoch"),
}


def series(scrape, family):
    """Label values → value, of a family; the labels in the catalogue's order."""
    order = [sorted(family.label_names).index(name) for name in family.label_names]
    return {tuple(key[2::2][n] for n in order): value for key, value in scrape.items() if key[0] == family.name}


CLOSED = [
    family
    for family in metrics.CATALOGUE
    if family.labels and family.kind != "histogram" and all(label.values for label in family.labels)
]


def test_every_closed_set_of_labels_is_there_from_the_start(start, tmp_path):
    """At 0, so that a rate can rise from there and an alert finds its series; and nothing else is there."""
    scrape = Scrape(start(journal=on_disk(tmp_path)))
    found = {family.name: set(series(scrape, family)) for family in CLOSED}

    assert len(CLOSED) > 10
    assert {"fsm_health_check_ok"} == {
        name for family in CLOSED if (name := family.name) and set(family.combinations()) != found[name]
    }
    assert {0} == {value for family in CLOSED if family.kind == "counter" for value in series(scrape, family).values()}


def test_the_conflicts_of_every_configured_writer_are_there_at_zero(start):
    """Each kind with the reasons that it can have; and who may meet whom. Whoever is not configured is `other`."""
    scrape = Scrape(start(metrics={"writers": ["planner", "pilot"]}))
    writers = ["planner", "pilot", "other"]
    conflicts, rewrites = series(scrape, metrics.CONFLICTS), series(scrape, metrics.REWRITES)
    meetings = series(scrape, metrics.WRITER_CONFLICTS)

    assert {(*pair, writer): 0 for pair in CONFLICTS for writer in writers} == conflicts
    assert {(writer,): 0 for writer in writers} == rewrites
    assert {(a, b, outcome): 0 for a in writers for b in writers for outcome in ("rejected", "masked")} == meetings


def test_a_conflict_names_its_writer_and_the_winner(start):
    """In the numbers where both are configured, and always in the exemplar: with the versions that met."""
    sidecar = start(metrics={"writers": ["planner", "pilot"]})
    sidecar.api.put("/v1/state", {"state": "IDLE", "source_module": "pilot"})
    sidecar.api.put("/v1/state?enforce_version=true", {"state": "ACTIVE", "version": 0, "source_module": "planner"})
    sidecar.api.put("/v1/state?enforce_version=true", {"state": "ACTIVE", "version": 1, "source_module": "stranger"})
    sidecar.api.put("/v1/state", {"state": "ACTIVE", "version": 1, "source_module": "planner"})
    scrape, told = Scrape(sidecar), families(sidecar)["fsm_version_conflicts_total"].samples
    moved = {key: value for key, value in series(scrape, metrics.WRITER_CONFLICTS).items() if value}
    exemplars = {sample.labels["writer"]: sample.exemplar.labels for sample in told if sample.value}

    assert {("planner", "pilot", "rejected"): 1, ("other", "pilot", "rejected"): 1, ("planner", "pilot", "masked"): 1} == moved
    assert {"writer": "planner", "version": "0", "against": "pilot", "current": "1"} == exemplars["planner"]
    assert {"writer": "stranger", "version": "1", "against": "pilot", "current": "1"} == exemplars["other"]
    assert {("planner",): 1, ("pilot",): 0, ("other",): 0} == series(scrape, metrics.REWRITES)


def test_the_longest_names_fit_into_an_exemplar(start):
    """128 characters in all (OpenMetrics 1.0): longer names are cut, and the scrape stays readable."""
    sidecar = start()
    sidecar.api.put("/v1/state", {"state": "IDLE", "version": 2**53 - 3, "source_module": "é" * 128})
    sidecar.api.put("/v1/state?enforce_version=true", {"state": "IDLE", "version": 2**53 - 3, "source_module": '"\\n' * 32})
    (told,) = [each for each in families(sidecar)["fsm_version_conflicts_total"].samples if each.value]

    assert str(2**53 - 3) == told.exemplar.labels["current"]
    assert sum(len(name) + len(value) for name, value in told.exemplar.labels.items()) <= 128


def test_the_transitions_of_the_machine_are_there_at_zero(start):
    """All that are written in the config, and no others."""
    scrape = Scrape(start(fsm=LADDER))
    pairs = {(key[2], key[4]): value for key, value in scrape.items() if key[0] == "fsm_transitions_total"}

    assert {("BOOTING", "IDLE"): 0, ("IDLE", "ACTIVE"): 0, ("IDLE", "SHUTDOWN"): 0} == pairs


def test_a_small_machine_without_rules_has_every_pair_at_zero(start):
    """Each can happen."""
    scrape = Scrape(start(fsm={"states": ["OFF", "WARM", "HOT"], "initial": "OFF"}))

    assert {(a, b): 0 for a in ("OFF", "WARM", "HOT") for b in ("OFF", "WARM", "HOT") if a != b} == series(
        scrape, metrics.TRANSITIONS
    )


def test_the_pairs_of_a_large_machine_are_bounded(start):
    """256 of them have a series; the transitions of the others are counted together."""
    states = [f"S{n}" for n in range(24)]
    sidecar = start(fsm={"states": states, "initial": "S0"})
    moves = 0
    for step in range(1, 13):
        for n in range(24):
            sidecar.api.put("/v1/state", {"state": states[(n * step + n // 2) % 24]})
            moves += 1
    told = series(Scrape(sidecar), metrics.TRANSITIONS)

    assert len(told) <= 257
    assert sum(told.values()) == sum(
        before != after for before, after in pairwise(entry["snapshot"]["state"] for entry in all_entries(sidecar))
    )


def test_the_scrape_has_every_declared_family_and_no_other(start, tmp_path):
    """With its kind and its help, in both forms."""
    sidecar = start(journal=on_disk(tmp_path))
    sidecar.api.get("/v1/state")
    declared = {family.name: (family.kind, family.help) for family in metrics.CATALOGUE}
    told = {name: family for name, family in families(sidecar).items() if name.startswith("fsm_")}
    names = re.findall(r"^# TYPE (fsm_\w+)", sidecar.ops.get("/metrics").body.decode(), re.M)

    assert declared == {name: (family.type, family.documentation) for name, family in told.items()}
    assert sorted(declared) == sorted(names)


# --- names ---

RESERVED = {"le", "quantile", "job", "instance", "cluster", "namespace", "pod", "container", "node", "service", "severity"}
"""What belongs to the scraped target, to the alerts, or to the format."""

UNITS = r"_(ms|milliseconds|microseconds|us|ns|minutes|min|hours|days|kb|kib|mb|mib|kilobytes|megabytes|percent|pct)(_|$)"


@pytest.mark.parametrize("family", metrics.CATALOGUE, ids=lambda family: family.name)
def test_a_family_is_named_as_promtool_wants_it(family):
    """Lower case, base units, `_total` on counters and on nothing else, and no ending that a histogram needs."""
    assert re.fullmatch(r"fsm(_[a-z0-9]+)+", family.name)
    assert not re.search(UNITS, family.name)
    assert (family.kind == "counter") == family.name.endswith("_total")
    assert not family.name.endswith(("_count", "_sum", "_bucket", "_gauge", "_counter", "_histogram"))
    assert family.kind != "histogram" or family.name.endswith(("_seconds", "_bytes", "_writes"))
    assert family.help.endswith(".")
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", label) and label not in RESERVED for label in family.label_names)


# --- what counts what ---

EVENTS = {
    "a write": (("PUT", "/v1/state", {"state": "IDLE"}, {}), ["fsm_sets_total", ("fsm_transitions_total", "BOOTING", "IDLE")]),
    "a read": (("GET", "/v1/state", None, {}), ["fsm_gets_total"]),
    "a transition": (("POST", "/v1/transitions", {"to": "IDLE"}, {}), [("fsm_transitions_total", "BOOTING", "IDLE")]),
    "a rewrite": (
        ("PUT", "/v1/state", {"state": "BOOTING", "version": 0}, {}),
        [("fsm_version_rewrites_total", "other"), ("fsm_writer_conflicts_total", "other", "masked", "other")],
    ),
    "a stale version": (
        ("PUT", "/v1/state?enforce_version=true", {"state": "IDLE", "version": 0}, {}),
        [
            ("fsm_version_conflicts_total", "stale_version", "equal", "other"),
            ("fsm_writer_conflicts_total", "other", "rejected", "other"),
        ],
    ),
    "a wrong expectation": (
        ("PUT", "/v1/state", {"state": "IDLE"}, {"if_none_match": "*"}),
        [
            ("fsm_version_conflicts_total", "wrong_expectation", "exists", "other"),
            ("fsm_writer_conflicts_total", "other", "rejected", "other"),
        ],
    ),
    "a wrong epoch": (
        ("PUT", "/v1/state", {"state": "IDLE"}, {"if_match": '"lost-0"'}),
        [
            ("fsm_version_conflicts_total", "wrong_epoch", "epoch", "other"),
            ("fsm_writer_conflicts_total", "other", "rejected", "other"),
        ],
    ),
    "a token of another journal": (
        ("PUT", "/v1/state", {"state": "IDLE"}, {"writer_token": "lost-1"}),
        [
            ("fsm_version_conflicts_total", "fenced", "epoch", "other"),
            ("fsm_writer_conflicts_total", "other", "rejected", "other"),
        ],
    ),
    "an illegal move": (("PUT", "/v1/state", {"state": "ACTIVE"}, {}), [("fsm_illegal_transitions_total", "refused")]),
    "an unknown state": (("PUT", "/v1/state", {"state": "LOST"}, {}), ["fsm_unknown_states_total"]),
    "a move to an unknown state": (("POST", "/v1/transitions", {"to": "LOST"}, {}), ["fsm_unknown_states_total"]),
    "a subscription": (("PUT", "/v1/subscribers/a", {"url": "http://127.0.0.1:9/"}, {}), ["fsm_subscriptions_total"]),
    "a refused endpoint": (("PUT", "/v1/subscribers/a", {"url": "x"}, {}), [("fsm_subscriptions_rejected_total", "endpoint")]),
    "a refused subscriber": (
        ("PUT", "/v1/subscribers/b", {"url": "http://127.0.0.1:9/"}, {}),
        [("fsm_subscriptions_rejected_total", "limit")],
    ),
}
MOVED_BY_STATE = {"fsm_sets_total", "fsm_gets_total", "fsm_transitions_total", "fsm_version_rewrites_total"}


def counters(sidecar):
    """The store's and the roster's counters: (name, label value …) → value. Not those of HTTP and of the deliveries."""
    skipped = ("fsm_http", "fsm_webhook", "fsm_subscriber_", "fsm_notifications", "fsm_log", "process", "python")
    return {
        (name, *sample.labels.values()): sample.value
        for name, family in families(sidecar).items()
        for sample in family.samples
        if family.type == "counter" and not name.startswith(skipped)
    }


@pytest.mark.parametrize(("request_", "moved"), EVENTS.values(), ids=EVENTS)
def test_a_counter_moves_when_the_thing_happens(start, request_, moved):
    """By one, and no other counter with it but the accepted write's own."""
    places = 1 if "/b" in request_[1] else 2
    sidecar = start(fsm=LADDER, store={"max_subscribers": places})
    if places == 1:
        sidecar.api.put("/v1/subscribers/a", {"url": "http://127.0.0.1:9/"})
    before = counters(sidecar)
    method, path, body, headers = request_
    sidecar.api.ask(method, path, body, **headers)
    after = counters(sidecar)
    changed = {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}
    changed.pop(("fsm_sets_total",), None) if "fsm_sets_total" not in moved else None

    assert dict.fromkeys([key if isinstance(key, tuple) else (key,) for key in moved], 1) == changed


def test_deliveries_are_counted_by_their_outcome(start, hook):
    """Each attempt, its duration, and what became of the subscriber in the end."""
    sidecar = start()
    sidecar.api.put("/v1/subscribers/dead", {"url": f"http://127.0.0.1:{free_port()}/"})
    sidecar.api.put("/v1/subscribers/live", {"url": hook.url})
    eventually(lambda: Scrape(sidecar)["fsm_webhook_attempts_total", "outcome", "connect"])
    eventually(lambda: Scrape(sidecar)["fsm_notifications_total"])
    sidecar.api.put("/v1/state", {"state": "ACTIVE"})
    eventually(lambda: Scrape(sidecar)["fsm_notifications_total"] == 2)
    delivered = Scrape(sidecar)
    hook.answers(410)
    sidecar.api.put("/v1/state", {"state": "IDLE"})
    gone = eventually(lambda: (scrape := Scrape(sidecar))["fsm_subscribers_evicted_total", "reason", "gone"] and scrape)

    assert (2, 1) == (
        delivered["fsm_webhook_attempts_total", "outcome", "delivered"],
        delivered["fsm_propagation_delay_seconds_count"],
    )
    assert (
        sum(delivered.values_of("fsm_webhook_attempts_total").values())
        == delivered["fsm_webhook_attempt_duration_seconds_count"]
    )
    assert (1, 1) == (gone["fsm_webhook_attempts_total", "outcome", "gone"], gone["fsm_store_dead_subscribers_removed"])
    assert ({"active": 0, "degraded": 1, "suspended": 0, "evicted": 1}, 1) == (
        gone.values_of("fsm_subscribers"),
        gone["fsm_notifications_failed_total"],
    )
    assert 1 == gone["fsm_subscriber_status_changes_total", "status", "evicted"]


def test_requests_are_counted_by_route_and_not_by_path(start):
    """Whatever is asked for, the labels stay few."""
    sidecar = start()
    for n in range(20):
        sidecar.api.get(f"/v1/subscribers/nobody-{n}")
        sidecar.api.ask("GET", f"/nowhere/{n}?n={n}")
    sidecar.api.put("/v1/state", b"{")
    requests = {key: value for key, value in Scrape(sidecar).items() if key[0] == "fsm_http_requests_total"}
    told = {(key[6], key[4], key[2]): value for key, value in requests.items()}

    moved = {key: value for key, value in told.items() if value}
    at_zero = {(route, method, "200") for route, method in ROUTES}

    assert {("/v1/subscribers/{id}", "GET", "404"): 20, ("other", "GET", "404"): 20, ("/v1/state", "PUT", "400"): 1} == moved
    assert at_zero == set(told) - set(moved)


# --- bounds ---


def subscriber_series(sidecar):
    """Family name → the subscribers that have a series in it."""
    found = {}
    for name, family in families(sidecar).items():
        for sample in family.samples:
            if "subscriber" in sample.labels:
                found.setdefault(name, set()).add(sample.labels["subscriber"])
    return found


def test_the_series_of_a_subscriber_come_and_go_with_it(start, hook):
    """By its id, never by its URL; also when it is evicted."""
    sidecar = start()
    for name in ("a", "b", "c"):
        sidecar.api.put(f"/v1/subscribers/{name}", {"url": hook.url})
    there = subscriber_series(sidecar)
    sidecar.api.delete("/v1/subscribers/a")
    sidecar.api.put("/v1/subscribers/b", {"url": hook.url + "/gone"})
    hook.answers(410)
    sidecar.api.put("/v1/state", {"state": "IDLE"})
    eventually(lambda: Scrape(sidecar)["fsm_subscribers_evicted_total", "reason", "gone"] == 2)

    assert len(there) >= 6
    assert [{"a", "b", "c"}] * len(there) == list(there.values())
    assert {} == subscriber_series(sidecar)
    assert hook.url.encode() not in sidecar.ops.get("/metrics").body


def test_at_most_fifty_subscribers_have_series(start, hook):
    """The others are counted."""
    sidecar = start()
    for n in range(53):
        sidecar.api.put(f"/v1/subscribers/s{n}", {"url": hook.url})

    assert {50} == {len(names) for names in subscriber_series(sidecar).values()}
    assert (3, 53) == tuple(Scrape(sidecar)[name] for name in ("fsm_subscriber_series_suppressed", "fsm_store_subscribers"))
