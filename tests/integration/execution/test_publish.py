"""The outcomes of a claim are published in one step, also to a Redis that is down or refuses for a while."""

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
from headrace_worker.execution.settle import ClaimDecisions, OutcomeDecider
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.transport.claims import Claim, ClaimLimits
from headrace_worker.transport.leases import Leases

NOW = datetime(2030, 1, 1, tzinfo=UTC)
KEYS = Keys()


def message(job: str) -> bytes:
    return encode_message(Job(id=job, model="churn", instances=[{"age": 41}]))


def success(job: str, prediction: int = 0) -> Success:
    return Success(job=job, prediction=Prediction(model="churn", version="1", predictions=[prediction]))


def claim_jobs(server: redis.Redis, *jobs: str) -> tuple[Leases, Claim]:
    """Submit jobs with these ids, and claim them."""
    for job in jobs:
        server.lpush("predict.churn", message(job))
    leases = Leases(server, KEYS)
    claim = leases.claim("me/1", [ClaimLimits(queue="predict.churn", jobs=100, bytes=10**6)], lease_ms=60_000)
    assert isinstance(claim, Claim)
    assert len(claim.queued_messages) == len(jobs)
    return leases, claim


def decisions(*outcomes: Outcome) -> ClaimDecisions:
    return ClaimDecisions(outcomes={outcome.job: outcome for outcome in outcomes})


def stored(server: redis.Redis, job: str) -> Outcome | None:
    raw = server.get(KEYS.result(job))
    return decode_outcome(raw) if isinstance(raw, bytes) else None


def all_keys(server: redis.Redis) -> set[bytes]:
    keys = server.keys("*")
    assert isinstance(keys, list)
    return set(keys)


def test_outcomes_are_published_and_the_lease_ends(server: redis.Redis):
    leases, claim = claim_jobs(server, "a", "b")
    assert publish_outcomes(leases, claim.lease, decisions(success("a", 1), success("b", 2)), now=NOW, ttl=100)
    assert stored(server, "a") == success("a", 1)
    assert stored(server, "b") == success("b", 2)
    assert all_keys(server) == {KEYS.result("a").encode(), KEYS.result("b").encode()}
    assert 0 < server.ttl(KEYS.result("a")) <= 100


def test_nothing_is_published_without_the_lease(server: redis.Redis):
    leases, claim = claim_jobs(server, "a")
    leases.requeue_isolated(claim.lease, "crash", owner="me")
    before = all_keys(server)
    garbage = malformed_letter(b"x", MalformedMessage("no job"), queue="predict.churn", worker="w@host")
    everything = ClaimDecisions(outcomes={"a": success("a")}, letters=[(garbage, b"x")], delayed=[(1, b"y")])
    assert publish_outcomes(leases, claim.lease, everything, now=NOW, ttl=100) is None
    assert all_keys(server) == before
    assert stored(server, "a") is None


def test_a_claim_delivered_twice_is_published_once(server: redis.Redis):
    leases, claim = claim_jobs(server, "a")
    assert publish_outcomes(leases, claim.lease, decisions(success("a", 1)), now=NOW, ttl=100)
    assert publish_outcomes(leases, claim.lease, decisions(success("a", 2)), now=NOW, ttl=100) is None
    assert stored(server, "a") == success("a", 1)


def test_a_job_cancelled_while_it_ran_stays_cancelled_and_the_others_of_its_claim_succeed(server: redis.Redis):
    leases, claim = claim_jobs(server, "a", "b")
    command = publish.publish_command(KEYS, [Cancelled(job="a")], ttl=100, now=NOW)
    server.execute_command(*command.with_source)
    assert publish_outcomes(leases, claim.lease, decisions(success("a"), success("b")), now=NOW, ttl=100) == [
        success("b")
    ]
    assert stored(server, "a") == Cancelled(job="a")
    assert stored(server, "b") == success("b")


def test_a_malformed_message_becomes_a_dead_letter_and_a_job_that_is_not_due_is_delayed(server: redis.Redis):
    leases, claim = claim_jobs(server, "a")
    garbage = malformed_letter(b"\x00x", MalformedMessage("no job"), queue="predict.churn", worker="w@host")
    everything = ClaimDecisions(letters=[(garbage, b"\x00x")], delayed=[(60_000, message("a"))])
    assert publish_outcomes(leases, claim.lease, everything, now=NOW, ttl=100) == []
    assert server.hgetall(KEYS.dead_messages) == {garbage.id.encode(): b"\x00x"}
    [(queued_message, due_ms)] = server.zrange(KEYS.delayed("predict.churn"), 0, -1, withscores=True)
    assert queued_message == message("a")
    assert due_ms / 1000 == pytest.approx(time.time() + 60, abs=5)


@pytest.mark.parametrize("has_record", [True, False])
def test_the_record_of_a_job_that_is_not_due_lives_for_its_delay_and_its_time_to_live(
    server: redis.Redis, has_record: bool
):
    leases, claim = claim_jobs(server, "a")
    if has_record:  # a foreign client's job has none
        server.set(KEYS.job("a"), b"record", ex=10)
    decider = OutcomeDecider(queue="predict.churn", owner="me", worker="w", now_ms=0, chance=lambda: 0.5)
    decider.add_not_due([("a", 3_600_000, b"1" + message("a"))])
    assert publish_outcomes(leases, claim.lease, decider.decisions, now=NOW, ttl=100, record_ttl=60) == []
    assert server.zcard(KEYS.delayed("predict.churn")) == 1
    assert (3650 < server.ttl(KEYS.job("a")) <= 3660) == has_record


# --- Redis is unreachable -----------------------------------------------------------------------------------


def sleep_with(action: Callable[[], object]) -> Callable[[float], None]:
    """Return a sleep whose first call runs an action instead of sleeping."""
    done = threading.Event()

    def sleep(seconds: float) -> None:
        if not done.is_set():
            done.set()
            action()

    return sleep


def test_outcomes_are_published_when_redis_has_restarted():
    with EmbeddedRedis() as embedded, connect(Settings(redis_url=embedded.url)) as client:
        leases, claim = claim_jobs(client, "a")
        embedded.kill()
        assert publish_outcomes(
            leases, claim.lease, decisions(success("a")), now=NOW, ttl=100, sleep=sleep_with(embedded.start)
        )
        assert stored(client, "a") == success("a")
        assert not client.exists(KEYS.leases)


def test_nothing_is_published_if_the_lease_expired_during_the_outage():
    with EmbeddedRedis() as embedded, connect(Settings(redis_url=embedded.url)) as client:
        leases, claim = claim_jobs(client, "a")

        def restart_and_expire() -> None:
            embedded.start()
            Leases(client, KEYS).requeue_isolated(claim.lease, "lease_expired", owner="another")

        embedded.kill()
        published = publish_outcomes(
            leases, claim.lease, decisions(success("a")), now=NOW, ttl=100, sleep=sleep_with(restart_and_expire)
        )
        assert published is None
        assert stored(client, "a") is None
        assert client.llen(KEYS.isolated("predict.churn")) == 1


def test_an_outage_that_lasts_is_an_error_after_many_tries():
    with EmbeddedRedis() as embedded, connect(Settings(redis_url=embedded.url)) as client:
        leases, claim = claim_jobs(client, "a")
        embedded.kill()
        delays: list[float] = []
        with pytest.raises(redis.ConnectionError):
            publish_outcomes(leases, claim.lease, decisions(success("a")), now=NOW, ttl=100, sleep=delays.append)
        assert sum(delays) > 10
        embedded.start()
        assert client.zcard(KEYS.leases) == 1  # the jobs are still leased, and run again when the lease expires


@pytest.fixture(scope="module")
def refusing() -> Iterator[EmbeddedRedis]:
    """A Redis that cannot save: the name of its dump file is too long."""
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


#: For each error of Redis, how to make it refuse writes, and how to end that.
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
def test_outcomes_are_published_when_redis_accepts_writes_again(refusing: EmbeddedRedis, refusal: str):
    refuse, allow = REFUSALS[refusal]
    with connect(Settings(redis_url=refusing.url)) as client, redis.Redis(port=refusing.port) as admin:
        leases, claim = claim_jobs(client, refusal)
        delays: list[float] = []

        def sleep(seconds: float) -> None:
            delays.append(seconds)
            if len(delays) == 3:
                allow(admin)

        refuse(admin)
        assert publish_outcomes(leases, claim.lease, decisions(success(refusal)), now=NOW, ttl=100, sleep=sleep)
        assert len(delays) >= 3
        assert stored(client, refusal) == success(refusal)
        assert not client.exists(KEYS.leases)
