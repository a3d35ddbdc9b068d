"""The sidecar as a process: whether it keeps up, and what it costs."""

from grafana.build.panels import Query, graph
from grafana.build.promql import INTERVAL, WHO, each, increase, of, ours, quantile, rate, sum_each
from sidecar import metrics as m


def process() -> list[object]:
    return [
        graph(
            "Event loop lag",
            "The longest time of the last ten seconds in which nothing else could run. Probes, writes and deliveries all wait "
            "that long.",
            "s",
            Query(each(of(m.LOOP_LAG))),
        ),
        graph("CPU of the sidecar", "Cores in use.", "none", Query(each(ours(rate("process_cpu_seconds_total"))))),
        graph(
            "Memory of the sidecar",
            "Resident memory. It is bounded: growth without end is a fault.",
            "bytes",
            Query(each(ours(of("process_resident_memory_bytes")))),
        ),
        graph(
            "File descriptors",
            "Open ones, beside the limit of the process.",
            "short",
            Query(each(ours(of("process_open_fds"))), f"open {WHO}"),
            Query(each(ours(of("process_max_fds"))), f"limit {WHO}"),
            dashed="^limit",
        ),
        graph(
            "Tasks",
            "Of the event loop: one for each connection and each subscriber, and some. Growth without end is a fault.",
            "short",
            Query(each(of(m.LOOP_TASKS))),
        ),
        graph(
            "Garbage collections",
            "Runs of Python's collector a second, by generation.",
            "ops",
            Query(each(ours(rate("python_gc_collections_total")), "generation"), f"generation {{{{generation}}}} {WHO}"),
        ),
        graph(
            "Restarts",
            "How often the process was started anew within the last 15 minutes.",
            "short",
            Query(each(ours(f"changes({of('process_start_time_seconds')}[15m])"))),
        ),
        graph(
            "Log lines",
            "By level. error and critical want to be read.",
            "short",
            Query(sum_each(increase(m.LOG_MESSAGES, over=INTERVAL), "level"), f"{{{{level}}}} {WHO}"),
            red="^(error|critical)",
            stacked=True,
        ),
        graph(
            "API requests",
            "Answers a second, by status. 412 is a conflict, 409 an illegal transition, 503 and 507 a write that was not "
            "taken.",
            "reqps",
            Query(sum_each(rate(m.HTTP_REQUESTS), "code"), f"{{{{code}}}} {WHO}"),
            red="^5",
            stacked=True,
        ),
        graph(
            "Not let in",
            "API requests a second that were refused at the door: no token, an unknown one, one without the scope, or somebody "
            "who guesses (limited).",
            "reqps",
            Query(sum_each(rate(m.HTTP_AUTH_FAILURES), "reason"), f"{{{{reason}}}} {WHO}"),
        ),
        graph(
            "API latency",
            "Time to answer, by method; 99 of 100 are faster. The time that a long poll or a stream waits is left out.",
            "s",
            Query(quantile(0.99, m.HTTP_SECONDS, "method"), "p99 {{method}}"),
        ),
        graph(
            "Watchers",
            "Requests that wait for the next revision, by kind, beside the places for all of them; and those refused because "
            "all were taken.",
            "short",
            Query(each(of(m.WATCHERS), "kind"), f"{{{{kind}}}} {WHO}"),
            Query(each(of(m.WATCHERS_LIMIT)), f"limit {WHO}"),
            Query(sum_each(increase(m.WATCHERS_REFUSED, over=INTERVAL)), f"refused {WHO}"),
            red="^refused",
            dashed="^limit",
        ),
        graph(
            "Gaps of watchers",
            "Streams that were told of revisions they will not get, by the reason.",
            "short",
            Query(sum_each(increase(m.WATCH_GAPS, over=INTERVAL), "reason"), f"{{{{reason}}}} {WHO}"),
        ),
        graph(
            "Writes that wait for acknowledgements",
            "Now (wait_acks), and those whose wait has ended, by how: gone, the caller hung up; refused, there was no place.",
            "short",
            Query(each(of(m.ACK_WAITING)), f"waiting {WHO}"),
            Query(sum_each(increase(m.ACK_WAITS_ENDED, over=INTERVAL), "ending"), f"{{{{ending}}}} {WHO}"),
            red="^refused",
        ),
        graph(
            "API connections",
            "Open ones, beside the limit of each listener. At the limit an idle one makes room, or a new one is refused.",
            "short",
            Query(each(of(m.HTTP_CONNECTIONS), "listener"), f"{{{{listener}}}} {WHO}"),
            Query(each(of(m.HTTP_CONNECTIONS_LIMIT), "listener"), f"limit {{{{listener}}}} {WHO}"),
            dashed="^limit",
        ),
        graph(
            "API requests at once",
            "Those being answered, beside the limit. Bodies that still come and watchers are not among them.",
            "short",
            Query(each(of(m.HTTP_IN_FLIGHT)), f"in flight {WHO}"),
            Query(each(of(m.HTTP_IN_FLIGHT_LIMIT)), f"limit {WHO}"),
            dashed="^limit",
        ),
        graph(
            "Clients turned away",
            "Connections refused or closed for others, clients too late with a request or with reading an answer, and "
            "requests that are no HTTP. Each is the fault of a client, or an attack.",
            "short",
            Query(sum_each(increase(m.HTTP_REFUSED, over=INTERVAL), "reason"), f"refused: {{{{reason}}}} {WHO}"),
            Query(sum_each(increase(m.HTTP_TIMEOUTS, over=INTERVAL), "phase"), f"late: {{{{phase}}}} {WHO}"),
            Query(sum_each(increase(m.HTTP_MALFORMED, over=INTERVAL)), f"malformed {WHO}"),
            stacked=True,
        ),
        graph(
            "Making a scrape",
            "Time that the scrape before took to be made.",
            "s",
            Query(each(of(m.COLLECT_SECONDS))),
        ),
        graph(
            "Failed scrapes",
            "Scrapes that could not be made: a fault of the sidecar. Please report it.",
            "short",
            Query(sum_each(increase(m.COLLECT_ERRORS, over=INTERVAL))),
            red=".*",
        ),
    ]
