"""The life of a claim in Redis: small scripts (`lua`), each a typed function.

    claim ──> renew ──> publish      outcomes, letters and retries are written and the lease is gone, in one step
                 │────> release      back to where the jobs came from, uncounted
                 └────> lapse        the owner was lost: back, to run alone, with the attempt written down
    due                              delayed jobs whose time has come go to their queue
    bound                            dead letters that are too old or too many go

A lease is two things: a member of the sorted set `leases`, with the moment it lapses as its score, and a list
that holds the claimed messages, byte for byte. The member says who claimed, from which lists, of which queue,
and is never used again: whoever finds it missing has lost the claim. That is the fence.

A lease may stand before it holds anything (`standing`): Redis then puts the next job of a list under it. So a
lease that stood is never taken away while its owner may still be waiting at Redis.

A job that ran in vain comes back as a frame, with the attempt in it (`headrace.wire.attempts`). Nothing here ever
rewrites a job's message.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Container, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import msgspec
import redis

from headrace.connection.server_time import decode_server_time
from headrace.wire.attempts import escape_field
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.keys import PRIORITY_STEPS, Keys, model_name
from headrace_worker.route import Route
from headrace_worker.transport import scripts

log = logging.getLogger("headrace.claims")


class ClaimLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a claim may take of one queue."""

    queue: str
    #: Jobs at the most, and bytes after which no further job is taken.
    jobs: int = 1
    bytes: int = 1
    #: Seconds the first job may wait for others, to be predicted with them.
    wait: float = 0.0
    #: Leave the queue alone unless it has `jobs` waiting.
    full_only: bool = False
    #: Seconds the claim's run may take before its process is killed, and before it is interrupted; None is as
    #: long as Celery lets it.
    time_limits: tuple[float | None, float | None] = (None, None)
    #: Claims of it that this worker may hold; None is any number.
    claims: int | None = None
    #: Where its jobs go, for the pool process that runs them.
    route: Route | None = None
    #: Whether the owner will say when it is done. Else what is taken is gone, as a consumer may wish.
    leased: bool = True


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Ownership of a claim's jobs, for a time."""

    #: Owner and number: never used twice.
    name: str
    queue: str
    #: How many frames came from which of `Keys.sources`, in the order they were taken.
    origins: tuple[tuple[int, int], ...]

    @property
    def member(self) -> str:
        """The lease in `leases`: all there is to know of it, so that anyone can bring its jobs back."""
        origins = ",".join(str(number) for origin in self.origins for number in origin)
        return f"{self.name}#{origins}#{self.queue}"

    @property
    def holds_jobs(self) -> bool:
        """Whether it holds jobs, and not the message of an ordinary task."""
        return model_name(self.queue) is not None

    @property
    def owner(self) -> str:
        """The process that claimed."""
        return self.name.rpartition("/")[0] or self.name


def parse_lease(member: bytes) -> Lease | None:
    """The lease a member of `leases` stands for; None for what none of us wrote."""
    try:
        name, origins, queue = member.decode().split("#", 2)
        numbers = [int(number) for number in origins.split(",")]
        return Lease(name=name, queue=queue, origins=tuple(zip(numbers[::2], numbers[1::2], strict=True)))
    except ValueError:
        return None


def mark_redelivered(frame: bytes) -> bytes:
    """The message of an ordinary task, saying, as brokers do, that it was delivered before.

    Celery looks for it to leave out what has succeeded, and so do tasks that reject theirs. What is no message
    is left as it is.
    """
    try:
        message = json.loads(frame)
        message["headers"]["redelivered"] = True
        message["properties"]["delivery_info"]["redelivered"] = True
        return json.dumps(message).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return frame


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs taken from one queue in one step."""

    lease: Lease
    queued_messages: Sequence[bytes]
    #: Some job was cancelled lately: look whether one of these was.
    check_outcomes: bool = False
    #: When it was made: the server's unix milliseconds, and this machine's monotonic clock in seconds.
    claimed_ms: int = 0
    claimed_monotonic: float = 0.0
    #: Where its jobs go, as the main process has it.
    route: Route | None = None

    def server_time(self, monotonic: float) -> datetime:
        """What the server's clock says when this machine's monotonic one says that. Our own may be hours off."""
        return datetime.fromtimestamp(self.claimed_ms / 1000 + monotonic - self.claimed_monotonic, UTC)


class DeadLetterLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many dead letters are kept, and for how many seconds."""

    max_count: int = 100_000
    max_age_seconds: int = 30 * 86_400


class NothingClaimed(msgspec.Struct, frozen=True):
    """Nothing was taken; these queues have jobs, but not yet as many as were asked for."""

    filling: tuple[str, ...]
    #: Whether the lease that was to stand in this case does.
    parked: bool = False


def claim_call(
    keys: Keys,
    name: str,
    asks: Sequence[ClaimLimits],
    *,
    lease_ms: int,
    lowest_first: bool,
    standing: Lease | None = None,
) -> tuple[list[str], list[str | int]]:
    """KEYS and ARGV of CLAIM; it is sent without waiting for the reply, which `claimed` reads.

    `standing` is the lease that is to stand where nothing waits, of one of the queues. What has come under it is
    claimed first; where anything is claimed, it stands no more.
    """
    stood = keys.lease(standing.name if standing else name)
    all_keys = [keys.leases, keys.lease(name), keys.cancelled, stood]
    values: list[str | int] = [name, lease_ms, int(lowest_first)]
    if standing is None:
        values += ["", 0, 0]
    else:
        queue = next(number for number, ask in enumerate(asks, start=1) if ask.queue == standing.queue)
        values += [standing.member, queue, standing.origins[0][0]]
    for ask in asks:
        all_keys += keys.sources(ask.queue)
        values += [ask.queue, ask.jobs, ask.bytes, int(ask.full_only), int(ask.leased)]
    return all_keys, values


def claimed(
    reply: Sequence[Any], name: str, asks: Sequence[ClaimLimits], monotonic: float
) -> Claim | NothingClaimed:
    """What CLAIM replied, read when this machine's monotonic clock said that."""
    queue, numbers, *rest = reply
    if not queue:
        return NothingClaimed(tuple(asks[number - 1].queue for number in numbers), parked=bool(rest[0]))
    frames, look, at_ms = rest
    origins = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    lease = Lease(name=name, queue=asks[queue - 1].queue, origins=origins)
    return Claim(
        lease=lease,
        queued_messages=frames,
        check_outcomes=bool(look),
        claimed_ms=at_ms,
        claimed_monotonic=monotonic,
    )


#: The bounds where nothing else is said.
_USUAL = DeadLetterLimits()


class Leases:
    """What an owner, or anyone who sweeps, does with leases. Raises redis.RedisError."""

    def __init__(self, client: redis.Redis, keys: Keys, bounds: DeadLetterLimits = _USUAL) -> None:
        self._client, self._keys, self._bounds = client, keys, bounds
        self._claim = client.register_script(scripts.CLAIM)
        self._renew = client.register_script(scripts.RENEW)
        self._publish = client.register_script(scripts.PUBLISH)
        self._finish = client.register_script(scripts.FINISH)
        self._release = client.register_script(scripts.RELEASE)
        self._lapse = client.register_script(scripts.LAPSE)
        self._lapsed = client.register_script(scripts.LAPSED)
        self._due = client.register_script(scripts.DUE)
        self._bound = client.register_script(scripts.BOUND)

    def claim(
        self,
        name: str,
        limits: Sequence[ClaimLimits],
        *,
        lease_ms: int,
        lowest_first: bool = False,
        parked: Lease | None = None,
    ) -> Claim | NothingClaimed:
        """Take what waits, under a lease; else let another stand."""
        keys, values = claim_call(
            self._keys, name, limits, lease_ms=lease_ms, lowest_first=lowest_first, standing=parked
        )
        reply = self._claim(keys, values)
        return claimed(reply, name, limits, time.monotonic())

    def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> list[Lease]:
        """Let leases last from now; returns those that are lost."""
        members = {lease.member.encode(): lease for lease in leases}
        lost = self._renew([self._keys.leases], [lease_ms, *members])
        return [members[member] for member in lost]

    def publish(
        self,
        lease: Lease,
        outcomes: Mapping[str, bytes],
        *,
        ttl: int,
        clients: Mapping[str, str] = MappingProxyType({}),
        dead_letters: Sequence[tuple[DeadLetter, bytes]] = (),
        delayed: Sequence[tuple[int, bytes]] = (),
    ) -> list[bool] | None:
        """End a claim: store outcomes by job id, bury dead letters with their messages, let frames wait.

        `inboxes` says, by job id, which client's inbox is told of an outcome. A letter is kept only if the outcome
        of its job is published with it; that of a malformed message always is. `delayed` frames wait for so many
        milliseconds.

        Says of each outcome whether it was published; None when the lease was lost, and nothing was done.
        """
        keys = self._keys
        names = self._of(lease)
        for job in outcomes:
            names += [keys.result(job), keys.job(job)]
        numbers = {inbox: number for number, inbox in enumerate(dict.fromkeys(clients.values()), start=1)}
        kept = self._bounds
        values: list[str | int | bytes] = [lease.member, ttl, len(outcomes), len(numbers), len(dead_letters)]
        values += [kept.max_count, kept.max_age_seconds, *outcomes.values(), *map(keys.reply_channel, numbers)]
        values += [numbers[clients[job]] if job in clients else 0 for job in outcomes]
        if dead_letters or delayed:
            names += [keys.delayed(lease.queue), keys.dead, keys.dead_messages, keys.dead_times, keys.dead_dropped]
            places = {job: place for place, job in enumerate(outcomes, start=1)}
            for letter, message in dead_letters:
                of = 0 if letter.reason == "malformed" else places[letter.id]
                values += [of, letter.id, letter.encode(), message]
            for milliseconds, frame in delayed:
                values += [milliseconds, frame]
        replies = self._publish(names, values)
        if replies is None:
            return None
        *published, dropped = replies
        self._say_dropped(dropped)
        return [bool(one) for one in published]

    def store_dead_letter(self, letter: DeadLetter, message: bytes, lease: Lease | None) -> None:
        """Keep a message nobody can read as a dead letter, and end its lease."""
        if lease is not None:
            self.publish(lease, {}, ttl=1, dead_letters=[(letter, message)])
            return
        keys, now_ms = self._keys, decode_server_time(self._client.time())
        with self._client.pipeline() as pipe:
            pipe.hset(keys.dead_messages, letter.id, message)
            pipe.hset(keys.dead, letter.id, letter.encode())
            pipe.zadd(keys.dead_times, {letter.id: now_ms})
            pipe.execute()

    def trim_dead_letters(self, limit: int = 1000) -> int:
        """Drop dead letters that are too old or too many, the oldest first; returns how many."""
        keys, kept = self._keys, self._bounds
        names = [keys.dead_times, keys.dead, keys.dead_messages, keys.dead_dropped]
        dropped = int(self._bound(names, [kept.max_count, kept.max_age_seconds, limit]))
        self._say_dropped(dropped)
        return dropped

    def _say_dropped(self, letters: int) -> None:
        if letters:
            log.warning(
                "dropped the %d oldest dead letters: more than %d are not kept, nor longer than %.0f days",
                letters,
                self._bounds.max_count,
                self._bounds.max_age_seconds / 86_400,
            )

    def finish(self, lease: Lease) -> bool:
        """End a claim whose messages are done with; says whether it was still held."""
        return bool(self._finish(self._of(lease), [lease.member]))

    def requeue(
        self, lease: Lease, *, only_if_expired: bool = False, delivered: bool = False, behind: bool = False
    ) -> int:
        """Put a claim's messages back where they came from, as if never taken; returns how many.

        The message of an ordinary task that was `delivered` says so from then on, and with `behind` it goes
        behind all that waits. Jobs do neither.
        """
        marked, behind = b"", behind and not lease.holds_jobs
        if delivered and not lease.holds_jobs:
            first: list[bytes] = self._client.lrange(self._keys.lease(lease.name), 0, 0)  # type: ignore[assignment]  # bytes
            marked = b"".join(map(mark_redelivered, first))
        names = [*self._of(lease), *self._keys.sources(lease.queue)]
        origins = (number for origin in lease.origins for number in origin)
        return int(self._release(names, [lease.member, int(only_if_expired), int(behind), marked, *origins]))

    def requeue_isolated(self, lease: Lease, cause: str, *, owner: str, only_if_expired: bool = False) -> int:
        """Take a claim from its owner. Its jobs are to run again, each alone, one attempt the more.

        Messages of ordinary queues go back where they came from. Returns how many went back.
        """
        if not lease.holds_jobs:
            return self.requeue(lease, only_if_expired=only_if_expired, delivered=True)
        names = [*self._of(lease), self._keys.isolated(lease.queue)]
        return int(
            self._lapse(
                names, [lease.member, int(only_if_expired), f"{escape_field(cause)},{escape_field(owner)}"]
            )
        )

    def expired(self, limit: int = 100) -> list[Lease]:
        """Leases whose time is over, whoever owned them."""
        return [lease for member in self._lapsed([self._keys.leases], [limit]) if (lease := parse_lease(member))]

    def find(self, names: Container[str]) -> list[Lease]:
        """The leases that are held under one of these names."""
        members: list[bytes] = self._client.zrange(self._keys.leases, 0, -1)  # type: ignore[assignment]  # bytes
        return [lease for member in members if (lease := parse_lease(member)) and lease.name in names]

    def unblock(self, client: int) -> bool:
        """End the wait of a connection at Redis, by its id. False where this user may not, and it may go on."""
        try:
            self._client.client_unblock(client)
        except redis.ResponseError as error:
            log.warning("Redis does not end a wait (%s). Permit this user CLIENT UNBLOCK", error)
            return False
        return True

    def move_due(self, queue: str, limit: int = 500) -> int:
        """Move delayed jobs whose time has come to their queue; returns how many."""
        return int(self._due([self._keys.delayed(queue), *self._keys.sources(queue)], [limit]))

    def uptime_seconds(self) -> float:
        """Seconds since Redis started; without end where it does not say."""
        try:
            return float(self._client.info("server")["uptime_in_seconds"])
        except (redis.ResponseError, KeyError):  # a user who may not ask, or another kind of server
            return float("inf")

    def reconnect(self) -> None:
        """Open connections anew: the one that answers is a primary no more."""
        self._client.connection_pool.disconnect()

    def _of(self, lease: Lease) -> list[str]:
        return [self._keys.leases, self._keys.lease(lease.name)]


assert len(PRIORITY_STEPS) == 4, "the scripts count on four lists to a queue"  # noqa: S101  # a fact, not a check
