"""One alert, and what it needs of recording rules."""

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from sidecar.alerts.expression import Condition, Node, Recorded
from sidecar.alerts.settings import Limits, Settings

PREFIX = "FsmSidecar"

Dashboard = Literal["fsm-fleet", "fsm-agent", "fsm-webhooks"]


class Declared(msgspec.Struct, frozen=True):
    """An alert of the catalogue, before it has numbers. `ask` gives what is compared with the threshold.

    `description` may name windows of the limits in brackets, such as [short], say [count] for the value as a whole number,
    and use `$labels` and `$value` of Prometheus' templates. `unjudged`: why no scrape can tell whether it is so.
    """

    name: str
    dashboard: Dashboard
    summary: str
    description: str
    ask: Callable[[Limits, Settings], Node]
    unjudged: str = ""

    def with_numbers(self, settings: Settings) -> "Alert":
        limits = settings.alerts[self.name]
        above = limits.above == limits.above  # else it is not a number: the alert has `below`
        return Alert(
            name=PREFIX + self.name,
            condition=Condition(self.ask(limits, settings), ">" if above else "<", limits.above if above else limits.below),
            limits=limits,
            dashboard=self.dashboard,
            summary=self.summary,
            description=self._filled(limits),
            runbook=f"{settings.runbooks}{(PREFIX + self.name).lower()}.md",
            unjudged=self.unjudged,
        )

    def _filled(self, limits: Limits) -> str:
        text = self.description.replace("[count]", '{{ $value | printf "%.0f" }}')
        for key in ("window", "short", "long"):
            text = text.replace(f"[{key}]", str(getattr(limits, f"{key}_seconds")))
        return text


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert as the thresholds want it."""

    name: str
    condition: Condition
    limits: Limits
    dashboard: Dashboard
    summary: str
    description: str
    runbook: str
    unjudged: str


def recorded(node: Node) -> Iterator[Recorded]:
    """The recording rules that the question uses."""
    if isinstance(node, Recorded):
        yield node
    for name in node.__struct_fields__:
        part = getattr(node, name)
        if isinstance(part, Node):
            yield from recorded(part)
