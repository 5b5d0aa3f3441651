"""Real workers run claims: right outcomes, retries, cancelled, expired, delayed and malformed jobs."""

from __future__ import annotations

import json
import random
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from headrace import Client, JobHandle
from headrace.errors import JobFailed
from headrace.wire.dead_letter import decode_letter
from headrace_worker.local.demo_models import write_instances
from tests.support.claim_models import SLEEP, UNREACHABLE, count_claims
from tests.support.served_worker import (
    KEYS,
    Site,
    client,
    doubled,
    is_clean,
    outcomes_of,
    own,
    read_letter,
    server,
    shared,
    store,
)
from tests.support.waiting import wait_until

__all__ = ["client", "own", "server", "shared", "store"]  # fixtures


# --- right outcomes ---


@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_every_outcome_equals_the_estimators_own(
    shared: Site, client: Client, server: redis.Redis, tmp_path: Path, count: int
) -> None:
    chance = random.Random(7)
    expected_of: list[tuple[JobHandle, list[Any]]] = []
    while len(expected_of) < count:
        name, method = chance.choice(list(shared.demo)), chance.choice(["predict", "predict_proba"])
        trained, size = shared.demo[name][1], chance.choice([1, 1, 2, 30])
        rows = [chance.randrange(len(trained.unseen)) for _ in range(size)]
        table = trained.unseen.iloc[rows] if hasattr(trained.unseen, "iloc") else trained.unseen[rows]
        write_instances(table, tmp_path / "instances.json")
        instances = json.loads((tmp_path / "instances.json").read_text())
        expected = getattr(trained.estimator, method)(table).tolist()
        options = {"priority": chance.choice([0, 3, 9]), "method": method}
        if size == 1:
            expected_of += [(job, expected) for job in client.submit_many(name, instances * 40, **options)]
        else:
            expected_of += [(client.submit(name, instances=instances, **options), expected) for _ in range(4)]
    for job, expected in expected_of:
        assert job.result(timeout=60).predictions == _near(expected)
    wait_until(lambda: is_clean(server))


def _near(expected: list[Any]) -> Any:
    """Return a value that equals the predictions up to rounding: the order of additions depends on the batch."""
    return expected if isinstance(expected[0], str) else [pytest.approx(value, rel=1e-9) for value in expected]


def test_no_predict_call_mixes_online_jobs_with_those_of_a_file(shared: Site, client: Client) -> None:
    file_rows, online_rows, files, online = shared.rows(1500), shared.rows(150), [], []
    for number in range(15):  # a file waits all the time, and online jobs come in between
        files += client.submit_many("doubling", file_rows[100 * number : 100 * (number + 1)], priority=9)
        online += client.submit_many("doubling", online_rows[10 * number : 10 * (number + 1)])
    assert outcomes_of(online) == doubled(online_rows)
    assert outcomes_of(files) == doubled(file_rows)
    numbers = {int(row[0]) for row in online_rows}
    calls = [set(call) for call in shared.predict_calls(file_rows + online_rows)]
    assert sum(1 for call in calls if call & numbers and call - numbers) == 0
    assert any(len(call) > 10 for call in calls), "jobs of one priority still share claims"


# --- transient errors ---


def test_a_job_with_a_transient_error_is_retried_until_it_succeeds(
    shared: Site, client: Client, server: redis.Redis
) -> None:
    rows = shared.rows(9)
    rows.insert(4, shared.rows(1, UNREACHABLE, time.time() + 1.5)[0])
    jobs = client.submit_many("patient", rows)
    assert outcomes_of(jobs[:4] + jobs[5:]) == doubled(rows[:4] + rows[5:])
    wait_until(lambda: server.zcard(KEYS.delayed("predict.patient")))
    assert not jobs[4].done()
    assert outcomes_of(jobs[4:5]) == doubled(rows[4:5])
    wait_until(lambda: is_clean(server))
    assert server.hget(KEYS.dead, jobs[4].id) is None


def test_a_job_whose_error_persists_is_given_up_with_that_error(
    shared: Site, client: Client, server: redis.Redis
) -> None:
    rows = [*shared.rows(3), *shared.rows(1, UNREACHABLE, time.time() + 3600), *shared.rows(3)]
    jobs = client.submit_many("hasty", rows)
    assert outcomes_of(jobs) == [*doubled(rows[:3]), "attempts exhausted", *doubled(rows[4:])]
    with pytest.raises(JobFailed, match="ConnectionResetError: the feature store is unreachable"):
        jobs[3].result()
    letter = read_letter(server, jobs[3])
    assert (letter.error, letter.module, letter.worker) == ("ConnectionResetError", "builtins", "worker@test")
    assert letter.traceback is not None
    assert [attempt.cause for attempt in letter.attempts] == ["error:ConnectionResetError"] * 2
    wait_until(lambda: is_clean(server))


# --- cancelled, expired, delayed ---


def test_a_job_that_is_cancelled_or_expires_while_it_waits_does_not_run(
    shared: Site, client: Client, server: redis.Redis
) -> None:
    busy, (cancelled_row, expired_row, row) = shared.rows(2, SLEEP, 1), shared.rows(3)
    jobs = client.submit_many("single", busy)
    shared.wait_until_predicting(busy[1:])
    cancelled = client.submit("single", cancelled_row)
    jobs += [
        cancelled,
        client.submit("single", expired_row, expires=0.2),
        client.submit("single", row, expires=60),
    ]
    assert cancelled.cancel()
    assert outcomes_of(jobs) == [*doubled(busy), "cancelled", "expired", *doubled([row])]
    assert shared.predict_calls([cancelled_row, expired_row]) == []
    wait_until(lambda: is_clean(server))


def test_delayed_jobs_wait_in_redis_and_run_when_they_are_due(
    shared: Site, client: Client, server: redis.Redis
) -> None:
    rows, submitted_at = shared.rows(2), time.monotonic()
    jobs = client.submit_many("doubling", rows, delay=timedelta(seconds=1.5))
    later = client.submit("doubling", shared.rows(1)[0], delay=timedelta(minutes=10))
    wait_until(lambda: server.zcard(KEYS.delayed("predict.doubling")) == 3)
    wait_until(lambda: not count_claims(server))
    assert outcomes_of(jobs) == doubled(rows)
    assert time.monotonic() - submitted_at > 1.4
    assert later.status() == "waiting"
    assert server.zcard(KEYS.delayed("predict.doubling")) == 1
    server.delete(KEYS.delayed("predict.doubling"))
    wait_until(lambda: is_clean(server))


# --- malformed messages ---


def test_malformed_messages_become_dead_letters_and_harm_no_job(
    shared: Site, client: Client, server: redis.Redis
) -> None:
    garbage = [
        b"{not json",
        b"",
        b"\x00\xff\x01",
        b"\x01no newline",
        b"\x01crash,me,1;\nno job either",
        b"{}",
        b"[]",
        b"null",
        b'{"body": "e30=", "headers": {}, "properties": {}}',
        b'{"body": "W10=", "headers": {"task": "celery.shutdown"}, "properties": {}}',
        b"x" * 20_000_000,
        b"[" * 100_000,
    ]
    server.delete(KEYS.dead, KEYS.dead_messages, KEYS.dead_times)
    rows = shared.rows(10)
    server.lpush("predict.doubling", *garbage)
    assert outcomes_of(client.submit_many("doubling", rows)) == doubled(rows)
    wait_until(lambda: is_clean(server))
    assert sorted(server.hvals(KEYS.dead_messages)) == sorted(garbage)
    assert {decode_letter("", line, 0).reason for line in server.hvals(KEYS.dead)} == {"malformed"}


# --- keys of another type ---


def test_a_worker_that_starts_beside_a_list_of_another_type_serves_its_other_queues(
    own: Site, client: Client, server: redis.Redis
) -> None:
    broken_list = KEYS.lists("predict.single")[2]
    server.set(broken_list, "no list")
    with own.start_worker():
        assert client.predict("doubling", own.rows(1)[0], timeout=30).prediction is not None
        server.delete(broken_list)
        assert client.predict("single", own.rows(1)[0], timeout=30).prediction is not None
