"""Rules and dashboards: a chart can only ship what is in its own folder."""

from pathlib import Path

CHART = Path(__file__).parents[1] / "fsm-sidecar"
GRAFANA = Path(__file__).parents[2] / "grafana"
RULES = {
    CHART / "files/rules/prometheus.yaml": GRAFANA / "prometheus/fsm-sidecar-rules.yaml",
    CHART / "files/rules/grafana.yaml": GRAFANA / "provisioning/alerting/fsm-sidecar-rules.yaml",
}


def files() -> dict[Path, str]:
    """Each copy, and what has to be in it."""
    dashboards = {CHART / "files/dashboards" / path.name: path for path in (GRAFANA / "dashboards").glob("*.json")}
    return {copy: original.read_text() for copy, original in {**RULES, **dashboards}.items()}


def superfluous() -> list[Path]:
    """Copies whose originals are gone."""
    there = [*CHART.glob("files/dashboards/*"), *CHART.glob("files/rules/*")]
    return sorted(set(there) - set(files()))
