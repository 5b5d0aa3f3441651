"""The queues of which a list changed, and those whose jobs another worker is to claim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headrace.wire.keys import Keys
from headrace_worker.transport.claims import ClaimLimits, Lease


class ChangedQueues:
    """The queues that a worker was told of and has not claimed from since."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        #: The queue of each list, by its key.
        self._queues_by_key: dict[bytes, str] = {}
        #: The keys of the lists of retried jobs.
        self._retried_keys: frozenset[bytes] = frozenset()
        self._changed: set[str] = set()
        #: The queues in which jobs may wait while this worker has no process free, and those of which it may, or
        #: shall, claim no job that waits.
        self._left: set[str] = set()
        self._skipped: set[str] = set()
        #: Those of all these that were marked and not claimed from since.
        self._marked: set[str] = set()

    def watch(self, queues: Iterable[str]) -> None:
        """Set the queues whose lists count."""
        queues = tuple(queues)
        self._queues_by_key = {name.encode(): queue for queue in queues for name in self._keys.sources(queue)}
        self._retried_keys = frozenset(name.encode() for queue in queues for name in self._keys.retried(queue))

    def record_keys(self, keys: Iterable[bytes]) -> None:
        """Record that these keys changed. Those of no list are ignored."""
        self._changed.update(self._queues_by_key[key] for key in keys if key in self._queues_by_key)

    def are_retried(self, keys: Iterable[bytes]) -> bool:
        """Return whether all these keys are lists of retried jobs."""
        return self._retried_keys.issuperset(keys)

    def leave(self, keys: Iterable[bytes]) -> None:
        """Leave the jobs in these lists to another worker."""
        self._skipped.update(self._queues_by_key[key] for key in keys)

    def add(self, queue: str) -> None:
        """Record that jobs wait in a queue."""
        self._changed.add(queue)

    def select(self, limits: Sequence[ClaimLimits], parked: Lease | None) -> list[ClaimLimits]:
        """Return the limits of the queues to claim from: those that changed, none if none did.

        The queue of a parked lease is one of them, as a claim ends that lease or parks it again.
        """
        queues = {limit.queue for limit in limits if limit.queue in self._changed}
        if queues and parked is not None:
            queues.add(parked.queue)
        return [limit for limit in limits if limit.queue in queues]

    def record_nothing(self, limits: Iterable[ClaimLimits], *, skips_jobs: bool) -> None:
        """Record that a claim of these queues has found nothing that this worker may claim."""
        queues = {limit.queue for limit in limits}
        self._changed -= queues
        self._marked -= queues
        if skips_jobs:
            self._skipped |= queues

    @property
    def is_clear(self) -> bool:
        """True if jobs wait in no queue, as far as this worker was told."""
        return not (self._changed or self._left or self._skipped)

    def record_claim(self, queue: str, limits: Iterable[ClaimLimits]) -> None:
        """Record a claim of jobs of one of these queues. A look follows, or a claim of all."""
        self._left |= self._changed
        self._left.update(limit.queue for limit in limits)
        self._left.discard(queue)  # the script wakes a worker for it
        self._marked.discard(queue)
        self._changed.clear()

    def clear(self) -> None:
        """Record that nothing waits."""
        self._changed.clear()
        self._left.clear()
        self._marked.clear()

    def mark_unclaimed(self) -> bool:
        """Mark the queues in which jobs may wait that are not claimed yet. Returns whether there are any."""
        self._marked = self._skipped | self._left | self._changed
        return bool(self._marked)

    def take_marked(self, limits: Sequence[ClaimLimits]) -> set[str]:
        """Return the marked queues whose jobs this worker does not claim now. It can claim from those of `limits`.

        A queue from which it has claimed since then is not marked any more.
        """
        open_queues = {limit.queue for limit in limits}
        unopened = self._marked - open_queues
        unclaimed = (self._skipped & self._marked) | ((self._left | self._changed) & unopened)
        self._changed -= unopened
        self._left -= unopened | open_queues
        self._skipped -= self._marked
        self._marked = set()
        return unclaimed
