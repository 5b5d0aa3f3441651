"""Whatever several owners do, in whatever order: every accepted job is in exactly one place."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

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

from headrace import outcome, publish
from headrace.outcome import Cancelled, Prediction, Success
from headrace.queues import PRIORITY_STEPS, Keys
from headrace_worker.transport.scripts import Ask, Claim, LeaseKeys, Leases

NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUEUES = ("predict.a", "predict.b", "ordinary")
LASTS = 3_600_000  # longer than the test: a lease lapses when a rule says so
JOB = re.compile(rb'"id": "(\d+)", "garbage": (true|false), "priority": (\d+)')


def success(job: str, owner: str) -> bytes:
    """An outcome no other owner would write."""
    return outcome.encode(
        Success(job=job, prediction=Prediction(model="a", version="1", predictions=[owner])), NOW
    )


class Places(RuleBasedStateMachine):
    """Owners claim, work, die and come back too late; producers push and cancel; keepers sweep."""

    claims: Bundle[Claim] = Bundle("claims")
    #: Claims whose owner has ended them, or has lost them and does not know.
    stale: Bundle[Claim] = Bundle("stale")

    db: redis.Redis
    names: LeaseKeys

    def __init__(self) -> None:
        super().__init__()
        self.db.flushall()
        self.leases = Leases(self.db, self.names)
        self.cancel_script = self.db.register_script(publish.SCRIPT)
        self.numbers = itertools.count(1)
        self.accepted: dict[str, str] = {}
        self.published: Counter[str] = Counter()
        #: Messages of ordinary tasks that were acknowledged: nothing is left of them.
        self.done: set[str] = set()
        self.ended: set[str] = set()

    # --- producers

    @rule(
        queue=st.sampled_from(QUEUES),
        priority=st.sampled_from((0, 9)),
        count=st.integers(1, 6),
        garbage=st.booleans(),
    )
    def push(self, queue: str, priority: int, count: int, garbage: bool) -> None:
        for _ in range(count):
            job = str(next(self.numbers))
            frame = f'{{"id": "{job}", "garbage": {str(garbage).lower()}, "priority": {priority}}}\n\x00'.encode()
            self.db.lpush(self.names.keys.lists(queue)[PRIORITY_STEPS.index(priority)], frame)
            self.accepted[job] = queue

    @rule(number=st.integers(1, 60))
    def cancel(self, number: int) -> None:
        job = str(number)
        if self.accepted.get(job, "ordinary") != "ordinary":
            keys = [self.names.keys.result(job), self.names.keys.job(job)]
            self.published[job] += self.cancel_script(keys, [100, outcome.encode(Cancelled(job=job), NOW)])[0]

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
        asks = [Ask(queue=queue, jobs=jobs, bytes=size, full_only=full) for queue in queues]
        got = self.leases.claim(f"owner/{next(self.numbers)}", asks, lasts_ms=LASTS, lowest_first=lowest)
        return got if isinstance(got, Claim) else multiple()

    @rule(claim=claims)
    def renew(self, claim: Claim) -> None:
        self.leases.renew([claim.lease], lasts_ms=LASTS)

    @rule(target=stale, claim=consumes(claims), early=st.integers(0, 2))
    def finish(self, claim: Claim, early: int) -> Claim:
        self._end(claim, early)
        return claim

    @rule(target=stale, claim=consumes(claims))
    def release(self, claim: Claim) -> Claim:
        self.leases.release(claim.lease)
        return claim

    @rule(target=stale, claim=consumes(claims))
    def crash(self, claim: Claim) -> Claim:
        self.leases.lapse(claim.lease, "crash", owner="me")
        return claim

    @rule(claim=stale, early=st.integers(0, 2))
    def come_back_too_late(self, claim: Claim, early: int) -> None:
        before = self._state()
        self._end(claim, early)
        assert not self.leases.release(claim.lease)
        assert not self.leases.lapse(claim.lease, "crash", owner="me")
        assert self.leases.renew([claim.lease], lasts_ms=LASTS) == [claim.lease]
        assert self._state() == before

    # --- time and keepers

    @rule(claim=claims)
    def time_passes_over_a_lease(self, claim: Claim) -> None:
        self.db.zadd(self.names.leases, {claim.lease.member: 1}, xx=True)

    @rule()
    def sweep(self) -> None:
        for lease in self.leases.lapsed():
            self.leases.lapse(lease, "lapse", owner="another", only_if_lapsed=True)

    @rule(queue=st.sampled_from(QUEUES[:2]))
    def delayed_jobs_are_due(self, queue: str) -> None:
        self.leases.due(queue, most=3)

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
        leased = {lease.name for lease in self.leases.named(_Everything())}
        lists = {key.decode().partition(":lease:")[2] for key in self.db.scan_iter(self.names.lease("*"))}
        assert leased == lists

    def _places(self) -> Iterator[tuple[str, str]]:
        """Every job found, and where. A job with an outcome may wait on: it will not run, nor end again."""
        ended = {key.decode().rpartition("-")[2] for key in self.db.scan_iter(self.names.keys.result("*"))}
        yield from ((job, "ended") for job in ended | self.done)
        for key in self.db.scan_iter("*headrace:lease:*"):
            yield from self._frames(key, self.db.lrange(key, 0, -1), ended)
        for queue in QUEUES:
            for name in (*self.names.sources(queue), self.names.malformed if queue == QUEUES[0] else None):
                if name:
                    yield from self._frames(name.encode(), self.db.lrange(name, 0, -1), ended)
            name = self.names.delayed(queue)
            yield from self._frames(name.encode(), self.db.zrange(name, 0, -1), ended)

    def _frames(self, key: bytes, frames: list[bytes], ended: set[str]) -> Iterator[tuple[str, str]]:
        for frame in frames:
            found = JOB.search(frame)
            assert found, frame
            assert frame.endswith(b"\n\x00")
            if (job := found[1].decode()) not in ended:
                yield job, key.decode()

    def _end(self, claim: Claim, early: int) -> None:
        """End a claim as a pool process does: some garbage, some jobs too early, the rest predicted."""
        found = [(frame, JOB.search(frame)) for frame in claim.frames]
        if not claim.lease.of_jobs:
            if self.leases.finish(claim.lease):
                self.done.update(match[1].decode() for _, match in found if match)
            return
        malformed = [frame for frame, match in found if match and match[2] == b"true"]
        jobs = [(frame, match[1].decode()) for frame, match in found if match and match[2] == b"false"]
        delayed = [(index, frame) for index, (frame, _) in enumerate(jobs[:early])]
        names = [job for _, job in jobs[early:]]
        outcomes = {job: success(job, claim.lease.name) for job in names}
        got = self.leases.publish(claim.lease, outcomes, ttl=100, malformed=malformed, delayed=delayed)
        if got is not None and claim.lease.name not in self.ended:
            self.ended.add(claim.lease.name)
            self.published.update(job for job, first in zip(names, got, strict=True) if first)

    def _state(self) -> dict[bytes, bytes | None]:
        return {key: self.db.dump(key) for key in self.db.scan_iter()}


class _Everything:
    def __contains__(self, _: object) -> bool:
        return True


def test_every_job_is_in_exactly_one_place(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as db:
        here = type("Here", (Places,), {"db": db, "names": LeaseKeys(Keys("apart:"))})
        run_state_machine_as_test(
            here,
            settings=settings(max_examples=40, stateful_step_count=50, deadline=None),
        )
