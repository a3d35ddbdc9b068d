"""In-process readers: each has a queue that receives the current snapshot, then every new one."""

import asyncio

from sidecar.audience import Audience, Seat
from sidecar.snapshot import FsmSnapshot

Queue = asyncio.Queue[FsmSnapshot]


class Readers:
    """The queues, each with a place in the audience. `queue_size`: how many snapshots wait in one unless it says otherwise.

    When a reader is slow, the oldest waiting snapshot makes room for the newest, and is counted as failed.
    """

    def __init__(self, audience: Audience, queue_size: int) -> None:
        self._audience = audience
        self._queue_size = queue_size
        self._seats: dict[Queue, Seat] = {}

    def join(self, subscriber_id: str, max_queue_size: int | None, current: FsmSnapshot | None) -> Queue:
        """A queue that has the current snapshot, if there is one. Raises `SubscriberLimitError`."""
        seat = self._audience.join(subscriber_id)
        queue: Queue = asyncio.Queue(max(1, max_queue_size or self._queue_size))
        self._seats[queue] = seat
        if current:
            self._put(queue, current)
        return queue

    def leave(self, queue: Queue) -> bool:
        """Stop serving the queue. True if it was served."""
        seat = self._seats.pop(queue, None)
        if seat:
            seat.leave()
        return seat is not None

    def show(self, snapshot: FsmSnapshot) -> None:
        """Put it into every queue."""
        for queue in self._seats:
            self._put(queue, snapshot)

    def leave_all(self) -> None:
        """Stop serving all of them."""
        for queue in list(self._seats):
            self.leave(queue)

    def __len__(self) -> int:
        return len(self._seats)

    def _put(self, queue: Queue, snapshot: FsmSnapshot) -> None:
        if queue.full():
            queue.get_nowait()
            self._audience.notifications_failed += 1
        queue.put_nowait(snapshot)
        self._audience.notifications_sent += 1
