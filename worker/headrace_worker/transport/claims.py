"""Types of the transport: the limits of a claim, the claim, and its lease."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from headrace.wire.queues import (
    FIRST_RETRIED_SOURCE,
    FIRST_SOURCE,
    ISOLATED_SOURCE,
    PRIORITY_STEPS,
    is_bulk_queue,
    model_name,
)
from headrace_worker.route import Route

#: The mark of a blocking claim in a member of `Keys.leases`.
_BLOCKING = ",blocking"

#: When a claim takes an isolated job: before all others, if no other job waits, or not at all.
IsolatedTurn = Literal["first", "last", "never"]

#: The sources of chunks of bulk runs: the lists of the lowest priority.
_CHUNK_SOURCES = (FIRST_SOURCE + len(PRIORITY_STEPS) - 1, FIRST_RETRIED_SOURCE + len(PRIORITY_STEPS) - 1)
#: The indexes in `Keys.sources`.
_SOURCES = range(FIRST_RETRIED_SOURCE + len(PRIORITY_STEPS))


class ClaimLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a claim of one queue."""

    queue: str
    #: The most jobs, and the bytes after which no further job is claimed. One job is always claimed.
    jobs: int = 1
    bytes: int = 1
    #: Seconds the first job may wait for others, to be predicted in one batch with them.
    wait: float = 0.0
    #: Claim nothing unless `jobs` are waiting.
    full_only: bool = False
    #: Seconds after which the pool process that runs the claim is killed, and after which it is interrupted.
    #: None leaves the limit to Celery.
    time_limits: tuple[float | None, float | None] = (None, None)
    #: The time limits of a job that plans or finishes a bulk run; None: as above.
    plan_time_limits: tuple[float | None, float | None] | None = None
    #: The most claims of the queue that this worker may hold; None is any number.
    claims: int | None = None
    #: True if this worker holds as many claims as it may of this queue and others of its kind.
    is_full: bool = False
    #: The versions that serve the jobs, for the pool process that runs them.
    route: Route | None = None
    #: False for a consumer without acknowledgements: what it claims is removed from Redis at once.
    leased: bool = True

    def time_limits_of(self, lease: Lease) -> tuple[float | None, float | None]:
        """Return the time limits of the claim of a lease. The chunks of bulk runs have the lowest priority."""
        source, _ = lease.origins[0]
        is_chunk = source in _CHUNK_SOURCES
        return self.time_limits if self.plan_time_limits is None or is_chunk else self.plan_time_limits


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The ownership of a claim's jobs, limited in time."""

    #: The owner and a number; never used twice.
    name: str
    queue: str
    #: Pairs of an index in `Keys.sources` and the number of messages from that list, in the order of the claim.
    origins: tuple[tuple[int, int], ...]
    #: True for the lease of a blocking claim (`blocking_claim`), which may be empty.
    blocking: bool = False

    @property
    def member(self) -> str:
        """The member of `Keys.leases`. It holds all that anybody needs to bring the jobs back."""
        origins = ",".join(str(number) for origin in self.origins for number in origin)
        return f"{self.name}#{origins}{_BLOCKING if self.blocking else ''}#{self.queue}"

    @property
    def holds_jobs(self) -> bool:
        """True for jobs of a model, False for the message of an ordinary task."""
        return model_name(self.queue) is not None

    @property
    def is_bulk(self) -> bool:
        """True for a job of a bulk run."""
        return is_bulk_queue(self.queue)

    @property
    def is_isolated(self) -> bool:
        """True for a job that runs alone, as its process or worker was lost before."""
        return self.origins[:1] == ((ISOLATED_SOURCE, 1),)

    @property
    def owner(self) -> str:
        """The process that claimed: host, process id and a random word."""
        return self.name.rpartition("/")[0] or self.name


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Messages that were claimed from one queue in one step."""

    lease: Lease
    queued_messages: Sequence[bytes]
    #: True if some job was cancelled lately: the claim's own jobs may be among them.
    check_outcomes: bool = False
    #: The moment of the claim, by the server's clock (unix milliseconds) and by this machine's monotonic clock
    #: (seconds).
    claimed_ms: int = 0
    claimed_monotonic: float = 0.0
    #: True if the claim left no job in the queue; False if that is not known.
    is_queue_empty: bool = False
    #: The versions that serve the jobs, as the main process knows them.
    route: Route | None = None

    def by_source(self) -> Iterator[tuple[int, Sequence[bytes]]]:
        """Yield the queued messages that came from each list, with its index in `Keys.sources`."""
        first = 0
        for source, count in self.lease.origins:
            yield source, self.queued_messages[first : first + count]
            first += count

    def server_time(self, monotonic: float) -> datetime:
        """Return the server's time at a moment of this machine's monotonic clock.

        The machine's own clock may be hours off.
        """
        return datetime.fromtimestamp(self.claimed_ms / 1000 + monotonic - self.claimed_monotonic, UTC)


class NothingClaimed(msgspec.Struct, frozen=True):
    """The result of a claim that claimed nothing."""

    #: Queues in which jobs wait, but fewer than their limits ask for (`full_only`).
    filling: tuple[str, ...]
    #: True if the lease that was offered with the claim is parked now.
    parked: bool = False
    #: True if there was a claim, whose lease was ended before its messages were read.
    is_lost: bool = False


def choose_isolated_turn(*, processes: int, isolated: int, follows_isolated: bool) -> IsolatedTurn:
    """Decide when the next claim takes an isolated job, which may end or block its process.

    Isolated jobs hold at most half of the pool processes: `processes` is their number, 0 for any, and `isolated`
    the number of those that run an isolated job. A single process runs isolated jobs and others in turn:
    `follows_isolated` is True if the last claim was an isolated job.
    """
    if processes == 1:
        return "last" if follows_isolated else "first"
    return "never" if processes and isolated >= processes // 2 else "first"


def parse_lease(member: bytes) -> Lease | None:
    """Return the lease of a member of `Keys.leases`; None for a member of another form."""
    try:
        name, origins, queue = member.decode().split("#", 2)
        numbers = [int(number) for number in origins.removesuffix(_BLOCKING).split(",")]
        pairs = pair_origins(numbers)
    except ValueError:
        return None
    if any(source not in _SOURCES or count < 0 for source, count in pairs):
        return None
    return Lease(name=name, queue=queue, origins=pairs, blocking=origins.endswith(_BLOCKING))


def pair_origins(numbers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Pair the flat list of a lease's origins: source, count, source, count. Raises ValueError for an odd one."""
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))
