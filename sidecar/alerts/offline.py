"""Which alerts' conditions are true, as far as one or two scrapes can tell."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sidecar.alerts.alert import Alert
from sidecar.alerts.expression import Node
from sidecar.alerts.scrape import OneScrapeError, Scrapes, Vector
from sidecar.alerts.selector import Selector


class Verdict(NamedTuple):
    """What is beyond the threshold, by its labels; or why nobody can tell."""

    alert: Alert
    beyond: Vector
    unjudged: str = ""


def judge(alerts: Iterable[Alert], scrapes: Scrapes) -> Iterator[Verdict]:
    """A verdict for each. Windows are the time between the scrapes, and `for` is not awaited."""
    for alert in alerts:
        why = alert.unjudged or _absent(alert, scrapes)
        if why:
            yield Verdict(alert, {}, why)
            continue
        try:
            yield Verdict(alert, alert.condition.value(scrapes))
        except OneScrapeError:
            yield Verdict(alert, {}, "needs two scrapes")


def _absent(alert: Alert, scrapes: Scrapes) -> str:
    """What the sidecar does not tell: a journal in memory has no disk."""
    absent = {each.family.name for each in selectors(alert.condition) if not scrapes.now.tells(each)}
    return f"the sidecar does not tell {', '.join(sorted(absent))}" if absent else ""


def selectors(node: Node) -> Iterator[Selector]:
    """All series that the question looks at."""
    for name in node.__struct_fields__:
        part = getattr(node, name)
        if isinstance(part, Node):
            yield from selectors(part)
        elif isinstance(part, Selector):
            yield part
