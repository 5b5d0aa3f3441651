"""`headrace plan`, of a worker that runs jobs, and of models of which nothing was measured."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from headrace import Client
from headrace.catalog.published import publish_contract
from headrace.monitor.capacity import count_needed_processes
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support import ROOT
from tests.support.answering_worker import CHURN
from tests.support.claim_models import SLEEP, add_model, running_worker
from tests.support.command import headrace
from tests.support.waiting import wait_until


def plan(url: str, *options: str) -> dict[str, Any]:
    """Return the plan of one model."""
    ran = headrace("plan", "--json", "--url", url, *options)
    assert ran.returncode == 0, ran.stderr
    (line,) = ran.stdout.splitlines()
    fields = json.loads(line)
    assert isinstance(fields, dict)
    return fields


def needed(fields: dict[str, Any], wait: float) -> int:
    return count_needed_processes(
        backlog=fields["backlog"],
        arrivals=fields["arrivals_per_second"],
        rate=fields["rate_per_process"],
        wait=wait,
    )


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a Redis, and a worker of two processes that serves `doubling`, a job at a time. Return the URL."""
    folder = tmp_path_factory.mktemp("plan")
    models = add_model(folder, max_batch_instances=1)
    with (
        EmbeddedRedis("--appendfsync", "no") as server,
        running_worker(url=server.url, models=models, folder=folder, HEADRACE_CLAIM_JOBS="2"),
    ):
        yield server.url


def test_a_backlog_is_measured(url: str) -> None:
    with Client(url) as client:
        jobs = client.submit_many("doubling", [[n, SLEEP, 0.1] for n in range(150)])
        wait_until(lambda: jobs[0].status() == "success")
        fields = plan(url, "--model", "doubling", "--wait", "2s", "--measure", "2s")
        client.purge_queue("doubling")
    assert 0 < fields["backlog"] < 150
    assert 2 < fields["rate_per_process"] <= 10, "a job takes a process 0.1 s at least"
    assert fields["arrivals_per_second"] < 3, "none came; a claim that ends at the edge may count"
    assert (fields["workers"], fields["processes_per_worker"]) == (1, 2)
    assert fields["processes_needed"] == needed(fields, 2.0)
    assert fields["workers_needed"] == -(-fields["processes_needed"] // 2)


def test_jobs_that_come_are_measured(url: str) -> None:
    stop = threading.Event()

    def submit() -> None:
        with Client(url) as client:
            while not stop.wait(0.05):
                client.submit("doubling", [1, SLEEP, 0.01])

    producer = threading.Thread(target=submit)
    producer.start()
    try:
        fields = plan(url, "--model", "doubling", "--measure", "3s")
    finally:
        stop.set()
        producer.join()
    assert 3 < fields["arrivals_per_second"] < 25
    assert fields["workers_needed"] == 1


def test_without_a_worker_nothing_is_guessed(redis_url: str, server: redis.Redis) -> None:
    publish_contract(server, Keys(), CHURN)
    with Client(redis_url) as client:
        client.submit_many("churn", [{"age": 1}] * 12)
    ran = headrace("plan", "--url", redis_url, "--measure", "0.5s")
    assert ran.returncode == 0
    header, row = ran.stdout.splitlines()
    assert header.split() == ["MODEL", "BACKLOG", "ARRIVALS/S", "RATE/S", "PROCESSES", "WORKERS", "NEEDED"]
    assert re.split(r"\s{2,}", row) == ["churn", "12", "0", "not measured yet", "-", "0", "-"]
    assert ran.stderr == "NEEDED is the workers for a wait of 5.0 s, by what was measured in 500 ms\n"


def test_given_numbers_need_no_measurement(redis_url: str, server: redis.Redis) -> None:
    publish_contract(server, Keys(), CHURN)
    fields = plan(
        redis_url, "--model", "churn", "--arrivals", "300", "--rate", "100", "--processes", "2", "--wait", "1s"
    )
    assert (fields["processes_needed"], fields["workers_needed"]) == (4, 2)
    fields = plan(redis_url, "--model", "churn", "--arrivals", "300", "--rate", "100")
    assert (fields["processes_needed"], fields["workers_needed"]) == (4, None)
    ran = headrace("plan", "--url", redis_url, "--model", "churn", "--arrivals", "300", "--rate", "100")
    assert ran.stdout.splitlines()[1].endswith("4 pool processes")


def test_a_user_who_may_not_listen_is_told_so(redis_url: str, server: redis.Redis) -> None:
    publish_contract(server, Keys(), CHURN)
    server.execute_command("ACL SETUSER deaf on >pw ~* +@all resetchannels &headrace:replies:*")
    try:
        ran = headrace("plan", "--measure", "0.1s", "--url", redis_url.replace("redis://", "redis://deaf:pw@"))
    finally:
        server.execute_command("ACL DELUSER deaf")
    assert re.split(r"\s{2,}", ran.stdout.splitlines()[1])[2:4] == ["not measured yet"] * 2
    assert "may not listen to events" in ran.stderr


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--model", "chrun"], 1, "did you mean 'churn'?"),
        (["--wait", "0"], 2, "must be above 0"),
        (["--wait", "soon"], 2, "must be a number followed by"),
        (["--rate", "0", "--model", "churn"], 2, "is not in the range 0<x"),
        (["--rate", "5"], 2, "name it with --model"),
        (["--rate", "nan", "--arrivals", "1", "--model", "churn"], 2, "must be a number"),
        (["--rate", "1e-9", "--arrivals", "1e9", "--model", "churn"], 1, "more than 1,000,000 pool processes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_planned_is_refused(
    options: list[str], code: int, message: str, redis_url: str, server: redis.Redis
) -> None:
    publish_contract(server, Keys(), CHURN)
    ran = headrace("plan", "--url", redis_url, "--measure", "0.1s", *options)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert message in ran.stderr


def test_the_example_of_the_page_follows_from_its_own_numbers() -> None:
    page = (ROOT / "docs" / "production" / "capacity.md").read_text()
    (row,) = re.findall(r"^churn +([\d,.]+) +([\d.]+) +([\d.]+) +(\d+) +(\d+) +(\d+)$", page, re.MULTILINE)
    backlog, arrivals, rate, per_worker, _, workers = (float(cell.replace(",", "")) for cell in row)
    processes = count_needed_processes(backlog=int(backlog), arrivals=arrivals, rate=rate, wait=5)
    assert (processes, -(-processes // per_worker)) == (13, workers)
