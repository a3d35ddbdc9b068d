"""Conflicts: how many, why, who lost, against whom, and who overwrote whom unseen."""

from grafana.build.looks import ALERTS, BAD_ABOVE_ZERO, ORANGE, RED
from grafana.build.panels import Query, graph, note
from grafana.build.promql import INTERVAL, WHO, increase, rate, sum_each, total
from grafana.build.tables import Column, table_of
from sidecar import metrics as m

HIGH, SECOND_WRITER = ALERTS["VersionConflictsHigh"], ALERTS["SecondWriterSuspected"]

_NAMES = """\
**The last conflicts, with names**, what was tried, against what and when, are at the sidecar itself, which listens inside the
pod only:

```sh
kubectl -n NAMESPACE exec POD -c AGENT_CONTAINER -- curl -s http://127.0.0.1:8470/v1/conflicts
kubectl -n NAMESPACE port-forward POD 8470 & sleep 2; curl -s http://127.0.0.1:8470/v1/conflicts
```

Points on the curves of conflicts are exemplars: who lost, with which version, against whom. `other` is every source_module that
is not listed under `metrics.writers`.

**Why the health check can say something else:** it looks at `health.window` (5 m by default), counted by the sidecar since its
start, and at its own limit, `health.conflict_ratio`. Here Prometheus looks at 5 m and 1 h, also across restarts, and the alerts
want a minimum of conflicts besides.
"""


def conflicts() -> list[object]:
    return [
        graph(
            "Conflicts among writes",
            f"Share of writes that were rejected. Above {HIGH.above:.0%} something is wrong; above {SECOND_WRITER.above:.0%} "
            "two writers work against each other: two that write alike collide on about half of their writes.",
            "percentunit",
            Query(_share(f"{HIGH.short_seconds}"), f"{HIGH.short_seconds} {WHO}"),
            Query(_share(f"{HIGH.long_seconds}"), f"{HIGH.long_seconds} {WHO}"),
            lines=((HIGH.above, ORANGE), (SECOND_WRITER.above, RED)),
            most=1,
        ),
        table_of(
            "Who lost against whom",
            "In this time range. rejected: the writer was told. masked: it overwrote the other's state unseen, because its "
            "write asked for no check.",
            Column(
                "writes",
                f"round({total(increase(m.WRITER_CONFLICTS), 'writer', 'against', 'outcome')}) > 0",
                steps=BAD_ABOVE_ZERO,
            ),
            labels=("writer", "against", "outcome"),
            sort="writes",
            width=12,
        ),
        graph(
            "Conflicts by reason",
            "stale: an older version. equal: the current one again. ahead: one that does not exist yet. exists: there should "
            "have been none. missing: there is none. state: another state was expected. epoch: a version of another journal.",
            "short",
            Query(
                sum_each(increase(m.CONFLICTS, over=INTERVAL), "kind", "reason"),
                f"{{{{kind}}}}: {{{{reason}}}} {WHO}",
                exemplar=True,
            ),
            width=8,
            stacked=True,
        ),
        graph(
            "Conflicts by writer",
            "Who lost. One that loses again and again is the second writer, or writes without reading first.",
            "short",
            Query(sum_each(increase(m.CONFLICTS, over=INTERVAL), "writer"), f"{{{{writer}}}} {WHO}"),
            width=8,
            stacked=True,
        ),
        graph(
            "Masked conflicts by writer",
            "Stale writes that were accepted under a new version for want of a check: somebody's state was overwritten "
            "unseen. The cure: If-Match, or writes.require_precondition.",
            "short",
            Query(sum_each(increase(m.REWRITES, over=INTERVAL), "writer"), f"{{{{writer}}}} {WHO}"),
            width=8,
            stacked=True,
        ),
        note(
            "Which conflicts, exactly",
            "How to see the last conflicts one by one, and why two numbers can differ.",
            _NAMES,
            height=8,
        ),
    ]


def _share(window: str) -> str:
    lost, kept = sum_each(rate(m.CONFLICTS, over=window)), sum_each(rate(m.SETS, over=window))
    return f"{lost} / ({kept} + {lost})"
