"""The end of the flight: what the sidecar says about it, and whether all of it happened."""

from typing import NamedTuple

from demo.api import Stored
from demo.scrape import Scrape

WRITE_SECONDS = "fsm_write_duration_seconds"
COMMIT_SECONDS = "fsm_journal_commit_duration_seconds"
PROPAGATION_SECONDS = "fsm_propagation_delay_seconds"


class Summary(NamedTuple):
    """Read from GET /v1/state and /metrics once the flight is over. `journal`: the file's path."""

    state: Stored
    metrics: Scrape
    journal: str

    def lines(self) -> list[tuple[str, str]]:
        """What to show, each with its name."""
        kib = self.metrics.total("fsm_journal_file_bytes") / 1024
        return [
            ("state", f"{self.state.state}, version {self.state.version}, revision {self.state.revision}"),
            ("epoch", f"{self.state.epoch}, the journal's identity and a part of every ETag: {self.state.etag}"),
            ("writes", f"{self.metrics.total('fsm_sets_total')} accepted, {self._latency(WRITE_SECONDS)} to answer"),
            ("conflicts", self._conflicts()),
            ("deliveries", self._deliveries()),
            ("subscribers", _counts(self.metrics.by("status", "fsm_subscribers"))),
            ("commits", f"{self.metrics.total(COMMIT_SECONDS + '_count')}, {self._latency(COMMIT_SECONDS)}, fsync included"),
            (
                "journal",
                f"{self.journal}, {kib:.0f} KiB; it goes with the demo",
            ),
        ]

    def missing(self, *, landed_in: str, received: float) -> list[str]:
        """What was to happen and did not. `received`: the last revision that the healthy subscriber has."""
        expected = {
            f"the state is {landed_in}": self.state.state == landed_in,
            "a write lost a conflict": self.metrics.total("fsm_version_conflicts_total") > 0,
            "the machine refused a transition": self.metrics.total("fsm_illegal_transitions_total", outcome="refused") > 0,
            "a subscriber was evicted": self.metrics.total("fsm_subscribers_evicted_total") > 0,
            "the final state was delivered": received >= self.state.revision,
        }
        return [promise for promise, kept in expected.items() if not kept]

    def _conflicts(self) -> str:
        lost = self.metrics.by("kind", "fsm_version_conflicts_total")
        refused = self.metrics.total("fsm_illegal_transitions_total", outcome="refused")
        return f"{sum(lost.values())} writes lost ({_counts(lost)}), {refused} refused by the machine"

    def _deliveries(self) -> str:
        delivered = self.metrics.total("fsm_notifications_total")
        failed = self.metrics.total("fsm_webhook_attempts_total") - delivered
        return f"{delivered}, {self._latency(PROPAGATION_SECONDS)} to the receiver's 2xx; {failed} attempts failed"

    def _latency(self, histogram: str) -> str:
        p50, p99 = (self.metrics.quantile(q, histogram) * 1000 for q in (0.5, 0.99))
        return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
