"""The values the chart is tested with, and what comes out of each: kinds and names, with and without Prometheus Operator."""

from helms import CHART, OPERATOR

CONFIG = "ConfigMap robot-fsm-sidecar-config"
DEMO = [CONFIG, "Pod robot-fsm-sidecar-test", "Service robot-fsm-sidecar", "StatefulSet robot-fsm-sidecar"]
BOARDS = [f"ConfigMap robot-fsm-sidecar-fsm-{board}" for board in ("agent", "fleet", "webhooks")]
WATCHED = ["PodMonitor robot-fsm-sidecar", "PrometheusRule robot-fsm-sidecar"]

CASES = {
    "alone": (BOARDS, WATCHED),
    "demo": ([*DEMO, *BOARDS], WATCHED),
    "classic": (
        [*DEMO, *BOARDS, "PersistentVolumeClaim robot-fsm-sidecar-journal", "NetworkPolicy robot-fsm-sidecar"],
        ["ServiceMonitor robot-fsm-sidecar", "PrometheusRule robot-fsm-sidecar"],
    ),
    "grafana": (
        [*(f"ConfigMap watch-fsm-{board}" for board in ("agent", "fleet", "webhooks")), "ConfigMap watch-grafana-alerts"],
        ["PodMonitor watch-fsm-sidecar"],
    ),
    "forced": ([*BOARDS, *WATCHED, "ConfigMap robot-fsm-sidecar-grafana-alerts"], []),
    "silent": ([name for name in DEMO if name != CONFIG], []),
}
"""Values file → what is always there, and what only where the operator is."""

DEPENDENCY = [CONFIG, "Deployment robot"]
"""What the example of a parent chart gives: nothing to watch with, which is there once and not in each agent's release."""


def flags(case):
    """For a cluster with the operator."""
    return ("--values", CHART / "ci" / f"{case}.yaml", *OPERATOR)
