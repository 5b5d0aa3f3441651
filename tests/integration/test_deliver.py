"""The last step of a claim, against a real Redis that may be away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import redis

from headrace import broker, outcome, publish
from headrace.envelope import Job, encode
from headrace.outcome import Cancelled, Outcome, Prediction, Success
from headrace.queues import Keys
from headrace.settings import Settings
from headrace_worker.deliver import deliver
from headrace_worker.embedded import EmbeddedRedis
from headrace_worker.transport.scripts import Ask, Claim, LeaseKeys, Leases

NOW = datetime(2030, 1, 1, tzinfo=UTC)
KEYS = Keys()
NAMES = LeaseKeys(KEYS)


def frame(job: str) -> bytes:
    return encode(Job(id=job, model="churn", instances=[{"age": 41}]))


def success(job: str, prediction: int = 0) -> Success:
    return Success(job=job, prediction=Prediction(model="churn", version="1", predictions=[prediction]))


def claim(server: redis.Redis, *jobs: str, lasts_ms: int = 60_000) -> tuple[Leases, Claim]:
    """The jobs, put on the queue and claimed."""
    for job in jobs:
        server.lpush("predict.churn", frame(job))
    leases = Leases(server, NAMES)
    taken = leases.claim("me/1", [Ask(queue="predict.churn", jobs=100, bytes=10**6)], lasts_ms=lasts_ms)
    assert isinstance(taken, Claim)
    assert len(taken.frames) == len(jobs)
    return leases, taken


def stored(server: redis.Redis, job: str) -> Outcome | None:
    raw = server.get(KEYS.result(job))
    return outcome.decode(raw) if isinstance(raw, bytes) else None


def keys(server: redis.Redis) -> set[bytes]:
    found = server.keys("*")
    assert isinstance(found, list)
    return set(found)


def test_outcomes_are_published_and_the_lease_ends(server: redis.Redis):
    leases, taken = claim(server, "a", "b")
    assert deliver(leases, taken.lease, [success("a", 1), success("b", 2)], now=NOW, ttl=100)
    assert stored(server, "a") == success("a", 1)
    assert stored(server, "b") == success("b", 2)
    assert keys(server) == {KEYS.result("a").encode(), KEYS.result("b").encode()}
    assert 0 < server.ttl(KEYS.result("a")) <= 100


def test_who_lost_the_lease_publishes_nothing(server: redis.Redis):
    leases, taken = claim(server, "a")
    leases.lapse(taken.lease, "crash", owner="me")
    before = keys(server)
    told = deliver(leases, taken.lease, [success("a")], now=NOW, ttl=100, malformed=[b"x"], early=[(1, b"y")])
    assert told is None
    assert keys(server) == before
    assert stored(server, "a") is None


def test_a_claim_delivered_twice_is_published_once(server: redis.Redis):
    leases, taken = claim(server, "a")
    assert deliver(leases, taken.lease, [success("a", 1)], now=NOW, ttl=100)
    assert deliver(leases, taken.lease, [success("a", 2)], now=NOW, ttl=100) is None
    assert stored(server, "a") == success("a", 1)


def test_a_job_cancelled_while_it_ran_stays_cancelled_and_its_mates_succeed(server: redis.Redis):
    leases, taken = claim(server, "a", "b")
    names, values = publish.call(KEYS, [Cancelled(job="a")], ttl=100, now=NOW)
    server.eval(publish.SCRIPT, len(names), *names, *values)
    assert deliver(leases, taken.lease, [success("a"), success("b")], now=NOW, ttl=100) == [success("b")]
    assert stored(server, "a") == Cancelled(job="a")
    assert stored(server, "b") == success("b")


def test_of_two_outcomes_of_one_job_the_first_is_published_once(server: redis.Redis):
    leases, taken = claim(server, "a", "a")
    with server.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe(KEYS.result("a"))
        heard.get_message(timeout=5)
        assert deliver(leases, taken.lease, [success("a", 1), success("a", 2)], now=NOW, ttl=100)
        message = heard.get_message(timeout=5)
        assert message is not None
        assert outcome.decode(message["data"]) == success("a", 1)
        assert heard.get_message(timeout=0.05) is None
    assert stored(server, "a") == success("a", 1)


def test_what_is_no_job_and_what_is_early_is_kept(server: redis.Redis):
    leases, taken = claim(server, "a")
    assert (
        deliver(leases, taken.lease, [], now=NOW, ttl=100, malformed=[b"\x00x"], early=[(1234, frame("a"))]) == []
    )
    assert server.lrange(NAMES.malformed, 0, -1) == [b"\x00x"]
    assert server.zrange(NAMES.delayed("predict.churn"), 0, -1, withscores=True) == [(frame_of(server), 1234.0)]


def frame_of(server: redis.Redis) -> bytes:
    [kept] = server.zrange(NAMES.delayed("predict.churn"), 0, -1)  # type: ignore[misc]  # bytes
    return kept  # type: ignore[no-any-return]  # as above


# --- Redis goes away -----------------------------------------------------------------------------------


def doing(does: Callable[[], object]) -> Callable[[float], None]:
    """A sleep during which something happens, once."""
    done = threading.Event()

    def sleep(seconds: float) -> None:
        if not done.is_set():
            done.set()
            does()

    return sleep


def test_outcomes_are_published_when_redis_comes_back():
    with EmbeddedRedis() as mortal, broker.connect(Settings(redis_url=mortal.url)) as client:
        leases, taken = claim(client, "a")
        mortal.kill()
        assert deliver(leases, taken.lease, [success("a")], now=NOW, ttl=100, sleep=doing(mortal.start))
        assert stored(client, "a") == success("a")
        assert not client.exists(NAMES.leases)


def test_a_lease_that_lapsed_while_redis_was_away_is_lost():
    with EmbeddedRedis() as mortal, broker.connect(Settings(redis_url=mortal.url)) as client:
        leases, taken = claim(client, "a")

        def back_and_swept() -> None:
            mortal.start()
            Leases(client, NAMES).lapse(taken.lease, "lapse", owner="another")

        mortal.kill()
        told = deliver(leases, taken.lease, [success("a")], now=NOW, ttl=100, sleep=doing(back_and_swept))
        assert told is None
        assert stored(client, "a") is None
        assert client.llen(NAMES.again("predict.churn")) == 1


def test_redis_that_stays_away_is_said_after_many_tries():
    with EmbeddedRedis() as mortal, broker.connect(Settings(redis_url=mortal.url)) as client:
        leases, taken = claim(client, "a")
        mortal.kill()
        waited: list[float] = []
        with pytest.raises(redis.ConnectionError):
            deliver(leases, taken.lease, [success("a")], now=NOW, ttl=100, sleep=waited.append)
        assert sum(waited) > 10
        mortal.start()
        assert client.zcard(NAMES.leases) == 1  # the jobs are where they were, to run elsewhere
