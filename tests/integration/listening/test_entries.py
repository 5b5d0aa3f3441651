"""The entry of an ended job is stored in the step that stores its outcome, whoever ends the job, and only once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from headrace import Client, InvalidInput, QueueFull, Settings
from headrace.connection.commands import execute, run
from headrace.outcome import Cancelled, Expired, Failure, Outcome
from headrace.results.cancellation import cancel
from headrace.results.listening import claim_entries, sweep_entries
from headrace.results.publish import publish_command
from headrace.results.purge import QueuePurge
from headrace.wire.keys import Keys
from headrace.wire.notice import NOTICE_SECONDS
from headrace_worker.transport.claims import ClaimLimits
from headrace_worker.transport.leases import Leases
from tests.support.answering_worker import publish_outcomes, success
from tests.support.lease_operations import LEASE_MS
from tests.support.stored_dead_letters import make_letter, make_message, store_letter
from tests.support.stored_entries import encode_record, open_job, store_entry, stored_entries
from tests.support.stored_notices import stored_notices

KEYS = Keys()
NOW = datetime(2026, 11, 30, tzinfo=UTC)
FAILURE = Failure(job="a", reason="permanent", error="ValueError", module="builtins", message="no")


@pytest.fixture
def client(redis_url: str):
    with Client(redis_url, check=False) as client:
        yield client


def open_ids(server: redis.Redis) -> set[str]:
    return {member.decode() for member in server.zrange(KEYS.listen_open, 0, -1)}


def stored_jobs(server: redis.Redis) -> list[str]:
    return [entry.job for entry in stored_entries(server)]


def do(server: redis.Redis, operation: Any) -> Any:
    return run(lambda command: execute(server, command), operation)


@pytest.mark.parametrize("outcome", [success("a"), FAILURE, Cancelled(job="a"), Expired(job="a")])
@pytest.mark.parametrize("notify", [None, "billing"])
def test_each_kind_of_outcome_leaves_its_entry(
    server: redis.Redis, client: Client, outcome: Outcome, notify: str | None
):
    client.submit("churn", {"age": 41}, id="a", listen="orders", notify=notify, metadata={"order": "4711"})
    assert (open_ids(server), stored_entries(server)) == ({"a"}, [])
    assert publish_outcomes(server, outcome) == [1]
    (entry,) = stored_entries(server)
    assert (entry.name, entry.job, entry.model, entry.deliveries) == ("orders", "a", "churn", 0)
    assert open_ids(server) == set()
    assert len(stored_notices(server)) == (notify is not None)
    (job,) = client.listen("orders", idle=0)
    assert (job.id, job.model, job.outcome, job.metadata) == ("a", "churn", outcome, {"order": "4711"})


def test_a_second_outcome_leaves_no_second_entry(server: redis.Redis):
    open_job(server, "a")
    assert publish_outcomes(server, success("a"), Cancelled(job="a"), FAILURE) == [1, 0, 0]
    assert stored_jobs(server) == ["a"]


def test_a_job_without_listeners_leaves_no_entry_beside_those_that_have(server: redis.Redis, client: Client):
    client.submit("churn", {"age": 41}, id="quiet", notify="listen", metadata={"l": "orders"})
    client.submit("churn", {"age": 41}, id="loud", listen="orders")
    publish_outcomes(server, success("quiet"), success("loud"), success("unknown"))
    assert stored_jobs(server) == ["loud"]


def test_many_jobs_of_one_call_are_accepted_with_their_listeners(server: redis.Redis, client: Client):
    jobs = {job.id for job in client.submit_many("churn", [{"age": age} for age in range(300)], listen="orders")}
    assert open_ids(server) == jobs
    publish_outcomes(server, *(success(job) for job in jobs))
    assert set(stored_jobs(server)) == jobs
    assert not server.exists(KEYS.listen_open)


def test_a_repeat_of_a_job_that_has_ended_is_not_told_again(server: redis.Redis, client: Client):
    for _ in range(2):
        client.submit("churn", {"age": 41}, id="a", listen="orders")
        publish_outcomes(server, success("a"))
    assert (open_ids(server), stored_jobs(server)) == (set(), ["a"])


def test_an_outcome_with_listeners_outlives_the_attempts_to_tell_them(server: redis.Redis):
    open_job(server, "a")
    publish_outcomes(server, success("a"), ttl=60)
    for key in (KEYS.result("a"), KEYS.job("a")):
        assert NOTICE_SECONDS - 60 < server.ttl(key) <= NOTICE_SECONDS


def test_a_worker_that_ends_a_claim_stores_the_entries_with_its_outcomes(server: redis.Redis, client: Client):
    client.submit_many("churn", [{"age": 41}] * 2, ids=["a", "b"], listen="orders")
    leases = Leases(server, KEYS)
    claim = leases.claim("w/1", [ClaimLimits(queue="predict.churn", jobs=10, bytes=10**6)], lease_ms=LEASE_MS)
    outcomes = {job: b'{"status":"SUCCESS","result":null,"task_id":"%b"}' % job.encode() for job in "ab"}
    for _ in range(2):  # the reply was lost, and the call repeated
        assert leases.publish(claim.lease, outcomes, ttl=60) == [True, True]
        assert sorted(stored_jobs(server)) == ["a", "b"]


def test_a_cancelled_and_a_purged_job_leave_an_entry(server: redis.Redis, client: Client):
    for job in "abc":
        client.submit("churn", {"age": 41}, id=job, listen="orders" if job != "c" else None)
    assert do(server, cancel(KEYS, "a", ttl=60, now=NOW))
    purge = QueuePurge(KEYS, "predict.churn", ttl=60)
    while not purge.finished:
        do(server, purge.step(NOW))
    assert sorted(stored_jobs(server)) == ["a", "b"]


@pytest.mark.parametrize("record_is_there", [True, False])
def test_a_replayed_job_is_told_again(server: redis.Redis, client: Client, record_is_there: bool):
    store_letter(server, make_letter("a"), make_message("a", listen="orders"))
    if record_is_there:
        server.set(KEYS.job("a"), encode_record())
    assert client.dead_letters.replay(ids=["a"]).done == 1
    assert open_ids(server) == {"a"}
    publish_outcomes(server, success("a"))
    assert stored_jobs(server) == ["a"]


def test_an_entry_of_a_job_that_runs_again_tells_nothing(server: redis.Redis, client: Client):
    open_job(server, "a")
    store_entry(server, "a")
    assert do(server, claim_entries(KEYS, "orders", limit=9, lease=9)).dropped == 1
    assert stored_entries(server) == []


def test_an_outcome_that_expired_is_told_as_none(server: redis.Redis, client: Client):
    store_entry(server, "a")
    (job,) = client.listen("orders", idle=0)
    assert (job.id, job.model, job.outcome, job.metadata) == ("a", "churn", None, {})


@pytest.mark.parametrize("stored", [b'{"status": "SUCCESS", "result": 1}', b'{"result": 1, "status": "FAILURE"}'])
def test_a_sweep_stores_the_entry_of_an_outcome_that_an_older_worker_stored(server: redis.Redis, stored: bytes):
    open_job(server, "a")
    open_job(server, "waiting")
    server.set(KEYS.result("a"), stored)
    server.zadd(KEYS.listen_open, {"expired": 1})
    assert do(server, sweep_entries(KEYS, 0)) == (0, 1)
    assert do(server, sweep_entries(KEYS, 0)) == (0, 0)
    assert (stored_jobs(server), open_ids(server)) == (["a"], {"waiting"})


def test_a_listener_gets_what_an_older_worker_ended(server: redis.Redis, client: Client):
    client.submit("churn", {"age": 41}, id="a", listen="orders")
    server.set(KEYS.result("a"), b'{"status":"SUCCESS","task_id":"a","result":{"model":"churn"}}')
    assert [job.id for job in client.listen("orders", idle=0)] == ["a"]


def test_names_do_not_mix(server: redis.Redis, client: Client):
    for name in ("a", "a-b", "ab", "A"):
        store_entry(server, f"job-of-{name}", name=name)
    for name in ("a", "a-b", "ab", "A"):
        assert [job.id for job in client.listen(name, idle=0)] == [f"job-of-{name}"]


def test_a_submit_is_refused_while_its_listeners_have_too_much_before_them(server: redis.Redis, redis_url: str):
    settings = Settings(redis_url=redis_url, listen_limit=2)
    with Client(settings=settings, check=False) as client:
        client.submit_many("churn", [{"age": 41}] * 2, ids=["a", "b"], listen="orders")
        store_entry(server, "other", name="orders-2")
        publish_outcomes(server, success("a"), success("b"))
        with pytest.raises(QueueFull, match="HEADRACE_LISTEN_LIMIT"):
            client.submit("churn", {"age": 41}, id="c", listen="orders")
        assert not server.exists(KEYS.job("c"))
        client.submit("churn", {"age": 41}, id="a", listen="orders")  # a repeat is none more
        client.submit("churn", {"age": 41}, id="d", listen="orders-2")
        client.submit("churn", {"age": 41}, id="e")
        assert len(list(client.listen("orders", idle=0))) == 2
        client.submit("churn", {"age": 41}, id="c", listen="orders")


@pytest.mark.parametrize("name", ["", "a b", "a:b", "x" * 33, 7])
def test_a_bad_name_is_refused(client: Client, name: Any):
    with pytest.raises(InvalidInput, match="`listen` is a name of 1 to 32"):
        client.submit("churn", {"age": 41}, listen=name)
    with pytest.raises(InvalidInput, match="`name` is a name of 1 to 32"):
        client.listen(name)


def test_a_call_that_waits_has_no_listeners(client: Client):
    with pytest.raises(InvalidInput, match="`predict` returns the outcome itself"):
        client.predict("churn", {"age": 41}, listen="orders")


def test_all_of_it_is_in_one_slot_of_a_cluster(server: redis.Redis):
    keys = Keys("{installation}:")
    server.set(keys.job("a"), encode_record())
    server.zadd(keys.listen_open, {"a": 1})
    execute(server, publish_command(keys, [success("a")], ttl=60, now=NOW))
    assert [entry.job for entry in stored_entries(server, keys)] == ["a"]
    assert all(key.startswith(b"{installation}:") for key in server.scan_iter())
    assert do(server, claim_entries(keys, "orders", limit=1, lease=1)).jobs[0][1].id == "a"


@pytest.mark.parametrize(
    ("deliveries", "expected"),
    [({"a": 0, "b": 0, "c": 1, "d": 1, "e": 0}, ["abe", "c", "d"]), ({"a": 1, "b": 0, "c": 0}, ["a", "bc"])],
)
def test_an_entry_that_was_delivered_before_is_claimed_alone(
    server: redis.Redis, deliveries: dict[str, int], expected: list[str]
):
    for job, count in deliveries.items():
        store_entry(server, job, due_ms=ord(job), deliveries=count)
    claims = []
    while claimed := do(server, claim_entries(KEYS, "orders", limit=64, lease=60)).jobs:
        claims.append("".join(job.id for _, job in claimed))
    assert claims == expected


def test_text_that_is_no_entry_is_removed(server: redis.Redis):
    texts = [b"orders:00 made up", b"orders:0:0", b"orders:0000000000001:0:churn:\xff"]
    server.zadd(KEYS.listen_due, dict.fromkeys(texts, 0))
    assert do(server, claim_entries(KEYS, "orders", limit=9, lease=9)).jobs == ()
    assert not server.exists(KEYS.listen_due)
