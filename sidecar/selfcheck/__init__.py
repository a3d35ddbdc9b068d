"""The contract of a running sidecar, checked from outside; the agent's state stays as it was."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from sidecar.asking import Place
from sidecar.selfcheck import contract
from sidecar.selfcheck.roundtrip import Reached, webhook_arrives
from sidecar.selfcheck.verdict import FailedError, NotJudgedError


class Verdict(NamedTuple):
    """What a check came to. `ok` None: it could not be judged, and `detail` says why. A failed one says what to do."""

    check: str
    ok: bool | None
    detail: str


def verdicts(api: Place, ops: Place, reached: Reached, *, write: bool) -> Iterator[Verdict]:
    """Each check in its turn. `write`: one real write too. Raises `NoAnswerError` when the API is not there at all."""
    contract.reach(api)
    checks: list[tuple[str, Callable[[], str]]] = [
        ("the API tells the state", partial(contract.state_is_told, api)),
        ("the probes are well", partial(contract.probes_are_well, ops)),
        ("a write is taken (dry run)", partial(contract.write_is_taken, api)),
        ("a stale write is refused (dry run)", partial(contract.stale_write_is_refused, api)),
        ("an unknown field is refused", partial(contract.unknown_field_is_refused, api)),
        ("a webhook arrives, signed", partial(webhook_arrives, api, reached)),
        ("the metrics are there", partial(contract.metrics_are_there, ops)),
    ]
    if write:
        checks.append(("a write counts, and a stale one does not", partial(contract.write_counts, api)))
    for name, check in checks:
        try:
            yield Verdict(name, True, check())
        except FailedError as failure:
            yield Verdict(name, False, str(failure))
        except NotJudgedError as reason:
            yield Verdict(name, None, str(reason))
