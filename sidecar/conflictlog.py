"""One log line for each write that lost, or that overwrote a state unseen: who tried what, against whom, and why it met it."""

import structlog

from sidecar.conflicts import Conflict, ConflictKind
from sidecar.logs import Summarised

REASON_CHARACTERS = 256
"""So much of a write's reason is in its line; `/v1/conflicts` has it whole."""

_log = structlog.get_logger("conflicts")


class ConflictLog:
    """Called with each conflict. In a storm of them each second has a bounded number of lines, and one that counts the rest."""

    def __init__(self) -> None:
        self._rejected, self._renumbered = Summarised(_log.warning), Summarised(_log.warning)

    def __call__(self, conflict: Conflict) -> None:
        """Write the line, or count it."""
        masked = conflict.kind is ConflictKind.MASKED
        event, tell = ("write_renumbered", self._renumbered) if masked else ("write_rejected", self._rejected)
        attempted, against = conflict.attempted, conflict.against
        tell(
            event,
            kind=str(conflict.kind),
            cause=str(conflict.reason),
            source_module=attempted.source_module,
            state=attempted.state,
            version=attempted.version,
            reason=attempted.reason[:REASON_CHARACTERS],
            against=against.source_module,
            against_state=against.state,
            against_version=against.version,
            detail=str(conflict),
        )

    def flush(self) -> None:
        """Write what is still owed."""
        self._rejected.flush()
        self._renumbered.flush()
