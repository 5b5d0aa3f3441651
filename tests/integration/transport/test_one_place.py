"""Whatever owners, keepers and people do, in whatever order: every accepted job is in exactly one place."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from headrace.connection.commands import execute
from headrace.dead_letters.replay import PreparedReplay
from headrace.dead_letters.scripts import LetterResult, replay_command
from headrace.results import publish
from headrace.wire.attempts import Attempt, decode_queued_message, encode_queued_message, must_run_alone
from headrace.wire.dead_letter import DeadLetter, attach_message, decode_letter, malformed_letter
from headrace.wire.keys import PRIORITY_STEPS, Keys
from headrace.wire.outcome import Cancelled, Failure, Prediction, Success, decode_outcome, encode_outcome
from headrace_worker.transport.claims import Claim, ClaimLimits, Lease, NothingClaimed, parse_lease
from headrace_worker.transport.leases import Leases

NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUEUES = ("predict.a", "predict.b", "ordinary")
LASTS = 3_600_000  # longer than the test: a lease lapses when a rule says so
JOB = re.compile(rb'"id": "(\d+)", "garbage": (true|false), "priority": (\d+)')


def success(job: str, owner: str) -> bytes:
    """An outcome no other owner would write."""
    return encode_outcome(
        Success(job=job, prediction=Prediction(model="a", version="1", predictions=[owner])), NOW
    )


def failure(job: str, owner: str) -> bytes:
    """The same for one that failed."""
    failed = Failure(job=job, reason="permanent", error="ValueError", module="builtins", message=owner)
    return encode_outcome(failed, NOW)


#: What becomes of a job that was run.
FATES = st.lists(st.sampled_from(["succeed", "fail", "retry", "retry later", "early"]), min_size=1, max_size=6)


class Places(RuleBasedStateMachine):
    """Owners claim, work, die and come back too late; producers push, cancel and replay; keepers sweep."""

    claims: Bundle[Claim] = Bundle("claims")
    #: Leases that stand, and whose owner waits at Redis, as far as it knows.
    waits: Bundle[Lease] = Bundle("waits")
    #: Claims whose owner has ended them, or has lost them and does not know.
    stale: Bundle[Claim] = Bundle("stale")

    db: redis.Redis
    keys: Keys

    def __init__(self) -> None:
        super().__init__()
        self.db.flushall()
        self.leases = Leases(self.db, self.keys)
        self.cancel_script = self.db.register_script(publish.SCRIPT)
        self.numbers = itertools.count(1)
        #: The queue and the message of every job.
        self.accepted: dict[str, str] = {}
        self.messages: dict[str, bytes] = {}
        #: Names of leases whose owner still waits at Redis.
        self.waiting: set[str] = set()
        #: Those that are no jobs at all.
        self.garbage: set[str] = set()
        #: Runs in vain, and replays: how many its frame must tell of.
        self.tried: Counter[str] = Counter()
        self.published: Counter[str] = Counter()
        #: Messages of ordinary tasks that were acknowledged: nothing is left of them.
        self.done: set[str] = set()
        self.ended: set[str] = set()

    # --- producers

    @rule(
        queue=st.sampled_from(QUEUES),
        priority=st.sampled_from((0, 9)),
        count=st.integers(1, 3),
        garbage=st.booleans(),
    )
    def push(self, queue: str, priority: int, count: int, garbage: bool) -> None:
        for _ in range(count):
            job = str(next(self.numbers))
            frame = f'{{"id": "{job}", "garbage": {str(garbage).lower()}, "priority": {priority}}}\n\x00'.encode()
            self.db.lpush(self.keys.lists(queue)[PRIORITY_STEPS.index(priority)], frame)
            self.accepted[job], self.messages[job] = queue, frame
            if garbage:
                self.garbage.add(job)

    @rule(place=st.integers(0, 60))
    def cancel(self, place: int) -> None:
        jobs = [job for job, queue in self.accepted.items() if queue != "ordinary" and job not in self.garbage]
        if jobs:
            job = jobs[place % len(jobs)]
            keys = [self.keys.result(job), self.keys.job(job)]
            self.published[job] += self.cancel_script(keys, [100, encode_outcome(Cancelled(job=job), NOW)])[0]

    @rule(first=st.integers(0, 3), moved_on=st.booleans())
    def replay(self, first: int, moved_on: bool) -> None:
        keys = self.keys
        for job, died_ms in self.db.zrange(keys.dead_times, first, first, withscores=True):
            payload = self.db.hget(keys.dead_messages, job)
            # A letter that was read too early has the moment of an earlier death.
            found = decode_letter(job.decode(), self.db.hget(keys.dead, job), int(died_ms) - moved_on)
            if found.reason == "malformed":
                continue
            history = [*found.attempts, Attempt(cause="replay", owner="a person", at_ms=1, claim_size=0)]
            prepared = PreparedReplay(
                letter=attach_message(found, payload),
                priority=int(JOB.search(payload)[3]),
                isolated=must_run_alone(history),
                queued_message=encode_queued_message(history, payload),
                record=b"",
            )
            [result] = execute(self.db, replay_command(keys, [prepared], record_ttl=100))
            assert result == (LetterResult.ALREADY_HANDLED if moved_on else LetterResult.DONE)
            if not moved_on:
                self.tried[found.id] = len(history)
                self.published[found.id] -= 1

    # --- owners

    @rule(
        target=claims,
        queues=st.permutations(QUEUES),
        jobs=st.integers(1, 8),
        size=st.sampled_from([1, 120, 1 << 20]),
        lowest=st.booleans(),
        full=st.booleans(),
    )
    def claim(self, queues: list[str], jobs: int, size: int, lowest: bool, full: bool) -> object:
        asks = [ClaimLimits(queue=queue, jobs=jobs, bytes=size, full_only=full) for queue in queues]
        got = self.leases.claim(f"owner/{next(self.numbers)}", asks, lease_ms=LASTS, lowest_first=lowest)
        return got if isinstance(got, Claim) else multiple()

    @rule(target=waits, queue=st.sampled_from(QUEUES[:2]), source=st.integers(1, 4))
    def stand(self, queue: str, source: int) -> object:
        """Nothing waits, as it seems to one who asks for a full batch: its lease stands, and it waits at Redis."""
        standing = Lease(name=f"owner/{next(self.numbers)}", queue=queue, origins=((source, 1),), blocking=True)
        ask = ClaimLimits(queue=queue, jobs=1000, full_only=True)
        if self.db.exists(self.keys.isolated(queue)):
            return multiple()
        got = self.leases.claim(f"owner/{next(self.numbers)}", [ask], lease_ms=LASTS, parked=standing)
        assert isinstance(got, NothingClaimed)
        assert got.parked
        self.waiting.add(standing.name)
        return standing

    @rule(target=claims, lease=consumes(waits), told=st.booleans(), jobs=st.integers(1, 8))
    def a_wait_is_answered(self, lease: Lease, told: bool, jobs: int) -> object:
        """As Redis does, when something is there; the claim behind it may be lost on its way."""
        if lease.name not in self.waiting:
            return multiple()
        self.waiting.discard(lease.name)
        source = self.keys.sources(lease.queue)[lease.origins[0][0]]
        frame = self.db.lmove(source, self.keys.lease(lease.name), "RIGHT", "LEFT")
        if not told and frame is None:
            self.leases.requeue(lease)  # by its owner, who knows that the wait is over
        if not told:
            return Claim(lease=lease, queued_messages=[frame]) if frame else multiple()
        asks = [ClaimLimits(queue=queue, jobs=jobs, bytes=1 << 20) for queue in QUEUES]
        name = f"owner/{next(self.numbers)}"
        got = self.leases.claim(name, asks, lease_ms=LASTS, parked=lease)
        assert self.db.zscore(self.keys.leases, lease.member) is None or isinstance(got, NothingClaimed)
        if isinstance(got, NothingClaimed):
            self.leases.requeue(lease)
            return multiple()
        assert frame is None or got.queued_messages[0] == frame
        return got

    @rule(claim=claims)
    def renew(self, claim: Claim) -> None:
        self.leases.renew([claim.lease], lease_ms=LASTS)

    @rule(target=stale, claim=consumes(claims), fates=FATES)
    def finish(self, claim: Claim, fates: list[str]) -> Claim:
        self._end(claim, fates)
        return claim

    @rule(target=stale, claim=consumes(claims), crashed=st.booleans())
    def leave(self, claim: Claim, crashed: bool) -> Claim:
        if not crashed:
            self.leases.requeue(claim.lease)
        elif self.leases.requeue_isolated(claim.lease, "crash", owner="me"):
            self._count(claim.lease, claim.queued_messages)
        return claim

    @rule(claim=stale, fates=FATES)
    def come_back_too_late(self, claim: Claim, fates: list[str]) -> None:
        before = self._state()
        self._end(claim, fates)
        assert not self.leases.requeue(claim.lease)
        assert not self.leases.requeue_isolated(claim.lease, "crash", owner="me")
        assert self.leases.renew([claim.lease], lease_ms=LASTS) == [claim.lease]
        assert self._state() == before

    # --- time and keepers

    @rule(lapsed=st.integers(0, 3))
    def sweep(self, lapsed: int) -> None:
        members = self.db.zrange(self.keys.leases, 0, lapsed - 1) if lapsed else ()
        for member in members:
            lease = parse_lease(member)
            # A lease that was extended expires with its extension, any other at once.
            extended = self.db.get(self.keys.grace(lease.name))
            was_extended = extended and float(extended) == self.db.zscore(self.keys.leases, member)
            self.db.zadd(self.keys.leases, {member: 1})
            if was_extended:
                self.db.set(self.keys.grace(lease.name), 1)
        for lease in self.leases.expired():
            if self.db.get(self.keys.grace(lease.name)) == b"1":
                self.waiting.discard(
                    lease.name
                )  # Redis was not held up for ten seconds and more: it ended the wait
            frames = self.db.lrange(self.keys.lease(lease.name), 0, -1)
            assert self.leases.requeue_isolated(
                lease, "lease_expired", owner="another", only_if_expired=True
            ) == len(frames)
            self._count(lease, frames)

    @rule(queue=st.sampled_from(QUEUES[:2]), later=st.booleans())
    def delayed_jobs_are_due(self, queue: str, later: bool) -> None:
        delayed = self.keys.delayed(queue)
        for frame in self.db.zrange(delayed, 0, -1) if later else ():
            self.db.zadd(delayed, {frame: 1})
        self.leases.move_due(queue, limit=3)

    @rule()
    def redis_forgets_its_scripts(self) -> None:
        self.db.script_flush()

    # --- what must be so

    @invariant()
    def every_job_is_in_one_place(self) -> None:
        places = Counter(job for job, _ in self._places())
        assert set(places) == set(self.accepted)
        assert {job: count for job, count in places.items() if count != 1} == {}
        assert all(count <= 1 for count in self.published.values())

    @invariant()
    def every_lease_has_its_list_and_every_list_its_lease(self) -> None:
        leases = [parse_lease(member) for member in self.db.zrange(self.keys.leases, 0, -1)]
        standing = {lease.name for lease in leases if lease.blocking}
        leased = {lease.name for lease in leases}
        lists = {key.decode().partition(":lease:")[2] for key in self.db.scan_iter(self.keys.lease("*"))}
        assert leased - standing <= lists <= leased

    @invariant()
    def the_dead_letters_are_the_failures_and_what_is_no_job(self) -> None:
        keys = self.keys
        messages = {key.decode(): message for key, message in self.db.hgetall(keys.dead_messages).items()}
        lines = {key.decode(): line for key, line in self.db.hgetall(keys.dead).items()}
        assert set(messages) == set(lines) == {key.decode() for key in self.db.zrange(keys.dead_times, 0, -1)}
        failed = set()
        for key in self.db.scan_iter(keys.result("*")):
            ended = decode_outcome(self.db.get(key))
            failed |= {ended.job} if isinstance(ended, Failure) else set()
        malformed = {name for name in messages if name.startswith("malformed-")}
        assert set(messages) - malformed == failed
        for name, message in messages.items():
            job = JOB.search(message)[1].decode()
            assert message == self.messages[job]
            assert len(decode_letter(name, lines[name], 0).attempts) == self.tried[job]

    @invariant()
    def what_was_ever_lost_waits_apart_from_what_was_not(self) -> None:
        for queue in QUEUES:
            for name in self.keys.lists(queue):
                assert not any(
                    must_run_alone(decode_queued_message(frame)[0]) for frame in self.db.lrange(name, 0, -1)
                )
            assert all(
                must_run_alone(decode_queued_message(frame)[0])
                for frame in self.db.lrange(self.keys.isolated(queue), 0, -1)
            )

    def _count(self, lease: Lease, frames: Iterable[bytes]) -> None:
        """A run in vain of everything in a claim."""
        if lease.holds_jobs:
            self.tried.update(JOB.search(frame)[1].decode() for frame in frames)

    def _places(self) -> Iterator[tuple[str, str]]:
        """Every job found, and where. A job with an outcome may wait on: it will not run, nor end again."""
        ended = {key.decode().rpartition("-")[2] for key in self.db.scan_iter(self.keys.result("*"))}
        yield from ((job, "ended") for job in ended | self.done)
        for key in self.db.scan_iter("*headrace:lease:*"):
            yield from self._frames(key, self.db.lrange(key, 0, -1), ended)
        dead = self.db.hgetall(self.keys.dead_messages)
        malformed = [message for name, message in dead.items() if name.startswith(b"malformed-")]
        yield from ((JOB.search(message)[1].decode(), "malformed") for message in malformed)
        for queue in QUEUES:
            for name in self.keys.sources(queue):
                yield from self._frames(name.encode(), self.db.lrange(name, 0, -1), ended)
            name = self.keys.delayed(queue)
            yield from self._frames(name.encode(), self.db.zrange(name, 0, -1), ended)

    def _frames(self, key: bytes, frames: list[bytes], ended: set[str]) -> Iterator[tuple[str, str]]:
        for frame in frames:
            found = JOB.search(frame)
            assert found, frame
            attempts, message = decode_queued_message(frame)
            assert message == self.messages[found[1].decode()]
            assert len(attempts) == self.tried[found[1].decode()]
            if (job := found[1].decode()) not in ended:
                yield job, key.decode()

    def _end(self, claim: Claim, fates: list[str]) -> None:
        """End a claim as a pool process does: what is no job is buried, the jobs go the ways of their fates."""
        lease, ways = claim.lease, itertools.cycle(fates)
        if not lease.holds_jobs:
            if self.leases.finish(lease):
                self.done.update(JOB.search(frame)[1].decode() for frame in claim.queued_messages)
            return
        outcomes: dict[str, bytes] = {}
        letters: list[tuple[DeadLetter, bytes]] = []
        delayed: list[tuple[int, bytes]] = []
        retried: list[str] = []
        for frame in claim.queued_messages:
            attempts, message = decode_queued_message(frame)
            found = JOB.search(message)
            job = found[1].decode()
            if found[2] == b"true":
                garbage = malformed_letter(
                    message, ValueError(), queue=lease.queue, worker=lease.name, attempts=attempts
                )
                letters.append((garbage, message))
                continue
            match next(ways):
                case "succeed":
                    outcomes[job] = success(job, lease.name)
                case "fail":
                    outcomes[job] = failure(job, lease.name)
                    letters.append((self._letter(job, lease, attempts), message))
                case "early":
                    delayed.append((0, frame))
                case way:
                    attempt = Attempt(
                        cause="error:OSError", owner=lease.name, at_ms=1, claim_size=len(claim.queued_messages)
                    )
                    delayed.append(
                        (0 if way == "retry" else 60_000, encode_queued_message([*attempts, attempt], message))
                    )
                    retried.append(job)
        got = self.leases.publish(lease, outcomes, ttl=100, dead_letters=letters, delayed=delayed)
        if got is not None and lease.name not in self.ended:
            self.ended.add(lease.name)
            self.published.update(job for job, first in zip(outcomes, got, strict=True) if first)
            self.tried.update(retried)

    def _letter(self, job: str, lease: Lease, attempts: tuple[Attempt, ...]) -> DeadLetter:
        return DeadLetter(
            id=job,
            queue=lease.queue,
            reason="permanent",
            error="ValueError",
            module="builtins",
            message="no",
            worker=lease.name,
            attempts=attempts,
        )

    def _state(self) -> dict[bytes, Any]:
        # A hash by its content: to look into one may change the order of its fields, and with it what DUMP says.
        return {
            key: self.db.hgetall(key) if self.db.type(key) == b"hash" else self.db.dump(key)
            for key in self.db.scan_iter()
        }


@pytest.mark.parametrize("examples", [12, pytest.param(150, marks=pytest.mark.long)])
def test_every_job_is_in_exactly_one_place(redis_url: str, examples: int) -> None:
    with redis.Redis.from_url(redis_url) as db:
        here = type("Here", (Places,), {"db": db, "keys": Keys("apart:")})
        run_state_machine_as_test(
            here,
            settings=settings(max_examples=examples, stateful_step_count=60, deadline=None),
        )
