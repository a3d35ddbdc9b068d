"""The fleet: who is in trouble, since when, and where to look next."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from grafana.build import frame, promql
from grafana.build.alerts import alerts
from grafana.build.looks import (
    BAD_ABOVE_ZERO,
    GREEN,
    LAG,
    NEAR_LIMIT,
    NEVER,
    NO_VERSION,
    ORANGE,
    RED,
    WARN_ABOVE_ZERO,
    YELLOW,
)
from grafana.build.panels import Query, bars, graph, row, stat_of, states
from grafana.build.promql import each, increase, of, ours, rate, seen, sum_each, total
from grafana.build.tables import Column, Link, table_of
from sidecar import metrics as m

TO_AGENT = Link("instance", "Open this agent", frame.AGENT_DETAIL)
SHARE_STEPS = ((0.01, YELLOW), (0.1, RED))
LATE_STEPS = ((0.95, YELLOW), (0.99, GREEN))
SERVED = 'status!="evicted"'


def fleet() -> Dashboard:
    board = frame.dashboard(
        frame.FLEET,
        "Fleet",
        "All agents at once: who is in trouble, since when, and where to look next. Click an agent for its own page.",
        marks=False,
    )
    for panel in (*_now(), *_states(), *_where_to_look(), *_traffic()):
        board.with_panel(panel)
    return board.with_row(row("Versions, configuration and cost", *_cost()))


def _now() -> list[object]:
    conflicts, sets = total(increase(m.CONFLICTS)), total(increase(m.SETS))
    return [
        stat_of(
            "Agents now",
            "Sidecars that answer now.",
            "short",
            Query(f"count({each(of(m.BUILD))})"),
        ),
        stat_of(
            "Silent",
            "Sidecars that were there within the hour and do not answer their scrape now: stopped, or not reachable.",
            "short",
            Query(f"sum({each(seen(of('up')))} == bool 0)"),
            steps=BAD_ABOVE_ZERO,
        ),
        stat_of(
            "Unhealthy",
            "Agents of which a health check of level issue fails now. Which one: see the agent's page.",
            "short",
            Query(f"sum({each(of(m.HEALTHY))} == bool 0)"),
            steps=BAD_ABOVE_ZERO,
        ),
        stat_of(
            "Alerts firing",
            "Alerts of the Prometheus rules. Those that Grafana manages are in its own list of alerts.",
            "short",
            Query(f"count({frame.FIRING}) or vector(0)"),
            steps=BAD_ABOVE_ZERO,
        ),
        stat_of(
            "Conflicts among writes",
            "Share of writes in this time range that were rejected because another came first.",
            "percentunit",
            Query(f"{conflicts} / ({sets} + {conflicts})"),
            steps=SHARE_STEPS,
            decimals=1,
        ),
        stat_of(
            "Delivered within 1 s",
            "Share of deliveries in this time range that had their 2xx within a second of the write.",
            "percentunit",
            Query(promql.within_a_second(m.PROPAGATION_SECONDS, promql.RANGE)),
            steps=LATE_STEPS,
            base=RED,
            decimals=1,
        ),
    ]


def _states() -> list[object]:
    return [
        states(
            "States",
            "A row for each agent. States shorter than the scrape interval are not seen here: the agent's page counts every "
            "transition. `no data`: the sidecar does not answer. A click opens the agent.",
        ),
        alerts(),
        bars(
            "In each state now",
            "Agents by their current state.",
            "short",
            Query(f"count by (state) ({each(f'{of(m.STATE)} == 1', 'state')})", "{{state}}"),
            links=False,
        ),
        bars(
            "In a fault state",
            "Agents in one of their fsm.fault_states, and for how long. 0 s: none of them is.",
            "s",
            Query(f"{each(of(m.FAULT_STATE))} * (time() - {each(of(m.STATE_ENTERED))})"),
            steps=((0.001, ORANGE), (600, RED)),
        ),
        bars(
            "Without a state",
            "1: nobody has written a state to this sidecar yet.",
            "short",
            Query(f"{each(f'{of(m.STATE_CODE)} == bool -1')}"),
            steps=BAD_ABOVE_ZERO,
        ),
    ]


def _where_to_look() -> list[object]:
    return [
        bars(
            "Most conflicts",
            "Writes rejected in this time range because another came first: the ten agents with the most.",
            "short",
            Query(f"topk(10, {sum_each(increase(m.CONFLICTS))})"),
            steps=((0.5, ORANGE), (10, RED)),
        ),
        bars(
            "Longest without a write",
            "Time since the last accepted write: the ten longest. That a silent agent is broken is only known where "
            "health.update_expected says so.",
            "s",
            Query(f"topk(10, {promql.age(m.LAST_UPDATE)})"),
        ),
        bars(
            "Furthest behind",
            "Revisions that the slowest subscriber of an agent has not acknowledged yet: the ten agents with the most.",
            "short",
            Query(f"topk(10, {each(of(m.LAG_MAX))})"),
            steps=LAG,
        ),
        table_of(
            "Agents",
            "One line each, those with the most conflicts first. Masked: stale writes that were accepted for want of a check. "
            "A click on the instance opens the agent.",
            Column("", each(of(m.AGENT), "agent", "fsm")),
            Column("", each(f"{of(m.STATE)} == 1", "state")),
            Column("in state for", promql.age(m.STATE_ENTERED), "s", decimals=0),
            Column("last write", promql.age(m.LAST_UPDATE), "s", decimals=0),
            Column("version", each(of(m.VERSION)), "none", mappings=NO_VERSION),
            Column("conflicts", f"round({sum_each(increase(m.CONFLICTS))})", steps=BAD_ABOVE_ZERO),
            Column("masked", f"round({sum_each(increase(m.REWRITES))})", steps=BAD_ABOVE_ZERO),
            Column("issues", each(of(m.ISSUES)), steps=BAD_ABOVE_ZERO),
            Column("warnings", each(of(m.WARNINGS)), steps=WARN_ABOVE_ZERO),
            Column("subscribers", sum_each(of(m.SUBSCRIBERS, SERVED))),
            Column("places taken", _places_taken(), "percentunit", steps=NEAR_LIMIT),
            labels=("agent", "fsm", "state"),
            sort="conflicts",
            links=[TO_AGENT],
            height=10,
        ),
    ]


def _places_taken() -> str:
    return f"{sum_each(of(m.SUBSCRIBERS, SERVED))} / ({each(of(m.SUBSCRIBERS_LIMIT))} > 0)"


def _traffic() -> list[object]:
    return [
        graph(
            "Writes",
            "Writes a second, of all agents: accepted, rejected as conflicts, and accepted although they were stale (masked).",
            "wps",
            Query(total(rate(m.SETS)), "accepted"),
            Query(total(rate(m.CONFLICTS)), "conflicts", exemplar=True),
            Query(total(rate(m.REWRITES)), "masked"),
            red="conflicts|masked",
        ),
        graph(
            "Deliveries",
            "Notifications a second, of all agents: delivered, and given up on.",
            "ops",
            Query(total(rate(m.NOTIFICATIONS)), "delivered"),
            Query(total(rate(m.NOTIFICATIONS_FAILED)), "given up"),
            red="given up",
        ),
    ]


def _cost() -> list[object]:
    return [
        table_of(
            "Versions",
            "How many sidecars run which version. More than one: a rollout is under way, or stuck.",
            Column("sidecars", f"count by (version, python) ({each(of(m.BUILD), 'version', 'python')})"),
            labels=("version", "python"),
            sort="sidecars",
            width=8,
        ),
        table_of(
            "Configurations",
            "Equal files have equal hashes. Invalid: with the file as it is now the next start fails. Changed: it changes "
            "something.",
            Column("hash", each(of(m.CONFIG_HASH)), "none", decimals=0),
            Column("in force for", promql.age(m.CONFIG_LOADED), "s", decimals=0),
            Column("invalid", f"{each(of(m.CONFIG_VALID))} == bool 0", steps=BAD_ABOVE_ZERO),
            Column("changed", each(of(m.CONFIG_CHANGED)), steps=WARN_ABOVE_ZERO),
            sort="invalid",
            links=[TO_AGENT],
            width=16,
        ),
        graph(
            "Samples of a scrape",
            "What one scrape of a sidecar brings. Grows with states, writers and subscribers; see docs/metrics.md.",
            "short",
            Query(each(ours(of("scrape_samples_scraped")))),
            agent_link=True,
        ),
        graph(
            "Duration of a scrape",
            "As Prometheus measures it.",
            "s",
            Query(each(ours(of("scrape_duration_seconds")))),
            agent_link=True,
        ),
        graph(
            "Memory",
            "Resident memory of each sidecar.",
            "bytes",
            Query(each(ours(of("process_resident_memory_bytes")))),
            agent_link=True,
        ),
        graph(
            "CPU",
            "Cores in use by each sidecar.",
            "none",
            Query(each(ours(rate("process_cpu_seconds_total")))),
            agent_link=True,
        ),
        table_of(
            "Backups",
            "When a backup was last handed over whole by this process.",
            Column("last backup", f"{each(of(m.BACKUP_SUCCESS))} * 1000", "dateTimeFromNow", mappings=NEVER),
            links=[TO_AGENT],
            height=6,
        ),
    ]
