"""A paused model: its jobs are accepted and wait, for all workers, until somebody resumes it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import redis

from headrace import Client, InvalidInput, UnknownModel
from headrace.catalog.pauses import read_pauses
from headrace.connection.commands import execute, run
from headrace.wire.keys import Keys
from headrace.wire.queues import queue_name
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.claim_models import SLEEP, count_claims, running_worker
from tests.support.served_worker import (
    KEYS,
    Site,
    client,
    doubled,
    is_clean,
    outcomes_of,
    own,
    server,
    store,
)
from tests.support.waiting import wait_until

__all__ = ["client", "own", "server", "store"]  # fixtures


def wait_until_known(worker_log: Path, text: str, times: int = 1) -> None:
    wait_until(lambda: worker_log.read_text().count(text) >= times, 20, worker_log.read_text)


def test_a_paused_model_takes_jobs_and_runs_none_while_the_others_run(
    own: Site, client: Client, server: redis.Redis
) -> None:
    with own.start_worker() as worker:
        # The worker waits at the list of the model, so that the next job would come to it at once.
        assert outcomes_of(client.submit_many("doubling", rows := own.rows(3))) == doubled(rows)
        running = client.submit("single", (row := own.rows(1, SLEEP, 3))[0])
        own.wait_until_predicting(row)
        for model in ("doubling", "single"):
            client.pause(model, reason="the feature store is down")
            wait_until_known(worker.log, f"{model} is paused by ")
        rows = own.rows(8)
        waiting = [*client.submit_many("doubling", rows[:4]), *client.submit_many("single", rows[4:])]
        assert outcomes_of([running]) == doubled(row)
        assert outcomes_of(client.submit_many("patient", others := own.rows(3))) == doubled(others)
        assert own.predict_calls(rows) == []
        assert [job.status() for job in waiting] == ["waiting"] * 8
        assert client.resume("doubling")
        assert outcomes_of(waiting[:4]) == doubled(rows[:4])
        assert [job.status() for job in waiting[4:]] == ["waiting"] * 4
        assert client.resume("single")
        assert outcomes_of(waiting) == doubled(rows)
        assert not client.resume("single")
        wait_until(lambda: is_clean(server))
    assert "the feature store is down" in worker.log.read_text()
    assert worker.log.read_text().count("doubling is paused by ") == 1


def test_a_job_that_arrives_while_the_worker_still_waits_at_redis_goes_back(
    own: Site, client: Client, server: redis.Redis
) -> None:
    def waits_at_redis() -> bool:
        return any(connection["cmd"] == "blmove" for connection in server.client_list())

    with own.start_worker(HEADRACE_LEASE="30") as worker:
        for number in range(1, 4):  # a worker waits at the list of its last jobs
            for row in own.rows(3):
                assert outcomes_of([client.submit("doubling", row)]) == doubled([row])
            wait_until(waits_at_redis)
            client.pause("doubling")
            wait_until_known(worker.log, "doubling is paused by ", number)
            rows = own.rows(1)
            job = client.submit("doubling", rows[0])
            time.sleep(0.5)
            assert (own.predict_calls(rows), job.status()) == ([], "waiting")
            client.resume("doubling")
            assert outcomes_of([job]) == doubled(rows)
        wait_until(lambda: is_clean(server))


def test_a_pause_outlives_workers_and_redis(store: tuple[Path, object], tmp_path: Path) -> None:
    with EmbeddedRedis() as redis_server, Client(redis_server.url, check=False) as client:
        with running_worker(url=redis_server.url, models=store[0], folder=tmp_path):
            client.pause("doubling")
        redis_server.kill()
        redis_server.start()
        job = client.submit("doubling", [21, 0, 0])
        with running_worker(url=redis_server.url, models=store[0], folder=tmp_path, name="second") as worker:
            assert client.predict("single", [1, 0, 0], timeout=30).prediction == 2
            assert (job.status(), worker.log.read_text().count("doubling is paused by ")) == ("waiting", 1)
            client.resume("doubling")
            assert job.result(timeout=30).prediction == 42


def test_jobs_that_keep_coming_are_claimed_before_and_after_a_pause_and_not_during_it(
    own: Site, client: Client, server: redis.Redis
) -> None:
    with own.start_worker() as worker:
        jobs, rows = [], own.rows(600)
        for number, row in enumerate(rows):
            if number == 100:
                client.pause("doubling")
            if number == 400:
                wait_until_known(worker.log, "doubling is paused by ")
                assert count_claims(server) == 0
                before = len(own.predict_calls(rows))
            if number == 500:
                assert len(own.predict_calls(rows)) == before
                client.resume("doubling")
            jobs.append(client.submit("doubling", row))
            time.sleep(0.005)
        assert outcomes_of(jobs) == doubled(rows)
        # No job was isolated: a lease that waited at the list when the pause came was given up at once.
        assert {job.explain().steps[1].kind for job in jobs} == {"claimed"}
        wait_until(lambda: is_clean(server))


def test_only_a_published_model_can_be_paused_or_resumed(own: Site, client: Client, server: redis.Redis) -> None:
    server.sadd(KEYS.models, "doubling")
    for change in (client.pause, client.resume):
        with pytest.raises(UnknownModel, match=r"no model 'dubling'.*did you mean 'doubling'"):
            change("dubling")
    with pytest.raises(InvalidInput, match="501 characters"):
        client.pause("doubling", reason="x" * 501)
    assert not server.exists(KEYS.paused)


@pytest.mark.parametrize("damage", [b"\xff", b"{", b"[]", b'{"by": 1}'])
def test_a_model_whose_pause_is_damaged_is_paused(server: redis.Redis, own: Site, damage: bytes) -> None:
    server.hset(KEYS.paused, mapping={"churn": damage, "fraud": json.dumps({"by": "ann@host", "at_ms": 1000})})
    pauses = run(lambda command: execute(server, command), read_pauses(Keys()))
    assert {model: pause.by for model, pause in pauses.items()} == {"churn": "unknown", "fraud": "ann@host"}
    assert str(pauses["fraud"]) == "paused by ann@host at 1970-01-01 00:00:01 UTC"


def test_a_key_of_another_type_pauses_nothing_and_hides_no_queue(
    own: Site, client: Client, server: redis.Redis
) -> None:
    server.set(KEYS.paused, "x")
    with own.start_worker():
        assert client.predict("doubling", [21, 0, 0], timeout=30).prediction == 42
        assert {depth.queue for depth in client.queues()} >= {queue_name("doubling")}
