"""A message with the id of somebody else's job neither changes its outcome, nor ends it from another queue."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis

from headrace import Client, JobHandle
from headrace.wire.dead_letter import decode_letter, malformed_letter_id
from headrace.wire.message import Job, encode_message
from tests.support.claim_models import SLEEP
from tests.support.served_worker import KEYS, Site, client, server, shared, store
from tests.support.waiting import wait_until

__all__ = ["client", "server", "shared", "store"]

#: What ends a job without a run: a broken body, bad input, and a moment that has passed.
FORGERIES: dict[str, dict[str, Any]] = {
    "malformed": {"body": "###"},
    "bad input": {},
    "expired": {"headers": {"expires": "2001-01-01T00:00:00+00:00"}},
}


def forge(job: str, model: str, kind: str) -> bytes:
    """Return a message that is refused under the id of a job."""
    instances: list[Any] = [["no number"]] if kind == "bad input" else [[1.0, 0.0, 0.0]]
    message = json.loads(encode_message(Job(id=job, model=model, instances=instances)))
    for name, change in FORGERIES[kind].items():
        message[name] = {**message[name], **change} if isinstance(change, dict) else change
    return json.dumps(message).encode()


def push(server: redis.Redis, model: str, message: bytes) -> None:
    server.lpush(KEYS.lists(f"predict.{model}")[0], message)


def wait_for_letter(server: redis.Redis, message: bytes) -> str:
    """Wait for the dead letter of a malformed message, and return its text."""
    name = malformed_letter_id(message)
    wait_until(lambda: server.hexists(KEYS.dead, name))
    line = server.hget(KEYS.dead, name)
    assert line is not None
    assert server.hget(KEYS.dead_messages, name) == message
    return decode_letter(name, line, 0).message


@pytest.mark.parametrize("kind", FORGERIES)
def test_an_outcome_is_not_overwritten(shared: Site, client: Client, server: redis.Redis, kind: str) -> None:
    job = client.submit("doubling", instances=shared.rows(1))
    prediction = job.result(timeout=30).prediction
    before = server.get(KEYS.result(job.id))
    push(server, "doubling", forge(job.id, "doubling", kind))
    client.submit("doubling", instances=shared.rows(1)).result(timeout=30)
    assert server.get(KEYS.result(job.id)) == before
    assert job.result(timeout=5).prediction == prediction
    assert not server.hexists(KEYS.dead, job.id)


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_job_of_another_queue_goes_on(shared: Site, client: Client, server: redis.Redis, kind: str) -> None:
    job = client.submit("doubling", instances=shared.rows(1), delay=600)
    message = forge(job.id, "single", kind)
    push(server, "single", message)
    assert "was submitted to the queue predict.doubling" in wait_for_letter(server, message)
    assert (job.status(), server.exists(KEYS.result(job.id))) == ("waiting", 0)
    job.cancel()


def test_a_job_that_runs_goes_on(shared: Site, client: Client, server: redis.Redis) -> None:
    rows = shared.rows(1, SLEEP, 4)
    job = client.submit("single", instances=rows)
    wait_until(lambda: job.status() == "running")
    message = forge(job.id, "single", "malformed")
    push(server, "single", message)
    assert "runs now" in wait_for_letter(server, message)
    assert job.result(timeout=30).prediction == 2 * rows[0][0]


def test_a_job_without_a_record_fails_under_its_id(client: Client, server: redis.Redis, shared: Site) -> None:
    message = forge("nobody-submitted-it", "single", "malformed")
    push(server, "single", message)
    handle: JobHandle = client.job("nobody-submitted-it")
    wait_until(lambda: handle.status() == "failure")
    assert server.hexists(KEYS.dead, handle.id)
