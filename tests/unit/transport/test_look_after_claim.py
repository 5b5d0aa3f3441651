"""The look after a claim: it is left out where the claim, and the notifications of Redis, have told all."""

from __future__ import annotations

import redis

from headrace_worker.transport.notifications import LOOK_SECONDS
from tests.support.claim_loop import NOTHING, Harness, names_of, sleeping


def test_no_look_follows_a_claim_that_emptied_the_only_changed_queue() -> None:
    harness = sleeping("churn", "fraud")
    for model in ("churn", "fraud", "churn"):
        assert harness.loop.keys_changed([{f"predict.{model}".encode()}])
        assert harness.claim([1, [1, 1], [b"job"], 0, 0, 1])
        assert harness.loop.next_commands() == []
    harness.clock.advance(LOOK_SECONDS)
    harness.loop.poll()
    assert harness.look() == ["PERSIST", "EXISTS"]


def test_a_look_follows_a_claim_that_emptied_its_queue_if_jobs_may_wait_in_another() -> None:
    harness = sleeping("churn", "fraud")
    assert harness.loop.keys_changed([{b"predict.churn", b"predict.fraud"}])
    assert harness.claim([1, [1, 1], [b"job"], 0, 0, 1])
    assert harness.look() == ["PERSIST", "EXISTS"]


def test_a_job_that_arrives_during_a_claim_that_emptied_its_queue_is_claimed_next() -> None:
    harness = sleeping("churn", "fraud")
    assert harness.loop.keys_changed([{b"predict.churn"}])
    harness.loop.next_commands()
    harness.loop.keys_changed([{b"predict.churn"}])
    assert harness.answer([1, [1, 1], [b"job"], 0, 0, 1])
    assert harness.loop.next_commands() != []


def test_a_look_follows_a_claim_that_emptied_its_queue_if_redis_refuses_to_tell_of_changes() -> None:
    harness = Harness()
    harness.claim(NOTHING)
    names = names_of(harness.loop.next_commands())
    assert names == ["CLIENT", "CLIENT", "PERSIST", "EXISTS"]
    harness.loop.receive([b"OK", redis.exceptions.NoPermissionError("no CLIENT"), 0, 0])
    harness.clock.advance(LOOK_SECONDS)
    harness.loop.poll()
    harness.look(waiting=1)
    assert harness.claim([1, [1, 1], [b"job"], 0, 0, 1])
    assert harness.loop.next_commands() != []
