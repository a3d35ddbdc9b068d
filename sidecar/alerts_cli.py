"""`fsm-sidecar alerts` and `fsm-sidecar rules`: the alerts without a Prometheus, and the files for one."""

import argparse
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sidecar import trust
from sidecar.errors import ConfigError
from sidecar.units import Seconds

if TYPE_CHECKING:  # what is imported where it is used takes time that other commands need not spend
    import ssl

    from sidecar.alerts.offline import Verdict
    from sidecar.alerts.scrape import Scrape

URL = "http://127.0.0.1:8471/metrics"
MAX_INTERVAL_SECONDS = 86400

_PLAIN = re.compile("[!-~]+")

_ABOUT = """Ask a sidecar for its metrics, twice, and tell which alerts' conditions are true. What the rules look at over a
window, such as a rate over 5m, is looked at over the time between the two; and nothing is awaited: a rule with `for` fires
only after its condition was true that long. Exit code 0: none is true, 1: at least one is, 69: no metrics there."""


class _NoMetricsError(Exception):
    """There is nothing to judge."""


def add_alerts_command(parser: argparse.ArgumentParser) -> None:
    """`alerts`; its `command` takes the options and gives an exit code."""
    parser.description = _ABOUT
    parser.add_argument("url", metavar="URL", nargs="?", default=URL, help=f"where its metrics are; {URL} by default")
    parser.add_argument(
        "--interval", metavar="TIME", default="5s", help="time between the scrapes, 5s by default; 0s: one only"
    )
    _add_thresholds(parser)
    trust.add_flags(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_alerts)


def add_rules_command(parser: argparse.ArgumentParser) -> None:
    """`rules`; its `command` takes the options."""
    parser.add_argument("kind", choices=("prometheus", "grafana"), help="who evaluates them")
    _add_thresholds(parser)
    parser.set_defaults(command=_rules)


def _add_thresholds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--thresholds", metavar="FILE", help="a YAML file with what differs from the package's thresholds.yaml")


def _rules(options: argparse.Namespace) -> None:
    from sidecar.alerts import grafana, prometheus, settings

    kind = {"prometheus": prometheus, "grafana": grafana}[options.kind]
    print(kind.rules_file(settings.load(options.thresholds)), end="")


def _alerts(options: argparse.Namespace) -> int:
    from sidecar.alerts import catalogue, offline, settings

    url, seconds, tls = _url(options.url), _interval(options.interval), trust.context_of(options)
    alerts = catalogue.alerts(settings.load(options.thresholds))
    try:
        scrapes = _scrapes(url, seconds, tls)
    except _NoMetricsError as error:
        print(f"fsm-sidecar: {url}: {error}", file=sys.stderr)
        return os.EX_UNAVAILABLE
    verdicts = list(offline.judge(alerts, scrapes))
    (_tell_json if options.json else _tell)(url, seconds, verdicts)
    return int(any(verdict.beyond for verdict in verdicts))


# --- asking ---


def _url(text: str) -> str:
    text = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for one that is none
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or not _PLAIN.fullmatch(text):
        raise ConfigError([f"{text}: not an http:// or https:// URL of a host, such as {URL}"])
    return parts._replace(path="/metrics").geturl() if parts.path in ("", "/") else text


def _interval(text: str) -> Seconds:
    try:
        seconds = Seconds.parse(text)
    except ValueError as wrong:
        raise ConfigError([f"--interval {text}: {wrong}; 0s for one scrape"]) from None
    if seconds > MAX_INTERVAL_SECONDS:
        raise ConfigError([f"--interval {text}: expected at most {Seconds(MAX_INTERVAL_SECONDS)}"])
    return seconds


def _scrapes(url: str, seconds: float, tls: "ssl.SSLContext | None") -> Any:
    from sidecar.alerts.scrape import Scrapes

    before = _scrape(url, tls)
    if not seconds:
        return Scrapes(before)
    started = time.monotonic()
    time.sleep(seconds)
    return Scrapes(_scrape(url, tls), before, time.monotonic() - started)


def _scrape(url: str, tls: "ssl.SSLContext | None") -> "Scrape":
    from sidecar.alerts.questions import SIDECARS
    from sidecar.alerts.scrape import Scrape

    text = _text(url, tls)
    try:
        scrape = Scrape.parse(text.decode(), time.time())
    except ValueError:
        raise _NoMetricsError("answers, but not in the text format of metrics; is this the ops listener?") from None
    if not scrape.read(SIDECARS.of):
        raise _NoMetricsError("answers, but has no fsm_build_info: it has not finished its start, or it is no sidecar")
    return scrape


def _text(url: str, tls: "ssl.SSLContext | None") -> bytes:
    from sidecar.asking import NoAnswerError, Place

    parts = urlsplit(url)
    place, path = Place(f"{parts.scheme}://{parts.netloc}", tls=tls), parts._replace(scheme="", netloc="", fragment="").geturl()
    try:
        answer = place.ask("GET", path)
    except NoAnswerError as error:
        raise _NoMetricsError(str(error)) from None
    if answer.status != 200:
        raise _NoMetricsError(f"answers {answer.status}, not metrics")
    return answer.body


# --- telling ---


def _tell(url: str, seconds: float, verdicts: "list[Verdict]") -> None:
    from sidecar.alerts.expression import number

    for alert, beyond, _ in verdicts:
        for labels, value in beyond.items():
            own = "".join(f" {name}={text}" for name, text in labels)
            condition = f"{value:.4g} {alert.condition.sign} {number(alert.condition.limit)}"
            print(f"{alert.limits.severity:<9} {alert.name}{own}: {condition}")
            print(f"{'':<9} {alert.summary}\n{'':<9} {alert.runbook}")
    judged = [verdict for verdict in verdicts if not verdict.unjudged]
    over = f"over {seconds}" if seconds else "once"
    print(f"{sum(bool(verdict.beyond) for verdict in judged)} of {len(judged)} conditions are true at {url}, looked at {over}")
    unjudged: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.unjudged:
            unjudged.setdefault(verdict.unjudged, []).append(verdict.alert.name)
    for why, names in unjudged.items():
        print(f"not judged ({why}): {', '.join(names)}")


def _tell_json(url: str, seconds: float, verdicts: "list[Verdict]") -> None:
    import msgspec

    beyond = [_facts(verdict, dict(labels), value) for verdict in verdicts for labels, value in verdict.beyond.items()]
    unjudged = {verdict.alert.name: verdict.unjudged for verdict in verdicts if verdict.unjudged}
    told = {
        "url": url,
        "seconds": float(seconds),
        "true": beyond,
        "judged": len(verdicts) - len(unjudged),
        "not_judged": unjudged,
    }
    print(msgspec.json.encode(told).decode())


def _facts(verdict: "Verdict", labels: dict[str, str], value: float) -> dict[str, Any]:
    alert = verdict.alert
    return {
        "alert": alert.name,
        "severity": alert.limits.severity,
        "labels": labels,
        "value": value,
        "sign": alert.condition.sign,
        "threshold": alert.condition.limit,
        "summary": alert.summary,
        "runbook": alert.runbook,
    }
