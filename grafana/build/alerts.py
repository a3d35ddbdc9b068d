"""Which alerts fired, and when."""

from grafana.build.frame import FIRING
from grafana.build.looks import FIRING_OR_QUIET
from grafana.build.panels import Builder, Query, timeline
from grafana.build.promql import WHO, each


def alerts() -> Builder:
    """The line `none` is always there: an empty panel could also be one that does not work."""
    quiet = f'label_replace(vector(0) unless on () {FIRING}, "alertname", "none", "", "")'
    return timeline(
        "Alerts",
        "What fired, for whom, from when until when. From the rules of Prometheus; what Grafana evaluates is in its own list.",
        Query(f"{each(FIRING, 'alertname', 'severity')} or {quiet}", f"{{{{alertname}}}} {WHO}"),
        FIRING_OR_QUIET,
        height=5,
    )
