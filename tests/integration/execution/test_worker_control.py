"""Real workers answer remote control, run claims in every kind of pool, send events, and wake up for jobs."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from headrace import Client, Settings
from headrace.connection.celery import create_celery_app
from headrace_worker.telemetry import events as telemetry_events
from tests.support import rare_polls
from tests.support.claim_models import SLEEP, UNREACHABLE
from tests.support.connections import kill_pool
from tests.support.served_worker import (
    LEASE_SECONDS,
    Site,
    client,
    doubled,
    is_clean,
    outcomes_of,
    own,
    server,
    shared,
    store,
)
from tests.support.waiting import wait_until

__all__ = ["client", "own", "server", "shared", "store"]  # fixtures


# --- remote control and pools ---


def test_inspect_shows_claims_without_their_content_and_revoke_cancels_a_job(
    shared: Site, client: Client, server: redis.Redis
) -> None:
    busy, waiting = shared.rows(2, SLEEP, 4), shared.rows(3)
    jobs = client.submit_many("single", busy)
    shared.wait_until_predicting(busy[1:])
    jobs += client.submit_many("single", waiting)
    with create_celery_app(Settings(redis_url=shared.url)) as app:
        inspect = app.control.inspect(timeout=5, limit=1)
        assert inspect.ping() == {"worker@test": {"ok": "pong"}}
        (active,) = inspect.active().values()
        assert [(claim["name"], claim["args"]) for claim in active] == [("headrace.claim", "single, 1 job")] * 2
        assert inspect.reserved() == {"worker@test": []}
        replies = app.control.revoke(jobs[3].id, reply=True, timeout=5, limit=1)
        assert "cancelled" in json.dumps(replies)
    expected = [*doubled(busy), *doubled(waiting)]
    expected[3] = "cancelled"
    assert outcomes_of(jobs) == expected
    assert shared.predict_calls(waiting[1:2]) == []
    wait_until(lambda: is_clean(server))


def test_query_task_finds_the_jobs_of_a_running_claim_by_id(shared: Site, client: Client) -> None:
    rows = shared.rows(1, SLEEP, 5) + shared.rows(2)
    jobs = client.submit_many("doubling", rows)
    shared.wait_until_predicting(rows)
    with create_celery_app(Settings(redis_url=shared.url)) as app:
        sought = [*(job.id for job in jobs[1:]), "unknown"]
        (replies,) = app.control.inspect(timeout=5, limit=1).query_task(*sought).values()
        assert set(replies) == {jobs[1].id, jobs[2].id}
        for job, (state, info) in replies.items():
            assert (state, info["id"], info["name"]) == ("active", job, "headrace.predict")
            assert info["args"] == "doubling, 3 jobs"
        (active,) = app.control.inspect(timeout=5, limit=1).active().values()
        assert {claim["id"] for claim in active} == {info["claim"] for _, info in replies.values()}
        assert not {str(row[0]) for row in rows} & set(str(replies).replace("'", " ").split())
    assert outcomes_of(jobs) == doubled(rows)


def test_a_job_that_runs_for_a_while_is_running_and_one_that_waits_or_is_retried_is_queued(
    shared: Site, client: Client, server: redis.Redis
) -> None:
    busy = client.submit_many("single", rows := shared.rows(2, SLEEP, 4))
    shared.wait_until_predicting(rows[1:])
    waiting = client.submit("single", row := shared.rows(1)[0])
    wait_until(lambda: [job.status() for job in busy] == ["running", "running"])
    with create_celery_app(Settings(redis_url=shared.url)) as app:
        assert app.AsyncResult(busy[0].id).state == "STARTED"
        assert app.AsyncResult(busy[0].id).info["hostname"] == "worker@test"
        app.backend.client.connection_pool.disconnect()
    assert waiting.status() == "waiting"
    assert outcomes_of([*busy, waiting]) == doubled([*rows, row])
    retried = client.submit("patient", shared.rows(1, UNREACHABLE, time.time() + 2)[0])
    assert outcomes_of([retried])
    quick = client.submit_many("doubling", shared.rows(50))
    outcomes_of(quick)
    wait_until(lambda: is_clean(server))
    started = [key for key in server.scan_iter("celery-task-meta-*") if b"STARTED" in (server.get(key) or b"")]
    assert started == []


def test_a_job_whose_worker_is_lost_is_queued_again_and_no_longer_running(own: Site, client: Client) -> None:
    with own.start_worker() as worker:
        job = client.submit("single", row := own.rows(1, SLEEP, 1000)[0])
        wait_until(lambda: job.status() == "running")
        kill_pool(worker)
        wait_until(lambda: len(own.predict_calls([row])) >= 2)
        wait_until(lambda: job.status() == "running")
        worker.process.terminate()
        wait_until(lambda: job.status() == "waiting")


@pytest.mark.parametrize(
    "options",
    [
        ("--autoscale", "3,1"),
        ("--pool", "solo"),
        pytest.param(("--pool", "threads"), marks=pytest.mark.long),
    ],
)
def test_pools_of_every_kind_run_claims(
    own: Site, client: Client, server: redis.Redis, options: tuple[str, ...]
) -> None:
    with own.start_worker(*options):
        rows = own.rows(40, SLEEP, 0.02) + own.rows(1, SLEEP, 1.5 * LEASE_SECONDS)
        assert outcomes_of(client.submit_many("single", rows), 60) == doubled(rows)
        wait_until(lambda: is_clean(server))
    assert len(own.predict_calls(rows)) == len(rows)


# --- events and wake-up ---


def test_every_job_of_a_batch_has_events(shared: Site, client: Client, server: redis.Redis) -> None:
    events: dict[str, list[str]] = {}
    targets: set[tuple[str, str]] = set()

    def record(event: dict[str, Any]) -> None:
        events.setdefault(event.get("uuid", ""), []).append(event["type"])
        if event["type"].startswith("task-"):
            targets.add((event["model"], event["version"]))

    with create_celery_app(Settings(redis_url=shared.url)) as app, app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": record})
        with receiver.consumer_context(wakeup=False) as (consumer, _, _):
            # The receiver subscribes in its first drain_events(). Without a subscriber, no events are made.
            with contextlib.suppress(TimeoutError):
                consumer.drain_events(timeout=0.1)
            # A worker that was busy in the last test assumes for a moment that there is still no subscriber.
            time.sleep(1.5 * telemetry_events._SUBSCRIBERS_TTL_SECONDS)
            client.predict("doubling", shared.rows(1)[0])
            for publisher in server.client_list():  # as a proxy closes idle connections
                if publisher["cmd"] == "publish":
                    server.client_kill_filter(_id=publisher["id"])
            jobs = client.submit_many("doubling", shared.rows(30))
            misfit = client.submit("doubling", [1])
            cancelled = client.submit("doubling", shared.rows(1)[0], delay=0.5)
            assert cancelled.cancel()
            deadline = time.monotonic() + 20
            while (
                not all(len(events.get(job.id, [])) == 3 for job in [*jobs, misfit]) or cancelled.id not in events
            ):
                assert time.monotonic() < deadline, events
                with contextlib.suppress(TimeoutError):
                    consumer.drain_events(timeout=1)
    assert {tuple(events[job.id]) for job in jobs} == {("task-received", "task-started", "task-succeeded")}
    assert events[misfit.id] == ["task-received", "task-started", "task-failed"]
    assert events[cancelled.id] == ["task-revoked"]
    assert targets == {("doubling", "1"), ("doubling", None)}  # no version ran the cancelled job


def test_an_idle_worker_uses_no_processor_time(shared: Site, client: Client) -> None:
    client.predict("doubling", shared.rows(1)[0], timeout=20)
    cpu_before, started_at = _cpu_seconds(shared.pid), time.monotonic()
    time.sleep(2)
    assert (_cpu_seconds(shared.pid) - cpu_before) / (time.monotonic() - started_at) < 0.05


def test_an_idle_worker_wakes_for_a_job_without_a_poll(own: Site, client: Client, server: redis.Redis) -> None:
    with own.start_worker(*rare_polls.OPTIONS, **rare_polls.SETTINGS):
        _predict_at_intervals(client, own)
        # The worker listens on the connection with one subscription, to the changes of keys.
        listeners = [
            connection
            for connection in server.client_list()
            if connection["cmd"] == "subscribe" and connection["sub"] == "1"
        ]
        assert listeners
        for listener in listeners:
            server.client_kill_filter(_id=listener["id"])
        _predict_at_intervals(client, own)


def _predict_at_intervals(client: Client, site: Site) -> None:
    for number in range(9):
        time.sleep(0.05 + 0.013 * number)
        client.predict("doubling", site.rows(1)[0], timeout=20)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
