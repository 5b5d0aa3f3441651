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


class LeaseKeys(msgspec.Struct, frozen=True):
    """The keys of claims, private to this transport."""

    keys: Keys

    def lease(self, name: str) -> str:
        """A list: the frames of a claim."""
        return self.keys.lease(name)

    def sources(self, queue: str) -> list[str]:
        """The lists a claim takes from: `again`, then by priority."""
        return [self.keys.isolated(queue), *self.keys.lists(queue)]


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
    #: How many frames came from which of `LeaseKeys.sources`, in the order they were taken.
    origins: tuple[tuple[int, int], ...]

    @property
    def member(self) -> str:
        """The lease in `leases`: all there is to know of it, so that anyone can bring its jobs back."""
        origins = ",".join(str(number) for origin in self.origins for number in origin)
        return f"{self.name}#{origins}#{self.queue}"

    @property
    def of_jobs(self) -> bool:
        """Whether it holds jobs, and not the message of an ordinary task."""
        return model_name(self.queue) is not None

    @property
    def owner(self) -> str:
        """The process that claimed."""
        return self.name.rpartition("/")[0] or self.name


def lease_of(member: bytes) -> Lease | None:
    """The lease a member of `leases` stands for; None for what none of us wrote."""
    try:
        name, origins, queue = member.decode().split("#", 2)
        numbers = [int(number) for number in origins.split(",")]
        return Lease(name=name, queue=queue, origins=tuple(zip(numbers[::2], numbers[1::2], strict=True)))
    except ValueError:
        return None


def redelivered(frame: bytes) -> bytes:
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
    frames: Sequence[bytes]
    #: Some job was cancelled lately: look whether one of these was.
    check_outcomes: bool = False
    #: When it was made: the server's unix milliseconds, and this machine's monotonic clock in seconds.
    at_ms: int = 0
    taken_at: float = 0.0
    #: Where its jobs go, as the main process has it.
    route: Route | None = None

    def moment(self, monotonic: float) -> datetime:
        """What the server's clock says when this machine's monotonic one says that. Our own may be hours off."""
        return datetime.fromtimestamp(self.at_ms / 1000 + monotonic - self.taken_at, UTC)


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How many dead letters are kept, and for how many seconds."""

    letters: int = 100_000
    seconds: int = 30 * 86_400


class NothingClaimed(msgspec.Struct, frozen=True):
    """Nothing was taken; these queues have jobs, but not yet as many as were asked for."""

    queues: tuple[str, ...]
    #: Whether the lease that was to stand in this case does.
    stands: bool = False


def claim_call(
    names: LeaseKeys,
    name: str,
    asks: Sequence[ClaimLimits],
    *,
    lasts_ms: int,
    lowest_first: bool,
    standing: Lease | None = None,
) -> tuple[list[str], list[str | int]]:
    """KEYS and ARGV of CLAIM; it is sent without waiting for the reply, which `claimed` reads.

    `standing` is the lease that is to stand where nothing waits, of one of the queues. What has come under it is
    claimed first; where anything is claimed, it stands no more.
    """
    stood = names.lease(standing.name if standing else name)
    keys = [names.keys.leases, names.lease(name), names.keys.cancelled, stood]
    values: list[str | int] = [name, lasts_ms, int(lowest_first)]
    if standing is None:
        values += ["", 0, 0]
    else:
        queue = next(number for number, ask in enumerate(asks, start=1) if ask.queue == standing.queue)
        values += [standing.member, queue, standing.origins[0][0]]
    for ask in asks:
        keys += names.sources(ask.queue)
        values += [ask.queue, ask.jobs, ask.bytes, int(ask.full_only), int(ask.leased)]
    return keys, values


def claimed(
    reply: Sequence[Any], name: str, asks: Sequence[ClaimLimits], monotonic: float
) -> Claim | NothingClaimed:
    """What CLAIM replied, read when this machine's monotonic clock said that."""
    queue, numbers, *rest = reply
    if not queue:
        return NothingClaimed(tuple(asks[number - 1].queue for number in numbers), stands=bool(rest[0]))
    frames, look, at_ms = rest
    origins = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    lease = Lease(name=name, queue=asks[queue - 1].queue, origins=origins)
    return Claim(lease=lease, frames=frames, check_outcomes=bool(look), at_ms=at_ms, taken_at=monotonic)


#: The bounds where nothing else is said.
_USUAL = Bounds()


class Leases:
    """What an owner, or anyone who sweeps, does with leases. Raises redis.RedisError."""

    def __init__(self, client: redis.Redis, names: LeaseKeys, bounds: Bounds = _USUAL) -> None:
        self._client, self._names, self._bounds = client, names, bounds
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
        asks: Sequence[ClaimLimits],
        *,
        lasts_ms: int,
        lowest_first: bool = False,
        standing: Lease | None = None,
    ) -> Claim | NothingClaimed:
        """Take what waits, under a lease; else let another stand."""
        keys, values = claim_call(
            self._names, name, asks, lasts_ms=lasts_ms, lowest_first=lowest_first, standing=standing
        )
        reply = self._claim(keys, values)
        return claimed(reply, name, asks, time.monotonic())

    def renew(self, leases: Sequence[Lease], *, lasts_ms: int) -> list[Lease]:
        """Let leases last from now; returns those that are lost."""
        members = {lease.member.encode(): lease for lease in leases}
        lost = self._renew([self._names.keys.leases], [lasts_ms, *members])
        return [members[member] for member in lost]

    def publish(
        self,
        lease: Lease,
        outcomes: Mapping[str, bytes],
        *,
        ttl: int,
        inboxes: Mapping[str, str] = MappingProxyType({}),
        letters: Sequence[tuple[DeadLetter, bytes]] = (),
        delayed: Sequence[tuple[int, bytes]] = (),
    ) -> list[bool] | None:
        """End a claim: store outcomes by job id, bury dead letters with their messages, let frames wait.

        `inboxes` says, by job id, which client's inbox is told of an outcome. A letter is kept only if the outcome
        of its job is published with it; that of a malformed message always is. `delayed` frames wait for so many
        milliseconds.

        Says of each outcome whether it was published; None when the lease was lost, and nothing was done.
        """
        keys = self._names.keys
        names = self._of(lease)
        for job in outcomes:
            names += [keys.result(job), keys.job(job)]
        numbers = {inbox: number for number, inbox in enumerate(dict.fromkeys(inboxes.values()), start=1)}
        kept = self._bounds
        values: list[str | int | bytes] = [lease.member, ttl, len(outcomes), len(numbers), len(letters)]
        values += [kept.letters, kept.seconds, *outcomes.values(), *map(keys.reply_channel, numbers)]
        values += [numbers[inboxes[job]] if job in inboxes else 0 for job in outcomes]
        if letters or delayed:
            names += [keys.delayed(lease.queue), keys.dead, keys.dead_messages, keys.dead_times, keys.dead_dropped]
            places = {job: place for place, job in enumerate(outcomes, start=1)}
            for letter, message in letters:
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

    def store_dead_letters(self, letter: DeadLetter, message: bytes, lease: Lease | None) -> None:
        """Keep a message nobody can read as a dead letter, and end its lease."""
        if lease is not None:
            self.publish(lease, {}, ttl=1, letters=[(letter, message)])
            return
        keys, now_ms = self._names.keys, decode_server_time(self._client.time())
        with self._client.pipeline() as pipe:
            pipe.hset(keys.dead_messages, letter.id, message)
            pipe.hset(keys.dead, letter.id, letter.encode())
            pipe.zadd(keys.dead_times, {letter.id: now_ms})
            pipe.execute()

    def bound(self, most: int = 1000) -> int:
        """Drop dead letters that are too old or too many, the oldest first; returns how many."""
        keys, kept = self._names.keys, self._bounds
        names = [keys.dead_times, keys.dead, keys.dead_messages, keys.dead_dropped]
        dropped = int(self._bound(names, [kept.letters, kept.seconds, most]))
        self._say_dropped(dropped)
        return dropped

    def _say_dropped(self, letters: int) -> None:
        if letters:
            log.warning(
                "dropped the %d oldest dead letters: more than %d are not kept, nor longer than %.0f days",
                letters,
                self._bounds.letters,
                self._bounds.seconds / 86_400,
            )

    def finish(self, lease: Lease) -> bool:
        """End a claim whose messages are done with; says whether it was still held."""
        return bool(self._finish(self._of(lease), [lease.member]))

    def release(
        self, lease: Lease, *, only_if_lapsed: bool = False, delivered: bool = False, behind: bool = False
    ) -> int:
        """Put a claim's messages back where they came from, as if never taken; returns how many.

        The message of an ordinary task that was `delivered` says so from then on, and with `behind` it goes
        behind all that waits. Jobs do neither.
        """
        marked, behind = b"", behind and not lease.of_jobs
        if delivered and not lease.of_jobs:
            first: list[bytes] = self._client.lrange(self._names.lease(lease.name), 0, 0)  # type: ignore[assignment]  # bytes
            marked = b"".join(map(redelivered, first))
        names = [*self._of(lease), *self._names.sources(lease.queue)]
        origins = (number for origin in lease.origins for number in origin)
        return int(self._release(names, [lease.member, int(only_if_lapsed), int(behind), marked, *origins]))

    def requeue_isolated(self, lease: Lease, cause: str, *, owner: str, only_if_lapsed: bool = False) -> int:
        """Take a claim from its owner. Its jobs are to run again, each alone, one attempt the more.

        Messages of ordinary queues go back where they came from. Returns how many went back.
        """
        if not lease.of_jobs:
            return self.release(lease, only_if_lapsed=only_if_lapsed, delivered=True)
        names = [*self._of(lease), self._names.keys.isolated(lease.queue)]
        return int(
            self._lapse(names, [lease.member, int(only_if_lapsed), f"{escape_field(cause)},{escape_field(owner)}"])
        )

    def expired(self, most: int = 100) -> list[Lease]:
        """Leases whose time is over, whoever owned them."""
        return [lease for member in self._lapsed([self._names.keys.leases], [most]) if (lease := lease_of(member))]

    def named(self, names: Container[str]) -> list[Lease]:
        """The leases that are held under one of these names."""
        members: list[bytes] = self._client.zrange(self._names.keys.leases, 0, -1)  # type: ignore[assignment]  # bytes
        return [lease for member in members if (lease := lease_of(member)) and lease.name in names]

    def unblock(self, client: int) -> bool:
        """End the wait of a connection at Redis, by its id. False where this user may not, and it may go on."""
        try:
            self._client.client_unblock(client)
        except redis.ResponseError as error:
            log.warning("Redis does not end a wait (%s). Permit this user CLIENT UNBLOCK", error)
            return False
        return True

    def due(self, queue: str, most: int = 500) -> int:
        """Move delayed jobs whose time has come to their queue; returns how many."""
        return int(self._due([self._names.keys.delayed(queue), *self._names.sources(queue)], [most]))

    def up_for(self) -> float:
        """Seconds since Redis started; without end where it does not say."""
        try:
            return float(self._client.info("server")["uptime_in_seconds"])
        except (redis.ResponseError, KeyError):  # a user who may not ask, or another kind of server
            return float("inf")

    def reconnect(self) -> None:
        """Open connections anew: the one that answers is a primary no more."""
        self._client.connection_pool.disconnect()

    def _of(self, lease: Lease) -> list[str]:
        return [self._names.keys.leases, self._names.lease(lease.name)]


assert len(PRIORITY_STEPS) == 4, "the scripts count on four lists to a queue"  # noqa: S101  # a fact, not a check
