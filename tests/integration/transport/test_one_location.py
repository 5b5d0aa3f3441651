"""Whatever owners, keepers and operators do, in any order: every accepted job is in exactly one location."""

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
from headrace.wire.attempts import (
    HISTORY_MARK,
    Attempt,
    decode_delayed,
    decode_queued_message,
    encode_delayed,
    encode_queued_message,
    must_run_alone,
    select_source,
)
from headrace.wire.dead_letter import DeadLetter, attach_message, decode_letter, malformed_letter
from headrace.wire.keys import Keys
from headrace.wire.outcome import Cancelled, Failure, Prediction, Success, decode_outcome, encode_outcome
from headrace.wire.queues import PRIORITY_STEPS
from headrace_worker.transport.claims import Claim, ClaimLimits, Lease, NothingClaimed, parse_lease
from headrace_worker.transport.leases import Leases

NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUEUES = ("predict.a", "predict.b", "ordinary")
LEASE_MS = 3_600_000  # longer than the test: a lease expires when a rule says so
JOB = re.compile(rb'"id": "(\d+)", "malformed": (true|false), "priority": (\d+)')


def success(job: str, owner: str) -> bytes:
    """Return the outcome of a job that succeeded. No other owner would write the same."""
    prediction = Prediction(model="a", version="1", predictions=[owner])
    return encode_outcome(Success(job=job, prediction=prediction), NOW)


def failure(job: str, owner: str) -> bytes:
    """Return the outcome of a job that failed. No other owner would write the same."""
    outcome = Failure(job=job, reason="permanent", error="ValueError", module="builtins", message=owner)
    return encode_outcome(outcome, NOW)


#: The results of the jobs of a claim that ran, in turn.
RESULTS = st.lists(
    st.sampled_from(["succeed", "fail", "retry now", "retry later", "not due"]), min_size=1, max_size=6
)


class Installation(RuleBasedStateMachine):
    """Owners claim, run, die and return too late; producers push, cancel and replay; keepers sweep."""

    claims: Bundle[Claim] = Bundle("claims")
    #: Parked leases whose owner waits at Redis, as far as it knows.
    parked: Bundle[Lease] = Bundle("parked")
    #: Parked leases whose owner has given up the connection. Its BLMOVE may come late.
    ended_waits: Bundle[Lease] = Bundle("ended_waits")
    #: Claims that their owner has ended, or has lost without knowing.
    ended_claims: Bundle[Claim] = Bundle("ended_claims")

    db: redis.Redis
    keys: Keys

    def __init__(self) -> None:
        super().__init__()
        self.db.flushall()
        self.leases = Leases(self.db, self.keys)
        self.numbers = itertools.count(1)
        #: The queue and the message of every job, by its id.
        self.accepted: dict[str, str] = {}
        self.messages: dict[str, bytes] = {}
        #: The ids of messages that are no jobs.
        self.malformed: set[str] = set()
        #: The names of leases whose owner still waits at Redis.
        self.blocking: set[str] = set()
        #: The attempts and replays that the history of each job must have.
        self.attempts: Counter[str] = Counter()
        self.published: Counter[str] = Counter()
        #: The messages of ordinary tasks that were acknowledged: nothing is left of them.
        self.acknowledged: set[str] = set()
        #: The names of the leases that were ended with outcomes.
        self.published_leases: set[str] = set()

    # --- producers and operators

    @rule(
        queue=st.sampled_from(QUEUES),
        priority=st.sampled_from((0, 9)),
        count=st.integers(1, 3),
        malformed=st.booleans(),
    )
    def push(self, queue: str, priority: int, count: int, malformed: bool) -> None:
        for _ in range(count):
            job = str(next(self.numbers))
            flag = str(malformed).lower()
            message = f'{{"id": "{job}", "malformed": {flag}, "priority": {priority}}}\n\x00'.encode()
            self.db.lpush(self.keys.lists(queue)[PRIORITY_STEPS.index(priority)], message)
            self.accepted[job], self.messages[job] = queue, message
            if malformed:
                self.malformed.add(job)

    @rule(number=st.integers(0, 60))
    def cancel(self, number: int) -> None:
        jobs = [job for job, queue in self.accepted.items() if queue != "ordinary" and job not in self.malformed]
        if jobs:
            job = jobs[number % len(jobs)]
            command = publish.publish_command(self.keys, [Cancelled(job=job)], ttl=100, now=NOW)
            self.published[job] += execute(self.db, command)[0]

    @rule(first=st.integers(0, 3), is_outdated=st.booleans())
    def replay(self, first: int, is_outdated: bool) -> None:
        keys = self.keys
        for job, died_ms in self.db.zrange(keys.dead_times, first, first, withscores=True):
            payload = self.db.hget(keys.dead_messages, job)
            # A letter that was read before the job failed again has an earlier time.
            letter = decode_letter(job.decode(), self.db.hget(keys.dead, job), int(died_ms) - is_outdated)
            if letter.reason == "malformed":
                continue
            history = [*letter.attempts, Attempt(cause="replay", owner="a person", at_ms=1, claim_size=0)]
            prepared = PreparedReplay(
                letter=attach_message(letter, payload),
                source=select_source(history, int(JOB.search(payload)[3])),
                queued_message=encode_queued_message(history, payload),
                record=b"",
            )
            [result] = execute(self.db, replay_command(keys, [prepared], record_ttl=100))
            assert result == (LetterResult.ALREADY_HANDLED if is_outdated else LetterResult.DONE)
            if not is_outdated:
                self.attempts[letter.id] = len(history)
                self.published[letter.id] -= 1

    # --- owners

    @rule(
        target=claims,
        queues=st.permutations(QUEUES),
        jobs=st.integers(1, 8),
        size=st.sampled_from([1, 120, 1 << 20]),
        lowest_first=st.booleans(),
        full_only=st.booleans(),
    )
    def claim(self, queues: list[str], jobs: int, size: int, lowest_first: bool, full_only: bool) -> object:
        limits = [ClaimLimits(queue=queue, jobs=jobs, bytes=size, full_only=full_only) for queue in queues]
        result = self.leases.claim(self._next_name(), limits, lease_ms=LEASE_MS, lowest_first=lowest_first)
        return result if isinstance(result, Claim) else multiple()

    @rule(target=parked, queue=st.sampled_from(QUEUES[:2]), source=st.integers(1, 8))
    def park(self, queue: str, source: int) -> object:
        """Claim a full batch of which fewer jobs wait: the lease is parked, and its owner waits at Redis."""
        lease = Lease(name=self._next_name(), queue=queue, origins=((source, 1),), blocking=True)
        if self.db.exists(self.keys.isolated(queue)):
            return multiple()
        limits = [ClaimLimits(queue=queue, jobs=1000, full_only=True)]
        result = self.leases.claim(self._next_name(), limits, lease_ms=LEASE_MS, parked=lease)
        assert isinstance(result, NothingClaimed)
        assert result.parked
        self.blocking.add(lease.name)
        return lease

    @rule(target=ended_waits, lease=consumes(parked))
    def give_up_blocking(self, lease: Lease) -> object:
        """Give a connection up, and requeue what arrived under its lease."""
        self.blocking.discard(lease.name)
        self.leases.requeue(lease)
        return lease

    @rule(target=claims, lease=consumes(parked), reply_arrives=st.booleans(), jobs=st.integers(1, 8))
    def answer_blocking(self, lease: Lease, reply_arrives: bool, jobs: int) -> object:
        """Answer a BLMOVE, as Redis does. The reply may be lost."""
        if lease.name not in self.blocking:
            return multiple()
        self.blocking.discard(lease.name)
        source_key = self.keys.sources(lease.queue)[lease.origins[0][0]]
        message = self.db.lmove(source_key, self.keys.lease(lease.name), "RIGHT", "LEFT")
        if not reply_arrives and message is None:
            self.leases.requeue(lease)  # by its owner, who knows that the wait is over
        if not reply_arrives:
            return Claim(lease=lease, queued_messages=[message]) if message else multiple()
        limits = [ClaimLimits(queue=queue, jobs=jobs, bytes=1 << 20) for queue in QUEUES]
        result = self.leases.claim(self._next_name(), limits, lease_ms=LEASE_MS, parked=lease)
        assert self.db.zscore(self.keys.leases, lease.member) is None or isinstance(result, NothingClaimed)
        if isinstance(result, NothingClaimed):
            self.leases.requeue(lease)
            return multiple()
        assert message is None or result.queued_messages[0] == message
        return result

    @rule(lease=ended_waits)
    def send_blmove_too_late(self, lease: Lease) -> None:
        """Move a job under a lease that was ended: the bytes come from a connection that was given up."""
        if self.db.zscore(self.keys.leases, lease.member) is not None:
            return
        source_key = self.keys.sources(lease.queue)[lease.origins[0][0]]
        if self.db.llen(source_key):
            with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
                self.db.lmove(source_key, self.keys.lease(lease.name), "RIGHT", "LEFT")

    @rule(claim=claims)
    def renew(self, claim: Claim) -> None:
        self.leases.renew([claim.lease], lease_ms=LEASE_MS)

    @rule(target=ended_claims, claim=consumes(claims), results=RESULTS)
    def finish(self, claim: Claim, results: list[str]) -> Claim:
        self._end(claim, results)
        return claim

    @rule(target=ended_claims, claim=consumes(claims), is_crash=st.booleans())
    def stop(self, claim: Claim, is_crash: bool) -> Claim:
        if not is_crash:
            self.leases.requeue(claim.lease)
        elif self.leases.requeue_isolated(claim.lease, "crash", owner="me"):
            self._count_attempt(claim.lease, claim.queued_messages)
        return claim

    @rule(claim=ended_claims, results=RESULTS)
    def return_too_late(self, claim: Claim, results: list[str]) -> None:
        before = self._content()
        self._end(claim, results)
        assert not self.leases.requeue(claim.lease)
        assert not self.leases.requeue_isolated(claim.lease, "crash", owner="me")
        assert self.leases.renew([claim.lease], lease_ms=LEASE_MS) == [claim.lease]
        assert self._content() == before

    # --- time and keepers

    @rule(count=st.integers(0, 3))
    def expire_and_sweep(self, count: int) -> None:
        for member in self.db.zrange(self.keys.leases, 0, count - 1) if count else ():
            lease = parse_lease(member)
            extended_to = self.db.get(self.keys.grace(lease.name))
            if extended_to and float(extended_to) == self.db.zscore(self.keys.leases, member):
                self.db.set(self.keys.grace(lease.name), 1)
            self.db.zadd(self.keys.leases, {member: 1})
        for lease in self.leases.find_expired().leases:
            if self.db.get(self.keys.grace(lease.name)) == b"1":
                self.blocking.discard(lease.name)  # within the ten seconds of the extension, Redis ended the wait
            messages = self.db.lrange(self.keys.lease(lease.name), 0, -1)
            requeued = self.leases.requeue_isolated(lease, "lease_expired", owner="another", only_if_expired=True)
            assert requeued == len(messages)
            self._count_attempt(lease, messages)

    @rule(queue=st.sampled_from(QUEUES[:2]), let_all_be_due=st.booleans())
    def move_due(self, queue: str, let_all_be_due: bool) -> None:
        delayed = self.keys.delayed(queue)
        for message in self.db.zrange(delayed, 0, -1) if let_all_be_due else ():
            self.db.zadd(delayed, {message: 1})
        self.leases.move_due(queue, limit=3)

    @rule()
    def forget_scripts(self) -> None:
        self.db.script_flush()

    # --- invariants

    @invariant()
    def every_job_is_in_one_location(self) -> None:
        locations = Counter(job for job, _ in self._locations())
        assert set(locations) == set(self.accepted)
        assert {job: count for job, count in locations.items() if count != 1} == {}
        assert all(count <= 1 for count in self.published.values())

    @invariant()
    def every_lease_has_its_list_and_every_list_its_lease(self) -> None:
        leases = [parse_lease(member) for member in self.db.zrange(self.keys.leases, 0, -1)]
        may_be_empty = {lease.name for lease in leases if lease.blocking}
        names = {lease.name for lease in leases}
        lists = {key.decode().partition(":lease:")[2] for key in self._lists_of_leases()}
        assert names - may_be_empty <= lists <= names

    @invariant()
    def the_dead_letters_are_the_failures_and_the_malformed_messages(self) -> None:
        keys = self.keys
        messages = {key.decode(): message for key, message in self.db.hgetall(keys.dead_messages).items()}
        lines = {key.decode(): line for key, line in self.db.hgetall(keys.dead).items()}
        assert set(messages) == set(lines) == {key.decode() for key in self.db.zrange(keys.dead_times, 0, -1)}
        outcomes = [decode_outcome(self.db.get(key)) for key in self.db.scan_iter(keys.result("*"))]
        failed = {outcome.job for outcome in outcomes if isinstance(outcome, Failure)}
        malformed = {name for name in messages if name.startswith("malformed-")}
        assert set(messages) - malformed == failed
        for name, message in messages.items():
            job = JOB.search(message)[1].decode()
            assert message == self.messages[job]
            assert len(decode_letter(name, lines[name], 0).attempts) == self.attempts[job]

    @invariant()
    def jobs_of_lost_runs_are_isolated_and_no_others(self) -> None:
        for queue in QUEUES:
            for key in (*self.keys.lists(queue), *self.keys.retried(queue)):
                assert not any(map(_must_be_isolated, self.db.lrange(key, 0, -1)))
            for key in self.keys.lists(queue):
                assert not any(map(_has_history, self.db.lrange(key, 0, -1)))
            assert all(map(_must_be_isolated, self.db.lrange(self.keys.isolated(queue), 0, -1)))

    # --- steps

    def _next_name(self) -> str:
        return f"owner/{next(self.numbers)}"

    def _count_attempt(self, lease: Lease, queued_messages: Iterable[bytes]) -> None:
        """Count one attempt more for every job of a claim."""
        if lease.holds_jobs:
            self.attempts.update(JOB.search(message)[1].decode() for message in queued_messages)

    def _locations(self) -> Iterator[tuple[str, str]]:
        """Yield every job and a location of it. A job with an outcome may still wait: it will not run again."""
        published = {key.decode().rpartition("-")[2] for key in self.db.scan_iter(self.keys.result("*"))}
        yield from ((job, "outcome") for job in published | self.acknowledged)
        for key in self._lists_of_leases():
            yield from self._jobs_in(key, self.db.lrange(key, 0, -1), published)
        letters = self.db.hgetall(self.keys.dead_messages)
        malformed = [message for name, message in letters.items() if name.startswith(b"malformed-")]
        yield from ((JOB.search(message)[1].decode(), "malformed") for message in malformed)
        for queue in QUEUES:
            for name in self.keys.sources(queue):
                yield from self._jobs_in(name.encode(), self.db.lrange(name, 0, -1), published)
            name = self.keys.delayed(queue)
            members = self.db.zrange(name, 0, -1)
            yield from self._jobs_in(name.encode(), [decode_delayed(member)[1] for member in members], published)

    def _lists_of_leases(self) -> Iterator[bytes]:
        """Yield the lists of leases, without the fences of blocking claims that were ended."""
        yield from self.db.scan_iter(self.keys.lease("*"), _type="list")

    def _jobs_in(self, key: bytes, queued_messages: list[bytes], published: set[str]) -> Iterator[tuple[str, str]]:
        for queued_message in queued_messages:
            match = JOB.search(queued_message)
            assert match, queued_message
            job = match[1].decode()
            attempts, message = decode_queued_message(queued_message)
            assert message == self.messages[job]
            assert len(attempts) == self.attempts[job]
            if job not in published:
                yield job, key.decode()

    def _end(self, claim: Claim, results: list[str]) -> None:
        """End a claim as a pool process does. The results are those of its jobs, in turn."""
        lease, next_results = claim.lease, itertools.cycle(results)
        if not lease.holds_jobs:
            if self.leases.finish(lease):
                self.acknowledged.update(JOB.search(message)[1].decode() for message in claim.queued_messages)
            return
        outcomes: dict[str, bytes] = {}
        letters: list[tuple[DeadLetter, bytes]] = []
        delayed: list[tuple[int, bytes]] = []
        retried: list[str] = []
        for queued_message in claim.queued_messages:
            attempts, message = decode_queued_message(queued_message)
            match = JOB.search(message)
            job = match[1].decode()
            if match[2] == b"true":
                letter = malformed_letter(
                    message, ValueError(), queue=lease.queue, worker=lease.name, attempts=attempts
                )
                letters.append((letter, message))
                continue
            match next(next_results):
                case "succeed":
                    outcomes[job] = success(job, lease.name)
                case "fail":
                    outcomes[job] = failure(job, lease.name)
                    letters.append((_dead_letter(job, lease, attempts), message))
                case "not due":
                    delayed.append((0, encode_delayed(select_source(attempts, int(match[3])), queued_message)))
                case result:
                    size = len(claim.queued_messages)
                    attempt = Attempt(cause="error:OSError", owner=lease.name, at_ms=1, claim_size=size)
                    milliseconds = 0 if result == "retry now" else 60_000
                    history = [*attempts, attempt]
                    source = select_source(history, int(match[3]))
                    member = encode_delayed(source, encode_queued_message(history, message))
                    delayed.append((milliseconds, member))
                    retried.append(job)
        published = self.leases.publish(lease, outcomes, ttl=100, dead_letters=letters, delayed=delayed)
        if published is not None and lease.name not in self.published_leases:
            self.published_leases.add(lease.name)
            self.published.update(job for job, is_first in zip(outcomes, published, strict=True) if is_first)
            self.attempts.update(retried)

    def _content(self) -> dict[bytes, Any]:
        """Return the content of Redis, by key."""
        # Reading a hash may change the order of its fields, and with it the result of DUMP.
        return {
            key: self.db.hgetall(key) if self.db.type(key) == b"hash" else self.db.dump(key)
            for key in self.db.scan_iter()
        }


def _has_history(queued_message: bytes) -> bool:
    return queued_message.startswith(HISTORY_MARK)


def _must_be_isolated(queued_message: bytes) -> bool:
    return must_run_alone(decode_queued_message(queued_message)[0])


def _dead_letter(job: str, lease: Lease, attempts: tuple[Attempt, ...]) -> DeadLetter:
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


@pytest.mark.parametrize("examples", [12, pytest.param(150, marks=pytest.mark.long)])
def test_every_job_is_in_exactly_one_location(redis_url: str, examples: int) -> None:
    with redis.Redis.from_url(redis_url) as db:
        machine = type("ThisInstallation", (Installation,), {"db": db, "keys": Keys("apart:")})
        run_state_machine_as_test(
            machine,
            settings=settings(max_examples=examples, stateful_step_count=60, deadline=None),
        )
