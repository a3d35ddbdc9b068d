"""The alerts as rules that Grafana itself evaluates: a file for its provisioning, spelt as such files are, not as its API is.

Contact points and notification policies are not in it: provisioning those would replace what the user has.
"""

from typing import Any

from sidecar.alerts.alert import Alert
from sidecar.alerts.catalogue import alerts
from sidecar.alerts.expression import number
from sidecar.alerts.settings import Settings
from sidecar.alerts.texts import annotations, as_yaml, labels
from sidecar.errors import ConfigError

_EVALUATORS = {">": "gt", "<": "lt"}
_STEP_SECONDS = 10  # in which Grafana counts
_SPAN_SECONDS = 600  # wanted by Grafana; an instant query looks at its end only


def rules_file(settings: Settings) -> str:
    """What Grafana takes in `provisioning/alerting/`. Raises `ConfigError` for an interval that it refuses."""
    if settings.interval_seconds % _STEP_SECONDS:
        raise ConfigError([f"interval: {settings.interval_seconds} is no multiple of {_STEP_SECONDS}s, as Grafana wants it"])
    return as_yaml(tree(settings), "rules grafana")


def tree(settings: Settings) -> dict[str, Any]:
    group = {
        "orgId": 1,
        "name": "fsm-sidecar",
        "folder": "fsm-sidecar",
        "interval": str(settings.interval_seconds),
        "rules": [_rule(alert, settings) for alert in alerts(settings)],
    }
    return {"apiVersion": 1, "groups": [group]}


def _rule(alert: Alert, settings: Settings) -> dict[str, Any]:
    condition = alert.condition
    return {
        "uid": alert.name.lower(),
        "title": alert.name,
        "condition": "C",
        "data": [
            _data("A", settings.datasource, _SPAN_SECONDS, {"expr": condition.of.promql(inline=True), **_INSTANT}),
            _data("C", "__expr__", 0, _threshold(_EVALUATORS[condition.sign], condition.limit)),
        ],
        **_without_an_answer(alert),
        "for": str(alert.limits.for_seconds),
        "annotations": annotations(alert, settings, value="$values.A.Value"),
        "labels": labels(alert),
        "dashboardUid": alert.dashboard,
        "isPaused": False,
    }


_INSTANT = {"instant": True, "range": False, "editorMode": "code", "intervalMs": 1000, "maxDataPoints": 43200}


def _data(ref: str, datasource: str, span_seconds: int, model: dict[str, Any]) -> dict[str, Any]:
    """The data source is named here, where environment variables are expanded, and not in the model, where they are not."""
    return {
        "refId": ref,
        "relativeTimeRange": {"from": span_seconds, "to": 0},
        "datasourceUid": datasource,
        "model": {"refId": ref, **model},
    }


def _threshold(evaluator: str, limit: float) -> dict[str, Any]:
    params = [int(limit) if number(limit).isdigit() else limit]
    return {"type": "threshold", "expression": "A", "conditions": [{"evaluator": {"type": evaluator, "params": params}}]}


def _without_an_answer(alert: Alert) -> dict[str, str]:
    """No result is the good case of most queries. That Prometheus itself is silent, one alert says, and not all of them."""
    if alert.name.endswith("Down"):
        return {"noDataState": "NoData", "execErrState": "Error"}
    return {"noDataState": "OK", "execErrState": "KeepLast"}
