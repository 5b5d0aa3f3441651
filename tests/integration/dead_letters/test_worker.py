"""Tests of dead letters with a worker that stores them, and runs their jobs again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from headrace import Client, JobFailed
from headrace.wire.dead_letter import DeadLetter, malformed_letter_id
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.claim_models import KILL, add_model, running_worker
from tests.support.waiting import wait_until

MODEL = "doubling"


class Installation(NamedTuple):
    url: str
    folder: Path


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Start a Redis and a worker for these tests."""
    folder = tmp_path_factory.mktemp("worker")
    with (
        EmbeddedRedis("--appendfsync", "no") as server,
        running_worker(url=server.url, models=add_model(folder, retry_delay=0.05), folder=folder),
    ):
        yield Installation(server.url, folder)


@pytest.fixture
def client(installation: Installation) -> Iterator[Client]:
    with Client(installation.url, check=False) as client:
        yield client
        client.dead_letters.purge(every=True)


def only_letter(client: Client) -> DeadLetter:
    """Wait for a dead letter, and return it; there is no other."""
    (letter,) = wait_until(lambda: list(client.dead_letters.list()))
    return letter


def test_a_job_for_a_missing_version_is_replayed_when_it_is_added(client: Client, installation: Installation):
    job = client.submit(MODEL, [21, 0, 0], version="2", expires=600, metadata={"by": "billing"})
    with pytest.raises(JobFailed):
        job.result(timeout=20)
    letter = only_letter(client)
    assert (letter.id, letter.model, letter.queue) == (job.id, MODEL, f"predict.{MODEL}")
    assert (letter.reason, letter.error, letter.instances) == ("unknown model", "UnknownModel", 1)
    assert letter.metadata == {"by": "billing"}
    assert letter.died_ms == pytest.approx(time.time() * 1000, abs=60_000)
    add_model(installation.folder)
    wait_until(lambda: client.contract(MODEL).version == "2", 30)
    assert client.dead_letters.replay(model=MODEL).done == 1
    assert client.job(job.id).result(timeout=20).version == "2"
    assert list(client.dead_letters.list()) == []


def test_a_job_is_replayed_to_another_version(client: Client):
    job = client.submit(MODEL, [21, 0, 0], version="7")
    with pytest.raises(JobFailed):
        job.result(timeout=20)
    assert client.dead_letters.replay(ids=[job.id], version="1").done == 1
    assert client.job(job.id).result(timeout=20).prediction == 42


def test_a_job_that_fails_again_gets_a_new_letter_with_its_whole_history(client: Client):
    job = client.submit(MODEL, [1, KILL, 0], version="1")
    with pytest.raises(JobFailed):
        job.result(timeout=40)
    first = only_letter(client)
    assert first.reason == "crash"
    assert {attempt.cause for attempt in first.attempts} == {"crash"}
    assert client.dead_letters.replay(ids=[job.id]).done == 1
    with pytest.raises(JobFailed):
        client.job(job.id).result(timeout=40)
    second = only_letter(client)
    causes = [attempt.cause for attempt in second.attempts]
    count = len(first.attempts)
    assert second.attempts[:count] == first.attempts
    assert causes == ["crash"] * count + ["replay"] + ["crash"] * count
    assert "@" in second.attempts[count].owner


def test_a_malformed_message_becomes_a_letter_with_its_bytes(client: Client, installation: Installation):
    raw = b"\x00garbage" * 1000
    server = redis.Redis.from_url(installation.url)
    server.lpush(f"predict.{MODEL}", raw)
    letter = only_letter(client)
    assert (letter.id, letter.reason, letter.model) == (malformed_letter_id(raw), "malformed", None)
    assert client.dead_letters.show(letter.id).payload == raw
    assert client.dead_letters.replay(every=True).malformed == 1
    assert client.dead_letters.purge(reason="malformed").done == 1
    keys = Keys()
    assert not server.exists(keys.dead, keys.dead_messages, keys.dead_times)
    server.close()
