"""What must be true of all that one subscriber got: pure functions from its recording to the faults in it."""

import json
from functools import cached_property
from itertools import groupby, pairwise
from typing import NamedTuple

from standardwebhooks import Webhook, WebhookVerificationError

REPEATS = 100
"""After a kill no more revisions than these come again, or one batch more."""

FRESH_SECONDS = 2.0


class Got:
    """One attempt as it arrived. `at`, `until`: wall clock; `status`: None, if it was not answered; `life`: kills before it."""

    def __init__(self, headers, body, at, until, status, life=0):
        self.headers, self.body, self.at, self.until, self.status, self.life = headers, body, at, until, status, life

    id = property(lambda self: self.headers["webhook-id"])
    acknowledged = property(lambda self: self.status is not None and 200 <= self.status < 300)

    @cached_property
    def changes(self):
        """The data of each revision in it."""
        data = json.loads(self.body)["data"]
        return data.get("changes", [data])


class News(NamedTuple):
    """One acknowledged revision."""

    life: int
    data: dict


def news(recording):
    return [News(got.life, data) for got in recording if got.acknowledged for data in got.changes]


def told_in_order(recording, batch=0):
    """Each revision follows the one that it names; a gap is told exactly; only after a kill some are repeated.

    `batch`: the most revisions in one delivery, if it is more than one.
    """
    faults, before = [], None
    for each in news(recording):
        data, revision = each.data, each.data["revision"]
        back = before.data["revision"] - data["previous_revision"] if before else 0
        if before and each.life > before.life:
            if not 0 <= back <= REPEATS + batch:
                faults.append(
                    f"{revision} comes after {before.data['revision']} and a kill, and names {data['previous_revision']}"
                )
        else:
            if data["initial"] != (before is None):
                faults.append(f"initial is wrong at {revision}")
            if back:
                faults.append(f"{revision} comes after {before.data['revision']}, and names {data['previous_revision']}")
        if not data["initial"] and revision != data["previous_revision"] + data["skipped"] + 1:
            faults.append(f"{revision} tells a gap of {data['skipped']} after {data['previous_revision']}")
        before = each
    return faults


def repeats(recording):
    """How many acknowledged revisions came again."""
    revisions = [each.data["revision"] for each in news(recording)]
    return len(revisions) - len(set(revisions))


def gaps(recording):
    """How many revisions it was told that it will not get."""
    return sum(each.data["skipped"] for each in news(recording))


def equal_to_the_journal(recording, history):
    """`history`: the snapshot by revision; each one that was acknowledged is the same, and the last one arrived."""
    told = [each.data for each in news(recording)]
    faults = [f"{data['revision']} is another" for data in told if history.get(data["revision"]) != data["snapshot"]]
    if history and (not told or told[-1]["revision"] != max(history)):
        faults.append("the newest revision never came")
    return faults


def same_on_every_attempt(recording):
    """One id, one body, for ever."""
    by_id = sorted(recording, key=lambda got: got.id)
    return [f"{name} has several bodies" for name, all_ in groupby(by_id, lambda g: g.id) if len({g.body for g in all_}) > 1]


def signed_and_fresh(recording, secret):
    faults, webhook = [], Webhook(secret)
    for got in recording:
        if abs(got.at - int(got.headers["webhook-timestamp"])) > FRESH_SECONDS:
            faults.append(f"{got.id} is not fresh")
        try:
            webhook.verify(got.body, got.headers)
        except WebhookVerificationError as error:
            faults.append(f"{got.id}: {error}")
    return faults


def one_at_a_time(recording):
    """Within one life of the sidecar, an attempt arrives when the one before has ended."""
    return [f"{b.id} arrived during {a.id}" for a, b in pairwise(recording) if a.life == b.life and b.at < a.until]
