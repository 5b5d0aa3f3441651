"""Real workers lose a process, are shut down, or lose Redis: no job is lost, and none is published twice."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest
import redis

from headrace import Client
from headrace_worker.transport import lease_keeper
from tests.support.claim_models import KILL, SLEEP
from tests.support.crash_points import STEPS
from tests.support.processes import child_pids
from tests.support.served_worker import (
    KEYS,
    LEASE_SECONDS,
    Site,
    client,
    count_waiting,
    describe_work,
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

#: The kills that each run tries; the others are for a long run.
_QUICK = {("predicted", "self"), ("published", "all"), ("claimed", "self"), ("publishing", "main")}


def leases_of(server: redis.Redis, pid: int) -> list[bytes]:
    """Return the leases of a worker, by the id of its main process."""
    return [member for member in server.zrange(KEYS.leases, 0, -1) if f"/{pid}/".encode() in member]


# --- lost processes ---


def test_a_killed_pool_process_costs_no_job_and_its_jobs_run_alone(
    shared: Site, client: Client, server: redis.Redis
) -> None:
    first = shared.rows(1, SLEEP, 0.5)
    rows = first + shared.rows(9, SLEEP, 0.1)
    jobs = client.submit_many("doubling", rows)
    shared.wait_until_predicting(first)
    for child in child_pids(shared.pid):
        os.kill(child, signal.SIGKILL)
    assert outcomes_of(jobs) == doubled(rows)
    wait_until(lambda: is_clean(server), describe=lambda: describe_work(server))
    first_call, *further_calls = shared.predict_calls(rows)
    assert len(first_call) == 10
    assert all(len(batch) == 1 for batch in further_calls)


def test_a_job_that_kills_its_process_is_given_up_and_harms_no_other(
    shared: Site, client: Client, server: redis.Redis
) -> None:
    failing, others = shared.rows(1, KILL), shared.rows(9)
    jobs = client.submit_many("doubling", [*others[:5], *failing, *others[5:]])
    assert outcomes_of(jobs) == [*doubled(others[:5]), "crash", *doubled(others[5:])]
    wait_until(lambda: is_clean(server), describe=lambda: describe_work(server))
    assert len(shared.predict_calls(failing)) == 3
    letter = read_letter(server, jobs[5])
    assert letter.reason == "crash"
    assert [(attempt.cause, attempt.claim_size) for attempt in letter.attempts] == [
        ("crash", 10),
        ("crash", 1),
        ("crash", 1),
    ]
    assert all(str(shared.pid) in attempt.owner for attempt in letter.attempts)


def test_the_jobs_of_a_killed_worker_run_on_another(shared: Site, client: Client, server: redis.Redis) -> None:
    with shared.start_worker(name="victim") as victim:
        rows = shared.rows(300, SLEEP, 0.03)
        jobs = client.submit_many("doubling", rows)
        wait_until(lambda: leases_of(server, victim.process.pid))
        os.killpg(victim.process.pid, signal.SIGKILL)
        wait_until(lambda: not leases_of(server, victim.process.pid))
    # Within the lease and 2 s: the chaos suite measures it.
    assert lease_keeper._SWEEP_SECONDS <= 1
    assert outcomes_of(jobs, 60) == doubled(rows)
    wait_until(lambda: is_clean(server), describe=lambda: describe_work(server))


def test_a_long_job_keeps_its_lease_and_runs_once(shared: Site, client: Client, server: redis.Redis) -> None:
    rows = shared.rows(1, SLEEP, 1.7 * LEASE_SECONDS)
    assert outcomes_of(client.submit_many("doubling", rows)) == doubled(rows)
    assert len(shared.predict_calls(rows)) == 1
    wait_until(lambda: is_clean(server), describe=lambda: describe_work(server))


@pytest.mark.parametrize(
    ("step", "process"),
    [
        pytest.param(step, process, marks=[] if (step, process) in _QUICK else pytest.mark.long)
        for step in STEPS
        for process in ("self", "main", "all")
    ],
)
def test_a_kill_at_any_step_costs_no_job_and_publishes_none_twice(
    own: Site, client: Client, server: redis.Redis, step: str, process: str
) -> None:
    rows = own.rows(5)
    crash_file = own.folder / "crashed"
    settings = {"CRASH_AT": step, "CRASH_PROCESS": process, "CRASH_FILE": str(crash_file)}
    with (
        own.start_worker("--include", "tests.support.crash_points", **settings) as worker,
        server.pubsub() as subscriber,
    ):
        subscriber.psubscribe("celery-task-meta-*")
        jobs = client.submit_many("doubling", rows)
        wait_until(crash_file.exists)
        worker_ends = process != "self" or step in {"claimed", "acknowledging"}
        if worker_ends:
            worker.process.wait(20)
        with own.start_worker(name="next") if worker_ends else contextlib.nullcontext():
            assert outcomes_of(jobs) == doubled(rows)
            wait_until(lambda: is_clean(server), describe=lambda: describe_work(server))
        messages = iter(lambda: subscriber.get_message(timeout=0.2), None)
        announced = [message["channel"] for message in messages]
    assert sorted(announced) == sorted([b"celery-task-meta-*", *(KEYS.result(job.id).encode() for job in jobs)])
    assert not server.exists(KEYS.dead)


# --- shutdown ---


def test_a_warm_shutdown_finishes_running_claims_and_leaves_the_others_waiting(
    own: Site, client: Client, server: redis.Redis
) -> None:
    rows = own.rows(10, SLEEP, 0.7)
    with own.start_worker() as worker:
        jobs = client.submit_many("single", rows)
        own.wait_until_predicting(rows)
        worker.process.terminate()
        worker.process.wait(20)
    done = [job for job in jobs if job.done()]
    assert 1 <= len(done) <= 4
    assert outcomes_of(done) == [doubled(rows)[jobs.index(job)] for job in done]
    assert count_waiting(server, "single") == 10 - len(done)
    assert server.exists(KEYS.leases, KEYS.isolated("predict.single")) == 0


@pytest.mark.parametrize(
    "signals", [[signal.SIGQUIT], pytest.param([signal.SIGINT, signal.SIGINT], marks=pytest.mark.long)]
)
def test_a_cold_shutdown_requeues_running_jobs_at_once_without_an_attempt(
    own: Site, client: Client, server: redis.Redis, signals: list[int]
) -> None:
    rows = own.rows(3, SLEEP, 60)
    with own.start_worker() as worker:
        jobs = client.submit_many("doubling", rows)
        own.wait_until_predicting(rows)
        for number in signals:
            time.sleep(0.3)
            worker.process.send_signal(number)
        worker.process.wait(20)
    assert not any(job.done() for job in jobs)
    assert count_waiting(server) == 3
    assert server.exists(KEYS.leases, KEYS.isolated("predict.doubling")) == 0


# --- lost connections ---


def test_a_redis_that_is_killed_under_load_costs_no_job(own: Site, client: Client, server: redis.Redis) -> None:
    rows = own.rows(100, SLEEP, 0.05)
    with own.start_worker() as worker:
        jobs = client.submit_many("single", rows)
        own.wait_until_predicting(rows)
        for _ in range(2):
            time.sleep(0.5)
            own.redis.kill()
            time.sleep(0.5)
            own.redis.start()
        assert outcomes_of(jobs, 60) == doubled(rows)
        assert worker.process.poll() is None
        wait_until(lambda: is_clean(server), describe=lambda: describe_work(server))


def test_repeatedly_cut_connections_cost_no_job_and_no_attempt(
    shared: Site, client: Client, server: redis.Redis
) -> None:
    rows, own_id = shared.rows(80, SLEEP, 0.1), server.client_id()
    jobs = client.submit_many("single", rows)
    shared.wait_until_predicting(rows)
    for _ in range(4):
        for connection in server.client_list():
            if int(connection["id"]) != own_id:
                server.client_kill_filter(_id=connection["id"])
        time.sleep(1.5)
    assert outcomes_of(jobs, 60) == doubled(rows)
    wait_until(lambda: is_clean(server), describe=lambda: describe_work(server))
