"""Real workers: isolated jobs take at most half of the processes, and are counted before they are opened."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from headrace import Client
from headrace.errors import JobFailed
from headrace.wire.attempts import Attempt, encode_queued_message
from headrace.wire.keys import Keys
from headrace.wire.message import Job, encode_message
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.claim_models import NOTHING, SLEEP, add_model, count_claims, running_worker
from tests.support.waiting import wait_until

KEYS = Keys()
QUEUE = "predict.doubling"
#: The first values of the rows of jobs, and of isolated jobs, begin here.
FIRST, ISOLATED = 100, 1000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a model whose jobs run one by one."""
    return add_model(tmp_path_factory.mktemp("store"), max_batch_instances=1)


@pytest.fixture
def server() -> Iterator[redis.Redis]:
    with EmbeddedRedis("--appendfsync", "no") as embedded, redis.Redis.from_url(embedded.url) as server:
        server.url = embedded.url
        yield server


def isolate(server: redis.Redis, message: bytes, *claim_sizes: int) -> None:
    """Queue a message whose runs were lost, in claims of these sizes."""
    attempts = [Attempt(cause="crash", owner="gone/1/ab", at_ms=1, claim_size=size) for size in claim_sizes]
    server.lpush(KEYS.isolated(QUEUE), encode_queued_message(attempts, message))


def push_isolated(server: redis.Redis, count: int, seconds: float) -> None:
    """Queue jobs whose process was lost before. Each takes these seconds."""
    for number in range(ISOLATED, ISOLATED + count):
        job = Job(id=f"isolated-{number}", model="doubling", instances=[[number, SLEEP, seconds]])
        isolate(server, encode_message(job), 2)


def push(server: redis.Redis, count: int, seconds: float) -> None:
    """Queue jobs that run for the first time."""
    for number in range(FIRST, FIRST + count):
        job = Job(id=f"job-{number}", model="doubling", instances=[[number, SLEEP, seconds]])
        server.lpush(QUEUE, encode_message(job))


def run_all(server: redis.Redis, store: Path, folder: Path, *options: str) -> list[bool]:
    """Let a worker run all jobs. Returns for each run, in order, whether it was an isolated job."""
    jobs = server.llen(QUEUE) + server.llen(KEYS.isolated(QUEUE))
    with running_worker(*options, url=server.url, models=store, folder=folder):
        wait_until(lambda: len(server.keys("celery-task-meta-*")) == jobs and not count_claims(server))
    calls = map(int, (folder / "calls").read_text().split())
    return [number >= ISOLATED for number in calls if number >= FIRST]  # without the example of the model


def test_isolated_jobs_hold_at_most_half_of_the_processes(
    server: redis.Redis, store: Path, tmp_path: Path
) -> None:
    push_isolated(server, 4, seconds=0.5)
    push(server, 20, seconds=0.05)
    runs = run_all(server, store, tmp_path)
    assert runs.count(True) == 4
    first, second, *_ = (index for index, is_isolated in enumerate(runs) if is_isolated)
    assert runs[first:second].count(False) >= 3  # while the first isolated job slept, others ran


def test_a_single_process_runs_isolated_jobs_and_others_in_turn(
    server: redis.Redis, store: Path, tmp_path: Path
) -> None:
    push_isolated(server, 4, seconds=0.01)
    push(server, 8, seconds=0.01)
    runs = run_all(server, store, tmp_path, "--concurrency", "1")
    assert runs == [True, False] * 4 + [False] * 4


def bomb(job: str, megabytes: int) -> bytes:
    """Return the message of a job that takes twenty times its size in memory when it is decoded."""
    body = b'[["doubling", [' + b"[]," * (megabytes * 333_333) + b"0]], {}, {}]"
    headers = {"lang": "py", "task": "headrace.predict", "id": job, "root_id": job}
    properties = {"correlation_id": job, "body_encoding": "base64", "delivery_info": {}}
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": headers,
            "properties": properties,
        }
    ).encode()


def test_a_message_that_takes_more_memory_than_a_process_has_is_given_up_while_others_run(
    server: redis.Redis, store: Path, tmp_path: Path
) -> None:
    message = bomb("bomb", megabytes=22)
    settings = {
        "HEADRACE_MEMORY_LIMIT": str(600_000_000),
        # The limits of a message are so high here that it gets to the decoder.
        "HEADRACE_MAX_JOB_BYTES": str(64 * 1024 * 1024),
        "HEADRACE_MAX_JOB_VALUES": str(100_000_000),
    }
    with (
        running_worker(url=server.url, models=store, folder=tmp_path, **settings),
        Client(server.url, check=False) as client,
    ):
        server.lpush(QUEUE, message)
        jobs = client.submit_many("doubling", [[number, NOTHING, 0] for number in range(200)])
        assert [job.result(timeout=60).prediction for job in jobs] == [2 * number for number in range(200)]
        # The process survives where it can raise a MemoryError, and is lost where even that fails.
        with pytest.raises(JobFailed, match=r"it was tried|\(MemoryError\)"):
            client.job("bomb").result(timeout=60)
        letter = client.dead_letters.show("bomb")
        assert (letter.payload, letter.model) == (message, "doubling")
        assert {attempt.cause for attempt in letter.attempts} <= {"crash"}
        assert len(letter.attempts) <= 5


def test_the_main_process_gives_up_what_no_pool_process_could(
    server: redis.Redis, store: Path, tmp_path: Path
) -> None:
    message = encode_message(Job(id="a", model="doubling", instances=[[FIRST, NOTHING, 0]]))
    isolate(server, message, 2, 1, 1, 1, 1)
    isolate(server, b"[" * 1000, 2, 1, 1, 1, 1)
    with (
        running_worker(url=server.url, models=store, folder=tmp_path) as worker,
        Client(server.url, check=False) as client,
    ):
        with pytest.raises(JobFailed, match="it was tried 5 times"):
            client.job("a").result(timeout=30)
        assert client.dead_letters.show("a").payload == message
        wait_until(lambda: len(list(client.dead_letters.list())) == 2)
        wait_until(
            lambda: worker.log.read_text().count("gave up a job of predict.doubling in the main process") == 2
        )
        assert client.submit("doubling", [FIRST + 1, NOTHING, 0]).result(timeout=30).prediction == 2 * FIRST + 2
        wait_until(lambda: not count_claims(server))
    assert str(FIRST) not in (tmp_path / "calls").read_text().split()
