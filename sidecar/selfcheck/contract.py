"""The checks of API, probes and metrics. Each gives what it saw, or raises `FailedError` or `NotJudgedError`."""

import time
from typing import Any, NamedTuple

from sidecar.alerts.scrape import Scrape
from sidecar.asking import NoAnswerError, Place
from sidecar.metrics import BUILD, CATALOGUE, FILE_BYTES
from sidecar.selfcheck.verdict import FailedError, NotJudgedError, Told, ask

WRITER = "selfcheck"
"""The `source_module` of every write that is tried."""

_MAX_VERSION = 2**53 - 1
_TRIES = 3
"""The agent may write in between: then it is the newer state that is tried."""

_OF_THE_WRITE = ("version", "snapshot_id", "ts_mono", "ts_wall")
"""What each write of the same state has of its own."""

_OF_A_FILE = ("fsm_journal_", "fsm_storage_")
"""Families of a journal on disk."""


class Current(NamedTuple):
    """The state as a writer needs to know it. `snapshot` None: there is none yet."""

    epoch: str
    snapshot: dict[str, Any] | None

    @property
    def precondition(self) -> dict[str, str]:
        """The header by which a write expects just this."""
        if self.snapshot is None:
            return {"if_none_match": "*"}
        return {"if_match": f'"{self.epoch}-{self.snapshot["version"]}"'}

    @property
    def stale(self) -> dict[str, str]:
        """The header by which a write expects what has been before, or has never been."""
        version = self.snapshot["version"] - 1 if self.snapshot else 0
        return {"if_match": f'"{self.epoch}-{version if version >= 0 else _MAX_VERSION}"'}


def reach(api: Place) -> None:
    """Raises `NoAnswerError` when nobody is there."""
    api.ask("GET", "/v1/state")


def current(api: Place) -> Current:
    told = ask(api, "GET", "/v1/state/meta")
    try:
        found = Current(told.json["epoch"], told.json["snapshot"])
        _ = found.precondition, found.stale
    except (KeyError, TypeError):
        raise FailedError(f"GET /v1/state/meta: {told}; is this the API of a sidecar?") from None
    return found


def state_is_told(api: Place) -> str:
    """With its ETag, or that there is none."""
    for _ in range(_TRIES):
        now = current(api)
        told = ask(api, "GET", "/v1/state")
        if now.snapshot is None and told.type == "no-state":
            return f"there is none yet, epoch {now.epoch}"
        if now.snapshot is not None and told.status == 200 and told.etag == now.precondition["if_match"]:
            return f"{now.snapshot['state']}, version {now.snapshot['version']}, epoch {now.epoch}"
    wanted = "404 no-state" if now.snapshot is None else f"200 with the ETag {now.precondition['if_match']}"
    raise FailedError(f"GET /v1/state: {told} with the ETag {told.etag}, expected {wanted}; is a proxy in between?")


def probes_are_well(ops: Place) -> str:
    """`/livez`, `/startupz` and `/readyz`."""
    for path in ("/livez", "/startupz", "/readyz"):
        told = _ask_ops(ops, path)
        if told.status != 200:
            checks = told.json.get("checks", ()) if isinstance(told.json, dict) else ()
            ill = [f"{check['name']}: {check['detail']}" for check in checks if not check["ok"]]
            raise FailedError(f"{ops.url}{path}: {told.status}, {'; '.join(ill) or 'no sidecar answers so'}; look at its log")
    return "live, started and ready"


def _ask_ops(ops: Place, path: str) -> Told:
    try:
        return ask(ops, "GET", path)
    except FailedError as failure:
        raise FailedError(f"{failure}; say with --ops where probes and metrics are") from None


def write_is_taken(api: Place) -> str:
    """With the right expectation; and nothing is written."""
    for _ in range(_TRIES):
        now = current(api)
        told = _try(api, now.precondition, now)
        if told.status == 200:
            return _as_nothing_was_written(api, told)
        if told.type not in ("version-conflict", "already-exists"):
            break
    raise FailedError(f"PUT /v1/state?dry_run=true: {told}, expected 200; the agent's writes are answered the same way")


def _as_nothing_was_written(api: Place, told: Told) -> str:
    forecast = told.json if isinstance(told.json, dict) else {}
    if forecast.get("dry_run") is not True or "snapshot" not in forecast:
        raise FailedError("PUT /v1/state?dry_run=true: 200, but not as a dry run is answered; is this an older sidecar?")
    after = current(api).snapshot
    if after and after.get("snapshot_id") == forecast["snapshot"].get("snapshot_id"):
        raise FailedError("a dry run was written; report it, and look at the state")
    return f"it would have become version {forecast['snapshot'].get('version')}"


def stale_write_is_refused(api: Place) -> str:
    """With 412 `version-conflict`, and the state that it lost to."""
    now = current(api)
    told = _try(api, now.stale, now)
    return _as_a_conflict(told, "PUT /v1/state?dry_run=true")


def _as_a_conflict(told: Told, request: str) -> str:
    if (told.status, told.type) != (412, "version-conflict") or "current" not in told.json:
        raise FailedError(
            f"{request} with an If-Match that is not the current one: {told}, expected 412 version-conflict;"
            " stale writes would overwrite newer states"
        )
    return "412 version-conflict"


def unknown_field_is_refused(api: Place) -> str:
    """With 422 `invalid`: it might have meant something."""
    now = current(api)
    told = _try(api, now.precondition, now, selfcheck=True)
    if (told.status, told.type) != (422, "invalid"):
        raise FailedError(f"PUT /v1/state?dry_run=true with an unknown field: {told}, expected 422 invalid")
    return "422 invalid"


def _try(api: Place, precondition: dict[str, str], now: Current, **members: object) -> Told:
    """A dry run of repeating the state. Where there is none, any state will do."""
    state = now.snapshot["state"] if now.snapshot else _first_state(api)
    return _as_a_writer(
        ask(api, "PUT", "/v1/state?dry_run=true", {"state": state, "source_module": WRITER} | members, **precondition)
    )


def _first_state(api: Place) -> str:
    told = ask(api, "GET", "/v1/machine")
    try:
        return str(told.json["initial"] or told.json["states"][0])
    except (KeyError, TypeError, IndexError):
        raise FailedError(f"GET /v1/machine: {told}; is this the API of a sidecar?") from None


def _as_a_writer(told: Told) -> Told:
    """Raises `NotJudgedError` where only the agent itself may write."""
    if told.type == "fenced":
        raise NotJudgedError("only the holder of the writer's lease may write")
    return told


def write_counts(api: Place) -> str:
    """The current state once more, as an update; then a write that still expects the version before."""
    for _ in range(_TRIES):
        now = current(api)
        if now.snapshot is None:
            raise NotJudgedError("there is no state to be repeated")
        again = {name: value for name, value in now.snapshot.items() if name not in _OF_THE_WRITE}
        told = _as_a_writer(ask(api, "PUT", "/v1/state", again, **now.precondition))
        if told.type != "version-conflict":
            break
    if told.status != 200:
        raise FailedError(f"PUT /v1/state: {told}, expected 200; the agent's writes are answered the same way")
    stale = ask(api, "PUT", "/v1/state", again, **now.precondition)
    return f"version {told.json['snapshot']['version']}, then {_as_a_conflict(stale, 'PUT /v1/state')}"


def metrics_are_there(ops: Place) -> str:
    """Every family of the catalogue; without a journal on disk, all but those of its file."""
    try:
        answer = ops.ask("GET", "/metrics")
        if answer.status != 200:
            raise FailedError(f"{ops.url}/metrics: {answer.status}; say with --ops where probes and metrics are")
        scrape = Scrape.parse(answer.body.decode(), time.time())
    except NoAnswerError as error:
        raise FailedError(f"{ops.url}/metrics: {error}; say with --ops where probes and metrics are") from None
    except ValueError:
        raise FailedError(f"{ops.url}/metrics: not in the text format of metrics; is this the ops listener?") from None
    told = {name for family in CATALOGUE if (name := family.name.removesuffix("_total")) in scrape.families}
    in_memory = FILE_BYTES.name not in told
    missing = [
        family.name
        for family in CATALOGUE
        if family.name.removesuffix("_total") not in told and not (in_memory and family.name.startswith(_OF_A_FILE))
    ]
    if missing:
        names = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise FailedError(f"{ops.url}/metrics: {names} missing; is it another version of the sidecar than this command?")
    version = next((dict(labels).get("version") for labels in scrape.samples.get(BUILD.name, ())), None)
    return f"{len(told)} families, of version {version}"
