"""The alerts as a file of Prometheus rules."""

from collections.abc import Iterable
from typing import Any

from sidecar.alerts.alert import Alert, recorded
from sidecar.alerts.catalogue import alerts
from sidecar.alerts.expression import Recorded
from sidecar.alerts.settings import Settings
from sidecar.alerts.texts import annotations, as_yaml, labels


def rules_file(settings: Settings) -> str:
    """What `rule_files` in Prometheus' configuration takes."""
    return as_yaml(tree(settings, alerts(settings)), "rules prometheus")


def tree(settings: Settings, alerts: Iterable[Alert]) -> dict[str, Any]:
    """One group, what is recorded first: so the alerts see the ratios of their own moment."""
    alerts = tuple(alerts)
    kept = {each.name: each for alert in alerts for each in recorded(alert.condition)}
    rules = [*map(_recording, kept.values()), *(_alerting(alert, settings) for alert in alerts)]
    return {"groups": [{"name": "fsm-sidecar", "interval": str(settings.interval_seconds), "rules": rules}]}


def _recording(kept: Recorded) -> dict[str, Any]:
    return {"record": kept.name, "expr": kept.of.promql()}


def _alerting(alert: Alert, settings: Settings) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.condition.promql(),
        "for": str(alert.limits.for_seconds),
        "labels": labels(alert),
        "annotations": annotations(alert, settings),
    }
