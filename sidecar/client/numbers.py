"""The numbers of a sidecar's store, with the queues of one client counted in."""

from collections.abc import Sequence
from typing import Any

from sidecar.audience import Audience
from sidecar.client.subscribers import Subscriber


def with_queues(numbers: dict[str, Any], audience: Audience) -> dict[str, Any]:
    """Both together, in what is counted by listeners."""
    own = {
        "subscriber_count": len(audience),
        "active_subscribers": audience.active,
        "notifications_sent": audience.notifications_sent,
        "notifications_failed": audience.notifications_failed,
    }
    return numbers | {name: numbers[name] + count for name, count in own.items()}


def listeners(subscribers: Sequence[Subscriber], audience: Audience, numbers: dict[str, Any]) -> dict[str, Any]:
    """Who listens to the sidecar, and through this client; and how many may."""
    ids = [each.id for each in subscribers if each.status != "evicted"] + audience.subscriber_ids
    return {
        "total_subscribers": len(ids),
        "subscriber_ids": ids,
        "max_subscribers": numbers["max_subscribers"],
        "queue_size": numbers["queue_size"],
    }
