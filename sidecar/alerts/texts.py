"""What both kinds of rules share: labels, annotations, and how the files are written."""

from typing import Any

import yaml

from sidecar.alerts.alert import Alert
from sidecar.alerts.selector import IDENTITY
from sidecar.alerts.settings import Settings

_WHO = (
    "{{ if $labels.pod }}{{ with $labels.cluster }}{{ . }}/{{ end }}{{ $labels.namespace }}/{{ $labels.pod }}"
    "{{ else }}{{ $labels.instance }}{{ end }}"
)
_VARIABLES = "".join(f"{{{{ with $labels.{label} }}}}&var-{label}={{{{ . }}}}{{{{ end }}}}" for label in IDENTITY)


def labels(alert: Alert) -> dict[str, str]:
    """What the alert is routed by, beside the labels of its query."""
    return {"severity": alert.limits.severity, "product": "fsm-sidecar"}


def annotations(alert: Alert, settings: Settings, *, value: str = "$value") -> dict[str, str]:
    """What a person reads. `value`: what the value of the query is called in templates."""
    return {
        "summary": alert.summary,
        "description": f"{_WHO}: {alert.description.replace('$value', value)}",
        "runbook_url": alert.runbook,
        "dashboard_url": f"{settings.grafana.rstrip('/')}/d/{alert.dashboard}?orgId=1{_VARIABLES}",
    }


def as_yaml(tree: dict[str, Any], command: str) -> str:
    """The file, which says where it comes from."""
    head = f"# Written by `fsm-sidecar {command}`. To change it, do not edit it: give that command --thresholds of your own.\n"
    return head + yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Lists indented, and queries in lines as they are."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
