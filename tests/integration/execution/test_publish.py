"""The last step of a claim, against a real Redis that may be away."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
import redis

from headrace.connection.connect import connect
from headrace.results import publish
from headrace.settings import Settings
from headrace.wire.dead_letter import malformed_letter
from headrace.wire.keys import Keys
from headrace.wire.message import Job, encode_message
from headrace.wire.outcome import Cancelled, Outcome, Prediction, Success, decode_outcome
from headrace.wire.parsing import MalformedMessage
from headrace_worker.execution.publish import publish_outcomes
from headrace_worker.execution.settle import ClaimDecisions
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.transport.claims import Claim, ClaimLimits
from headrace_worker.transport.leases import Leases

NOW = datetime(2030, 1, 1, tzinfo=UTC)
KEYS = Keys()


def frame(job: str) -> bytes:
    return encode_message(Job(id=job, model="churn", instances=[{"age": 41}]))


def success(job: str, prediction: int = 0) -> Success:
    return Success(job=job, prediction=Prediction(model="churn", version="1", predictions=[prediction]))


def claim(server: redis.Redis, *jobs: str, lasts_ms: int = 60_000) -> tuple[Leases, Claim]:
    """The jobs, put on the queue and claimed."""
    for job in jobs:
        server.lpush("predict.churn", frame(job))
    leases = Leases(server, KEYS)
    taken = leases.claim("me/1", [ClaimLimits(queue="predict.churn", jobs=100, bytes=10**6)], lease_ms=lasts_ms)
    assert isinstance(taken, Claim)
    assert len(taken.queued_messages) == len(jobs)
    return leases, taken


def settled(*outcomes: Outcome) -> ClaimDecisions:
    return ClaimDecisions(outcomes={one.job: one for one in outcomes})


def stored(server: redis.Redis, job: str) -> Outcome | None:
    raw = server.get(KEYS.result(job))
    return decode_outcome(raw) if isinstance(raw, bytes) else None


def keys(server: redis.Redis) -> set[bytes]:
    found = server.keys("*")
    assert isinstance(found, list)
    return set(found)


def test_outcomes_are_published_and_the_lease_ends(server: redis.Redis):
    leases, taken = claim(server, "a", "b")
    assert publish_outcomes(leases, taken.lease, settled(success("a", 1), success("b", 2)), now=NOW, ttl=100)
    assert stored(server, "a") == success("a", 1)
    assert stored(server, "b") == success("b", 2)
    assert keys(server) == {KEYS.result("a").encode(), KEYS.result("b").encode()}
    assert 0 < server.ttl(KEYS.result("a")) <= 100


def test_who_lost_the_lease_publishes_nothing(server: redis.Redis):
    leases, taken = claim(server, "a")
    leases.requeue_isolated(taken.lease, "crash", owner="me")
    before = keys(server)
    garbage = malformed_letter(b"x", MalformedMessage("no job"), queue="predict.churn", worker="w@host")
    everything = ClaimDecisions(outcomes={"a": success("a")}, letters=[(garbage, b"x")], delayed=[(1, b"y")])
    assert publish_outcomes(leases, taken.lease, everything, now=NOW, ttl=100) is None
    assert keys(server) == before
    assert stored(server, "a") is None


def test_a_claim_delivered_twice_is_published_once(server: redis.Redis):
    leases, taken = claim(server, "a")
    assert publish_outcomes(leases, taken.lease, settled(success("a", 1)), now=NOW, ttl=100)
    assert publish_outcomes(leases, taken.lease, settled(success("a", 2)), now=NOW, ttl=100) is None
    assert stored(server, "a") == success("a", 1)


def test_a_job_cancelled_while_it_ran_stays_cancelled_and_its_mates_succeed(server: redis.Redis):
    leases, taken = claim(server, "a", "b")
    command = publish.publish_command(KEYS, [Cancelled(job="a")], ttl=100, now=NOW)
    server.execute_command(*command.with_source)
    assert publish_outcomes(leases, taken.lease, settled(success("a"), success("b")), now=NOW, ttl=100) == [
        success("b")
    ]
    assert stored(server, "a") == Cancelled(job="a")
    assert stored(server, "b") == success("b")


def test_what_is_no_job_is_buried_and_what_is_early_waits(server: redis.Redis):
    leases, taken = claim(server, "a")
    garbage = malformed_letter(b"\x00x", MalformedMessage("no job"), queue="predict.churn", worker="w@host")
    everything = ClaimDecisions(letters=[(garbage, b"\x00x")], delayed=[(60_000, frame("a"))])
    assert publish_outcomes(leases, taken.lease, everything, now=NOW, ttl=100) == []
    assert server.hgetall(KEYS.dead_messages) == {garbage.id.encode(): b"\x00x"}
    [(kept, due_ms)] = server.zrange(KEYS.delayed("predict.churn"), 0, -1, withscores=True)
    assert kept == frame("a")
    assert due_ms / 1000 == pytest.approx(time.time() + 60, abs=5)


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
    with EmbeddedRedis() as mortal, connect(Settings(redis_url=mortal.url)) as client:
        leases, taken = claim(client, "a")
        mortal.kill()
        assert publish_outcomes(
            leases, taken.lease, settled(success("a")), now=NOW, ttl=100, sleep=doing(mortal.start)
        )
        assert stored(client, "a") == success("a")
        assert not client.exists(KEYS.leases)


def test_a_lease_that_lapsed_while_redis_was_away_is_lost():
    with EmbeddedRedis() as mortal, connect(Settings(redis_url=mortal.url)) as client:
        leases, taken = claim(client, "a")

        def back_and_swept() -> None:
            mortal.start()
            Leases(client, KEYS).requeue_isolated(taken.lease, "lease_expired", owner="another")

        mortal.kill()
        told = publish_outcomes(
            leases, taken.lease, settled(success("a")), now=NOW, ttl=100, sleep=doing(back_and_swept)
        )
        assert told is None
        assert stored(client, "a") is None
        assert client.llen(KEYS.isolated("predict.churn")) == 1


def test_redis_that_stays_away_is_said_after_many_tries():
    with EmbeddedRedis() as mortal, connect(Settings(redis_url=mortal.url)) as client:
        leases, taken = claim(client, "a")
        mortal.kill()
        waited: list[float] = []
        with pytest.raises(redis.ConnectionError):
            publish_outcomes(leases, taken.lease, settled(success("a")), now=NOW, ttl=100, sleep=waited.append)
        assert sum(waited) > 10
        mortal.start()
        assert client.zcard(KEYS.leases) == 1  # the jobs are where they were, to run elsewhere


@pytest.fixture(scope="module")
def unwilling() -> Iterator[EmbeddedRedis]:
    """A Redis that cannot save: the file of its dump may not have so long a name."""
    with EmbeddedRedis("--dbfilename", "x" * 300) as server:
        yield server


def fail_to_save(server: redis.Redis) -> None:
    server.config_set("save", "3600 1")
    server.bgsave()
    deadline = time.monotonic() + 10
    while server.info("persistence")["rdb_last_bgsave_status"] != "err":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def keep_busy(server: redis.Redis) -> None:
    server.config_set("busy-reply-threshold", 1)
    connection = server.connection_pool.get_connection()
    connection.send_command("EVAL", "while true do end", 0)
    connection.disconnect()
    server.connection_pool.release(connection)
    deadline = time.monotonic() + 10
    with contextlib.suppress(redis.ResponseError):
        while server.ping():
            assert time.monotonic() < deadline


#: How Redis comes to refuse, and how it is brought to its senses.
REFUSALS: dict[str, tuple[Callable[[redis.Redis], object], Callable[[redis.Redis], object]]] = {
    "READONLY": (lambda db: db.replicaof("127.0.0.1", "1"), lambda db: db.replicaof("NO", "ONE")),
    "MISCONF": (fail_to_save, lambda db: db.config_set("save", "")),
    "NOREPLICAS": (
        lambda db: db.config_set("min-replicas-to-write", 1),
        lambda db: db.config_set("min-replicas-to-write", 0),
    ),
    "BUSY": (keep_busy, lambda db: db.script_kill()),
    "NOPERM": (
        lambda db: db.execute_command("ACL", "SETUSER", "default", "-zscore"),
        lambda db: db.execute_command("ACL", "SETUSER", "default", "+zscore"),
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_outcomes_are_published_when_redis_takes_writes_again(unwilling: EmbeddedRedis, refusal: str):
    refuse, allow = REFUSALS[refusal]
    with connect(Settings(redis_url=unwilling.url)) as client, redis.Redis(port=unwilling.port) as admin:
        leases, taken = claim(client, refusal)
        waited: list[float] = []

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                allow(admin)

        refuse(admin)
        assert publish_outcomes(leases, taken.lease, settled(success(refusal)), now=NOW, ttl=100, sleep=sleep)
        assert len(waited) >= 3
        assert stored(client, refusal) == success(refusal)
        assert not client.exists(KEYS.leases)
