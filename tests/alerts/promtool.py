"""Runs scenarios through promtool, and tells which alerts did not do what they should."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from scenarios import BAD, LENGTH, ONCE, QUIET, SCENARIOS, Scenario, Series

from sidecar.alerts.selector import IDENTITY


class Target(NamedTuple):
    """What a way of finding targets puts on each series."""

    name: str
    labels: Mapping[str, str]

    @property
    def identity(self) -> dict[str, str]:
        return {name: self.labels[name] for name in IDENTITY if name in self.labels}

    @property
    def neighbour(self) -> "Target":
        """Another sidecar, found in the same way."""
        others = {"instance": "10.0.0.8:8471"} | ({"pod": "planner-1"} if "pod" in self.labels else {})
        return Target(self.name, {**self.labels, **others})

    @property
    def who(self) -> str:
        where = (self.labels.get(name) for name in ("cluster", "namespace", "pod"))
        return "/".join(filter(None, where)) if "pod" in self.labels else self.labels["instance"]


_STATIC = {"job": "fsm-sidecar", "instance": "10.0.0.7:8471"}
_POD = _STATIC | {"job": "agents/fsm-sidecar", "namespace": "agents", "pod": "planner-0", "container": "fsm-sidecar"}
_SERVICE = _POD | {"service": "planner", "endpoint": "ops"}

TARGETS = [
    Target(f"{name}{'-cluster' if cluster else ''}", labels | cluster)
    for name, labels in (("pod", _POD), ("service", _SERVICE), ("static", _STATIC))
    for cluster in ({}, {"cluster": "eu"})
]


def needed() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: prometheus); it evaluates the rules here")


# --- what is expected ---


def firing(rule: Mapping[str, Any], scenario: Scenario, target: Target) -> dict[str, Any]:
    """The alert as Prometheus has to show it, its templates filled in."""
    labels = target.identity | scenario.labels
    return {"exp_labels": labels | rule["labels"], "exp_annotations": _annotations(rule, scenario, target)}


def _annotations(rule: Mapping[str, Any], scenario: Scenario, target: Target) -> dict[str, str]:
    told = rule["annotations"]
    _, description = told["description"].split("{{ end }}: ", 1)
    description = re.sub(r"\{\{ \$value [^}]*\}\}", scenario.value.replace("\\", ""), description)
    for name, value in scenario.labels.items():
        description = description.replace(f"{{{{ $labels.{name} }}}}", value)
    assert "{{" not in description
    variables = "".join(f"&var-{name}={value}" for name, value in target.identity.items())
    dashboard = re.match(r"/d/fsm-\w+\?orgId=1", told["dashboard_url"])[0]
    return {**told, "description": f"{target.who}: {description}", "dashboard_url": dashboard + variables}


# --- test files ---


def story(name: str, series: Mapping[str, str], checks: list[dict[str, Any]]) -> dict[str, Any]:
    """One group of a test file."""
    given = [{"series": each, "values": values} for each, values in series.items()]
    return {"name": name, "interval": "1m", "input_series": given, "alert_rule_test": checks}


def scraped(series: Mapping[str, Series], target: Target) -> dict[str, str]:
    """As Prometheus has them."""
    return {_labelled(each, target): _values(values) for each, values in series.items()}


def _labelled(series: str, target: Target) -> str:
    name, _, own = series.partition("{")
    labels = [f'{key}="{value}"' for key, value in target.labels.items()]
    return f"{name}{{{','.join(filter(None, [own.rstrip('}'), *labels]))}}}"


def _values(series: Series) -> str:
    values = [series(minute) for minute in range(LENGTH)]
    words = ["stale" if value is None else f"{value:.6f}".rstrip("0").rstrip(".") for value in values]
    return " ".join(words)


def _checks(rule: Mapping[str, Any], scenario: Scenario, target: Target, alerts: Iterable[str]) -> list[dict[str, Any]]:
    """Quiet, firing, quiet again."""
    expected = [firing(rule, scenario, target)]
    return [
        check
        for alert in alerts
        for check in (
            {"eval_time": f"{scenario.fires_at}m", "alertname": alert, "exp_alerts": expected},
            *_never(alert, scenario.quiet_at),
        )
    ]


def _never(alert: str, minutes: Iterable[int]) -> list[dict[str, Any]]:
    return [{"eval_time": f"{minute}m", "alertname": alert} for minute in minutes]


def stories(name: str, rule: Mapping[str, Any], target: Target, *, of: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """All of this alert. `of`: mutants that have to do the same."""
    alerts = of or [rule["alert"]]
    for kind, scenarios in (("lasting", SCENARIOS), ("once", ONCE)):
        if scenario := scenarios.get(name):
            yield story(f"{name} {kind}", scraped(scenario.series, target), _checks(rule, scenario, target, alerts))
    for number, series in enumerate(QUIET.get(name, ())):
        never = [check for alert in alerts for check in _never(alert, range(1, LENGTH))]
        yield story(f"{name} quiet {number}", scraped(series, target), never)


def beside(name: str, rule: Mapping[str, Any], target: Target) -> Iterator[dict[str, Any]]:
    """The story of two sidecars: one for which it fires, and another that must not be taken for it."""
    usual = SCENARIOS[name]
    well = [] if name == "StateStale" else [_as_it_was(usual.series)]  # which is stale
    for number, series in enumerate([*well, *QUIET.get(name, ())]):
        both = scraped(usual.series, target) | scraped(series, target.neighbour)
        yield story(f"{name} beside {number}", both, _checks(rule, usual, target, [rule["alert"]]))


def _as_it_was(series: Mapping[str, Series]) -> dict[str, Series]:
    """All well, and nothing more happens."""
    return {name: lambda minute, values=values: values(min(minute, BAD.start - 1)) for name, values in series.items()}


# --- the run ---


class Trial(NamedTuple):
    """Rules and the stories that they are put to."""

    name: str
    rules: Mapping[str, Any]
    stories: Iterable[Mapping[str, Any]]


def start(folder: Path, trials: Iterable[Trial]) -> subprocess.Popen:
    """Starts promtool on all of them."""
    needed()
    files = [_written(folder, trial) for trial in trials]
    return subprocess.Popen(
        ["promtool", "test", "rules", *files], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _written(folder: Path, trial: Trial) -> str:
    rules, tests = f"{trial.name}.rules.yaml", f"{trial.name}.test.yaml"
    (folder / rules).write_text(json.dumps(trial.rules))  # JSON is YAML, and quicker
    test = {"rule_files": [rules], "evaluation_interval": "1m", "tests": list(trial.stories)}
    (folder / tests).write_text(json.dumps(test))
    return tests


def failures(started: subprocess.Popen) -> str:
    """What promtool has to say against it; nothing where all is as expected."""
    output, _ = started.communicate()
    against = [part for part in output.split("Unit Testing:") if "SUCCESS" not in part and part.strip()]
    assert bool(started.returncode) == bool(against), output
    return "".join(against)


def caught(output: str) -> set[str]:
    """The alerts that did not do what the stories expect."""
    return set(re.findall(r"alertname: (\w+), time", output))
