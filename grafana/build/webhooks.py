"""Webhooks: do subscribers get what they should, how fast, and who does not."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from grafana.build import frame, promql
from grafana.build.looks import BAD_ABOVE_ZERO, GREEN, LAG, ORANGE, RED, YELLOW
from grafana.build.panels import Query, graph, heat_map, stat_of
from grafana.build.promql import INTERVAL, WHO, each, increase, of, quantile, rate, sum_each, total
from grafana.build.tables import Column, Link, table_of
from sidecar import metrics as m

CHOSEN = 'subscriber=~"$subscriber"'
FAILED = 'outcome!="delivered"'
ENDED = ("suspended", "evicted")


def webhooks() -> Dashboard:
    board = frame.dashboard(
        frame.WEBHOOKS,
        "Webhooks",
        "Deliveries: how many succeed, how fast, who is behind or given up, and what was missed.",
        marks=False,
        subscriber=True,
    )
    for panel in (*_now(), *_outcome(), *_latency(), *_subscribers(), *_registrations()):
        board.with_panel(panel)
    return board


def _now() -> list[object]:
    attempts, failed = total(increase(m.ATTEMPTS)), total(increase(m.ATTEMPTS, FAILED))
    return [
        stat_of(
            "Attempts that succeed",
            "Share of HTTP attempts in this time range that ended with a 2xx.",
            "percentunit",
            Query(f"1 - {failed} / ({attempts} > 0)"),
            steps=((0.9, YELLOW), (0.99, GREEN)),
            base=RED,
            decimals=1,
        ),
        stat_of(
            "Within 1 s",
            "Share of deliveries in this time range that had their 2xx within a second of the write.",
            "percentunit",
            Query(promql.within_a_second(m.PROPAGATION_SECONDS, promql.RANGE)),
            steps=((0.95, YELLOW), (0.99, GREEN)),
            base=RED,
            decimals=1,
        ),
        stat_of(
            "Furthest behind",
            "Revisions that the slowest of all served subscribers has not acknowledged yet.",
            "short",
            Query(f"max({of(m.LAG_MAX)})"),
            steps=LAG,
        ),
        stat_of(
            "Not well",
            "Subscribers that fail now: degraded or suspended.",
            "short",
            Query(total(of(m.SUBSCRIBERS, 'status=~"degraded|suspended"'))),
            steps=((1, ORANGE),),
        ),
        stat_of(
            "Evicted",
            "Subscribers evicted in this time range: they get nothing until they register again.",
            "short",
            Query(f"round({total(increase(m.EVICTIONS))})"),
            steps=BAD_ABOVE_ZERO,
        ),
        stat_of(
            "Revisions missed",
            "Revisions that subscribers were told in this time range they will not get.",
            "short",
            Query(f"round({total(increase(m.SKIPPED))})"),
            steps=BAD_ABOVE_ZERO,
        ),
    ]


def _outcome() -> list[object]:
    return [
        graph(
            "Attempts by outcome",
            "HTTP attempts a second. busy: the receiver asked to come later (408, 425, 429). refused: a rule forbids its "
            "address.",
            "ops",
            Query(total(rate(m.ATTEMPTS), "outcome"), "{{outcome}}"),
            stacked=True,
        ),
        graph(
            "Gaps and what was skipped",
            "Deliveries that told a gap, and the revisions in it, by the reason: too far behind (max_lag), history gone "
            "(compacted), while it was suspended, or lost with a journal.",
            "short",
            Query(total(increase(m.GAPS, over=INTERVAL), "reason"), "gaps: {{reason}}"),
            Query(total(increase(m.SKIPPED, over=INTERVAL), "reason"), "revisions: {{reason}}"),
        ),
        graph(
            "Evictions",
            "By reason. failing: too often and for too long. gone: it answered 410. unconfigured: no longer in the config "
            "file.",
            "short",
            Query(sum_each(increase(m.EVICTIONS, over=INTERVAL), "reason"), f"{{{{reason}}}} {WHO}"),
            width=8,
            agent_link=True,
        ),
        graph(
            "Changes of status",
            "By the new status: one failure makes degraded, the last retry suspended, one success active again.",
            "short",
            Query(sum_each(increase(m.STATUS_CHANGES, over=INTERVAL), "status"), f"{{{{status}}}} {WHO}"),
            width=8,
            red=f"^({'|'.join(ENDED)})",
        ),
        graph(
            "Notifications",
            "A second: delivered to subscribers of all kinds, and given up on.",
            "ops",
            Query(total(rate(m.NOTIFICATIONS)), "delivered"),
            Query(total(rate(m.NOTIFICATIONS_FAILED)), "given up"),
            width=8,
            red="given up",
        ),
    ]


def _latency() -> list[object]:
    return [
        heat_map(
            "Attempts by duration",
            "How many attempts took how long. A band at the timeout is a receiver that hangs.",
            Query(total(increase(f"{m.ATTEMPT_SECONDS.name}_bucket", over=INTERVAL), "le"), "{{le}}"),
        ),
        graph(
            "Duration of an attempt",
            "Half, 95 and 99 of 100 attempts are faster. The line is the timeout, unless a subscriber has its own.",
            "s",
            Query(quantile(0.5, m.ATTEMPT_SECONDS), "p50"),
            Query(quantile(0.95, m.ATTEMPT_SECONDS), "p95"),
            Query(quantile(0.99, m.ATTEMPT_SECONDS), "p99", exemplar=True),
            Query(f"max({of(m.TIMEOUT_SECONDS)})", "timeout"),
            dashed="timeout",
        ),
        graph(
            "From the write to the 2xx",
            "Half and 99 of 100 subscribers have a revision by then, retries included.",
            "s",
            Query(quantile(0.5, m.PROPAGATION_SECONDS), "p50"),
            Query(quantile(0.99, m.PROPAGATION_SECONDS), "p99", exemplar=True),
            width=8,
        ),
        graph(
            "Share within 1 s",
            "Of deliveries, by the time from the write to the 2xx.",
            "percentunit",
            Query(promql.within_a_second(m.PROPAGATION_SECONDS, INTERVAL, *promql.VARIABLES)),
            width=8,
            most=1,
        ),
        graph(
            "Attempts under way",
            "Beside the limit: at it, deliveries wait for each other.",
            "short",
            Query(each(of(m.IN_FLIGHT)), f"under way {WHO}"),
            Query(each(of(m.IN_FLIGHT_LIMIT)), f"limit {WHO}"),
            width=8,
            dashed="^limit",
        ),
    ]


def _subscribers() -> list[object]:
    attempts, failed = (
        sum_each(increase(family, CHOSEN), "subscriber") for family in (m.SUBSCRIBER_ATTEMPTS, m.SUBSCRIBER_ATTEMPTS_FAILED)
    )
    failures = each(of(m.SUBSCRIBER_FAILURES, CHOSEN), "subscriber")
    limit = each(of(m.EVICT_FAILURES))
    return [
        table_of(
            "Subscribers",
            "One line each, those furthest behind first. Evicted after so many failures in a row and long enough without a "
            "success; those of the config file are only suspended. A click on the subscriber shows it alone.",
            Column("lag", each(of(m.SUBSCRIBER_LAG, CHOSEN), "subscriber"), steps=LAG),
            Column("cursor", each(of(m.SUBSCRIBER_CURSOR, CHOSEN), "subscriber"), "none"),
            Column("attempts", f"round({attempts})"),
            Column("failed", f"{failed} / ({attempts} > 0)", "percentunit", steps=((0.01, ORANGE), (0.1, RED)), decimals=1),
            Column("failures in a row", failures, steps=((1, ORANGE),)),
            Column(
                "of those to eviction",
                f"{failures} / on ({promql.K}) group_left () ({limit} > 0)",
                "percentunit",
                steps=((0.5, ORANGE), (1, RED)),
                decimals=0,
            ),
            Column(
                "last success", f"time() - {each(f'{of(m.SUBSCRIBER_SUCCESS, CHOSEN)} > 0', 'subscriber')}", "s", decimals=0
            ),
            labels=("subscriber",),
            sort="lag",
            links=[
                Link("subscriber", "Only this subscriber", frame.WEBHOOKS),
                Link("instance", "Open this agent", frame.AGENT_DETAIL),
            ],
            height=10,
        ),
        graph(
            "Lag of each subscriber",
            "Revisions not acknowledged yet. A stair that only climbs: nothing gets through. A saw: it jumps at max_lag.",
            "short",
            Query(each(of(m.SUBSCRIBER_LAG, CHOSEN), "subscriber"), f"{{{{subscriber}}}} {WHO}"),
        ),
        graph(
            "Failures in a row",
            "Since the subscriber's last success, beside the number from which it may be evicted.",
            "short",
            Query(failures, f"{{{{subscriber}}}} {WHO}"),
            Query(limit, f"limit {WHO}"),
            dashed="^limit",
        ),
    ]


def _registrations() -> list[object]:
    return [
        graph(
            "Subscribers by status",
            "Those served, those evicted but remembered, and the places for all kinds together.",
            "short",
            Query(sum_each(of(m.SUBSCRIBERS), "status"), f"{{{{status}}}} {WHO}"),
            Query(each(of(m.SUBSCRIBERS_LIMIT)), f"places {WHO}"),
            red="^evicted",
            dashed="^places",
        ),
        graph(
            "Registrations",
            "Accepted (new, changed, resumed), and removed on request.",
            "short",
            Query(sum_each(increase(m.SUBSCRIPTIONS, over=INTERVAL)), f"accepted {WHO}"),
            Query(sum_each(increase(m.UNSUBSCRIPTIONS, over=INTERVAL)), f"removed {WHO}"),
        ),
        graph(
            "Refused registrations",
            "limit: all places were taken. endpoint: the address may not be called.",
            "short",
            Query(sum_each(increase(m.SUBSCRIPTIONS_REJECTED, over=INTERVAL), "reason"), f"{{{{reason}}}} {WHO}"),
            width=8,
            red=".*",
        ),
        graph(
            "Refused addresses",
            "Connections not made because a rule forbids the address, by the rule. See webhooks.targets in "
            "docs/configuration.md.",
            "short",
            Query(sum_each(increase(m.TARGETS_REFUSED, over=INTERVAL), "rule"), f"{{{{rule}}}} {WHO}"),
            width=8,
        ),
        graph(
            "Subscribers not listed",
            "Those beyond metrics.subscriber_series: they have no series of their own, so that the panels above cannot show "
            "them.",
            "short",
            Query(each(of(m.SUBSCRIBERS_UNLISTED))),
            width=8,
        ),
    ]
