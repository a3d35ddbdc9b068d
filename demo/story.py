"""What happens, told as it happens."""

import asyncio
from typing import Any

from demo.receiver import Delivery
from demo.sidecar_process import LogEvent
from demo.terminal import BOLD, DIM, GREEN, MAGENTA, RED, YELLOW, Terminal

UPDATES_SECONDS = 1.0
"""Deliveries that change nothing are told together, this often."""

_STATUS_STYLES = {"active": GREEN, "degraded": YELLOW, "suspended": YELLOW, "evicted": RED}


class Story:
    """Turns events into lines. `tells_of` names the writers that tell of their own lost writes; for others the log does."""

    def __init__(self, terminal: Terminal, *, tells_of: tuple[str, ...]) -> None:
        self.evicted = asyncio.Event()
        self._terminal = terminal
        self._tells_of = tells_of
        self._clock = asyncio.get_running_loop().time
        self._began_at = self._clock()
        self._before: dict[str, Any] = {}
        self._updates: list[Delivery] = []
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """From here on the time counts."""
        self._began_at = self._clock()
        self._terminal.header()

    def delivery(self, delivery: Delivery) -> None:
        """A change of state in full, a change of data in one line, everything else summed up."""
        before, self._before = self._before, delivery.snapshot
        if delivery.snapshot["state"] != before.get("state") or delivery.skipped:
            self._figures("state", delivery, BOLD, GREEN)
        elif delivery.snapshot["context_data"] != before["context_data"]:
            self._figures("data", delivery)
        else:
            self._sum_up(delivery)

    def conflict(self, attempted: dict[str, Any], problem: dict[str, Any]) -> None:
        """A write that lost: who wanted what, against whom. `problem` is the sidecar's 412."""
        expected, current = problem["expected"], problem["current"]
        if "below" in expected:
            how = f"as version {expected['below']} (enforce_version)"
        else:
            how = f"on version {expected.get('version')} (If-Match)"
        self._event(
            "conflict",
            attempted["source_module"],
            f"wanted {attempted['state']} {how}, lost against {current['source_module']}:"
            f" {current['state']}, version {current['version']}",
            YELLOW,
        )

    def illegal(self, writer: str, problem: dict[str, Any]) -> None:
        """A write that the machine does not allow. `problem` is the sidecar's 409."""
        allowed = ", ".join(problem["allowed"]) or "nothing"
        text = f"{problem['state']} → {problem['to']} is not allowed; allowed are {allowed}"
        self._event("refused", writer, text, MAGENTA)

    def log(self, event: LogEvent) -> None:
        """A line of the sidecar's log, if it tells what nobody else does."""
        match event:
            case {"event": "subscriber_status_changed"}:
                self._status_changed(event)
            case {"event": "write_rejected" | "write_renumbered", "source_module": writer} if writer not in self._tells_of:
                self._event("rejected", writer, event["detail"], YELLOW)
            case {"level": "error" | "critical"}:
                self._event("log", "sidecar", ", ".join(f"{key}: {value}" for key, value in event.items()), RED)

    def flush(self) -> None:
        """Tell the updates that are still to be summed up."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        updates, self._updates = self._updates, []
        if updates:
            mean = sum(update.delay for update in updates) / len(updates)
            text = f"{len(updates)} × the same, mean delay"
            self._show("updates", updates[-1]._replace(delay=mean), text, DIM)

    def _status_changed(self, event: LogEvent) -> None:
        status = event["status"]
        text = f"{event['before']} → {status}"
        if failures := event["failures"]:
            text += f", {failures} failure{'s' if failures > 1 else ''} ({event['outcome']})"
        self._event("subscriber", event["subscriber"], text, _STATUS_STYLES.get(status, BOLD))
        if status == "evicted":
            self.evicted.set()

    def _sum_up(self, delivery: Delivery) -> None:
        self._updates.append(delivery)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(UPDATES_SECONDS, self.flush)

    def _figures(self, kind: str, delivery: Delivery, *styles: str) -> None:
        self.flush()
        self._show(kind, delivery, self._described(delivery), *styles)

    def _described(self, delivery: Delivery) -> str:
        data, writer = delivery.snapshot["context_data"], delivery.snapshot["source_module"]
        text = f"by {writer}"
        if writer in self._tells_of and "arming_state" in data:
            text = f"{data['arming_state'].lower()}, {'on the ground' if data['landed'] else 'in the air'}"
        return f"{text}, {delivery.skipped} skipped" if delivery.skipped else text

    def _show(self, kind: str, delivery: Delivery, text: str, *styles: str) -> None:
        state, version = delivery.snapshot["state"], delivery.snapshot["version"]
        self._terminal.figures(self._seconds(), kind, state, text, version, delivery.revision, delivery.delay, *styles)

    def _event(self, kind: str, subject: str, text: str, *styles: str) -> None:
        self._terminal.event(self._seconds(), kind, subject, text, *styles)

    def _seconds(self) -> float:
        return self._clock() - self._began_at
