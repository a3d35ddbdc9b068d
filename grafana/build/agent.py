"""One agent: its state, who wrote and who lost, what the journal and the process do."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from grafana.build import frame
from grafana.build.alerts import alerts
from grafana.build.conflicts import conflicts
from grafana.build.looks import BAD_ABOVE_ZERO, HEALTH, NO_VERSION, YES_NO
from grafana.build.panels import Query, graph, row, stat_of, states, timeline
from grafana.build.process import process
from grafana.build.promql import INTERVAL, WHO, age, each, increase, of, quantile, rate, sum_each, total
from grafana.build.tables import Column, matrix, table_of
from sidecar import metrics as m


def agent() -> Dashboard:
    board = frame.dashboard(
        frame.AGENT_DETAIL,
        "Agent",
        "One agent: what state it is in and since when, who wrote and who lost, and how its sidecar, journal and disk are.",
        marks=True,
    )
    for panel in (*_state(), *_writes(), *conflicts(), *_transitions()):
        board.with_panel(panel)
    for folded in (row("Journal and disk", *_journal()), row("Process", *process()), row("The store's own numbers", _raw())):
        board.with_row(folded)
    return board


def _state() -> list[object]:
    return [
        stat_of(
            "State",
            "The current state, by its name.",
            "string",
            Query(f"{each(f'{of(m.STATE)} == 1', 'state')}", "{{state}}"),
            name=True,
            width=6,
        ),
        stat_of(
            "In this state for",
            "Time since the current state was entered.",
            "s",
            Query(age(m.STATE_ENTERED)),
            decimals=0,
        ),
        stat_of("Version", "Version of the current state.", "none", Query(each(of(m.VERSION))), mappings=NO_VERSION, width=3),
        stat_of(
            "Last write",
            "Time since the last accepted write. Whether silence is a fault is what health.update_expected says.",
            "s",
            Query(age(m.LAST_UPDATE)),
            decimals=0,
        ),
        stat_of(
            "Health", "Whether all checks of level issue pass.", "short", Query(each(of(m.HEALTHY))), mappings=HEALTH, width=3
        ),
        stat_of(
            "Fault state",
            "Whether the current state is one of fsm.fault_states.",
            "bool_yes_no",
            Query(each(of(m.FAULT_STATE))),
            steps=BAD_ABOVE_ZERO,
        ),
        states(
            "State over time",
            "States shorter than the scrape interval are not seen here; every transition is counted below and marked at its "
            "true time as far as it was the last before a scrape. `no data`: the sidecar did not answer.",
            height=5,
        ),
        alerts(),
        timeline(
            "Health checks",
            "version_conflicts: share of conflicts above health.conflict_ratio within health.window. initialised: a state has "
            "been written. subscribers: more than 80 % of the places taken. freshness: no write for health.stale_after. "
            "heartbeat: overdue. dwell: longer in a state than fsm.max_dwell.",
            Query(each(of(m.CHECK_OK), "check", "level"), f"{{{{check}}}} ({{{{level}}}}) {WHO}"),
            HEALTH,
        ),
    ]


def _writes() -> list[object]:
    return [
        graph(
            "Writes and reads",
            "A second: writes accepted, writes rejected as conflicts, reads of the current state.",
            "ops",
            Query(sum_each(rate(m.SETS)), f"accepted {WHO}"),
            Query(sum_each(rate(m.CONFLICTS)), f"conflicts {WHO}", exemplar=True),
            Query(sum_each(rate(m.GETS)), f"reads {WHO}"),
            red="^conflicts",
        ),
        graph(
            "Write latency",
            "From the call to the durable commit or the rejection.",
            "s",
            Query(quantile(0.5, m.WRITE_SECONDS), "p50"),
            Query(quantile(0.99, m.WRITE_SECONDS), "p99", exemplar=True),
        ),
    ]


def _transitions() -> list[object]:
    moves = increase(m.TRANSITIONS)
    return [
        matrix(
            "Transitions in this time range",
            "From the state in a line to the state in a column, and how often.",
            f"round({total(moves, 'from_state', 'to_state')}) > 0",
            row="from_state",
            column="to_state",
        ),
        graph(
            "Transitions a minute",
            "All of them, also those too short to be seen in the timeline. More than sixty a minute: it flaps.",
            "short",
            Query(f"60 * {sum_each(rate(m.TRANSITIONS))}"),
        ),
        graph(
            "What the machine refused",
            "Transitions it does not allow, refused or (enforcement: warn) accepted; and writes that name an unknown state.",
            "short",
            Query(sum_each(increase(m.ILLEGAL, over=INTERVAL), "outcome"), f"illegal transition {{{{outcome}}}} {WHO}"),
            Query(sum_each(increase(m.UNKNOWN_STATES, over=INTERVAL)), f"unknown state {WHO}"),
        ),
        graph(
            "Heartbeat overdue",
            "Above zero: the agent has been silent for longer than it said. Nothing here: it never sent a heartbeat.",
            "s",
            Query(age(m.HEARTBEAT_EXPIRES), WHO),
        ),
        graph(
            "Last wills",
            "What became of the agent's last will when it was silent. executed: the sidecar put the agent into the state of "
            "heartbeat.last_will; overtaken: another write came first; refused: the machine does not allow it from there.",
            "short",
            Query(sum_each(increase(m.LAST_WILLS, over=INTERVAL), "outcome"), f"{{{{outcome}}}} {WHO}"),
        ),
        table_of(
            "The agent and its settings",
            "Who this is, what its configuration says, and whether the config file can still be loaded.",
            Column("", each(of(m.AGENT), "agent", "fsm")),
            Column("", each(of(m.BUILD), "version", "python")),
            Column("started", f"{each(of(m.CREATED))} * 1000", "dateTimeFromNow"),
            Column("stalled", each(of(m.STATE_STALLED)), "bool_yes_no"),
            Column("updates expected", each(of(m.UPDATE_EXPECTED)), "bool_yes_no"),
            Column("config loaded", f"{each(of(m.CONFIG_LOADED))} * 1000", "dateTimeFromNow"),
            Column("file valid", each(of(m.CONFIG_VALID)), mappings=YES_NO),
            Column("file changed", each(of(m.CONFIG_CHANGED)), "bool_yes_no"),
            Column("state's size", each(of(m.SNAPSHOT_BYTES)), "bytes"),
            labels=("agent", "fsm", "version", "python"),
            width=12,
        ),
    ]


def _journal() -> list[object]:
    return [
        graph(
            "Commit latency",
            "One group commit, its fsync included. This is what a write waits for.",
            "s",
            Query(quantile(0.5, m.COMMIT_SECONDS), "p50"),
            Query(quantile(0.99, m.COMMIT_SECONDS), "p99"),
        ),
        graph(
            "Waiting for the disk",
            "Writes and reads that wait for the writer thread, beside the limit at which writes are refused.",
            "short",
            Query(each(of(m.WRITES_WAITING)), f"writes {WHO}"),
            Query(each(of(m.QUEUE)), f"jobs of the writer thread {WHO}"),
            Query(each(of(m.QUEUE_LIMIT)), f"limit {WHO}"),
            dashed="^limit",
        ),
        graph(
            "Refused and failed",
            "Writes refused because too many waited, and commits or checkpoints that failed: for want of room (full), or "
            "otherwise. After a failure that is not want of room nothing more is acknowledged until the next start.",
            "short",
            Query(sum_each(increase(m.OVERLOADS, over=INTERVAL)), f"overloaded {WHO}"),
            Query(sum_each(increase(m.STORAGE_ERRORS, over=INTERVAL), "kind"), f"storage {{{{kind}}}} {WHO}"),
            red="^storage",
        ),
        graph(
            "Room on the disk",
            "What is left on the journal's disk, beside the reserve: with less, writes are refused and history goes first.",
            "bytes",
            Query(each(of(m.FREE_BYTES)), f"free {WHO}"),
            Query(each(of(m.RESERVE_BYTES)), f"reserve {WHO}"),
            dashed="^reserve",
        ),
        graph(
            "Size of the journal",
            "Its files, and the documents of the revisions that are kept.",
            "bytes",
            Query(each(of(m.FILE_BYTES), "file"), f"{{{{file}}}} {WHO}"),
            Query(each(of(m.KEPT_BYTES)), f"documents {WHO}"),
        ),
        graph(
            "Revisions kept",
            "The newest durable revision, and the oldest that retention has left. Both only rise: a fall is a lost journal.",
            "none",
            Query(each(of(m.HEAD)), f"head {WHO}"),
            Query(each(of(m.OLDEST)), f"oldest {WHO}"),
        ),
    ]


def _raw() -> object:
    return table_of(
        "Store values",
        "What get_metrics() says, word for word, each as the gauge fsm_store_<key>.",
        Column("value", each(of("", '__name__=~"fsm_store_.+"'), "__name__"), "none"),
        labels=("__name__",),
        height=12,
    )
