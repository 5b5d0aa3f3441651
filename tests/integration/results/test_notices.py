"""The notice of an outcome is stored in the step that stores the outcome, whoever ends the job, and only once."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import redis

from headrace import Client
from headrace.connection.commands import Command, execute, run
from headrace.outcome import Cancelled, Expired, Failure, Outcome
from headrace.results.cancellation import cancel
from headrace.results.notice_scripts import sweep_page
from headrace.results.publish import publish_command
from headrace.results.purge import QueuePurge
from headrace.wire.keys import Keys
from headrace.wire.notice import NOTICE_SECONDS
from headrace_worker.transport.claims import ClaimLimits
from headrace_worker.transport.leases import Leases
from tests.support.answering_worker import publish_outcomes, success
from tests.support.lease_operations import LEASE_MS
from tests.support.stored_dead_letters import make_letter, make_message, store_letter
from tests.support.stored_notices import encode_record, open_job, stored_notices

KEYS = Keys()
NOW = datetime(2026, 11, 30, tzinfo=UTC)
FAILURE = Failure(job="a", reason="permanent", error="ValueError", module="builtins", message="no")


@pytest.fixture
def client(redis_url: str):
    with Client(redis_url, check=False) as client:
        yield client


def open_ids(server: redis.Redis) -> set[str]:
    return {member.decode() for member in server.zrange(KEYS.notices_open, 0, -1)}


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (success("a"), "success"),
        (FAILURE, "failure"),
        (Cancelled(job="a"), "cancelled"),
        (Expired(job="a"), "expired"),
    ],
)
def test_each_kind_of_outcome_leaves_its_notice(
    server: redis.Redis, client: Client, outcome: Outcome, status: str
):
    client.submit("churn", instances=[{"age": 41}], id="a", notify="orders", metadata={"order": "4711"})
    assert (open_ids(server), stored_notices(server)) == ({"a"}, {})
    assert publish_outcomes(server, outcome) == [1]
    (notice,) = stored_notices(server).values()
    assert (notice.id, notice.endpoint, notice.content.status) == (f"a.{status}", "orders", status)
    assert notice.content.record.metadata == {"order": "4711"}
    assert (open_ids(server), notice.attempts) == (set(), ())


def test_a_second_outcome_leaves_no_second_notice(server: redis.Redis):
    open_job(server, "a")
    assert publish_outcomes(server, success("a"), Cancelled(job="a"), FAILURE) == [1, 0, 0]
    assert set(stored_notices(server)) == {"a.success"}


def test_a_job_without_a_notice_leaves_none_beside_those_that_have(server: redis.Redis, client: Client):
    client.submit("churn", instances=[{"age": 41}], id="quiet")
    client.submit("churn", instances=[{"age": 41}], id="loud", notify="orders")
    publish_outcomes(server, success("quiet"), success("loud"), success("unknown"))
    assert set(stored_notices(server)) == {"loud.success"}


def test_many_jobs_of_one_call_are_accepted_with_their_notices(server: redis.Redis, client: Client):
    handles = client.submit_many("churn", [[{"age": age}] for age in range(300)], notify="orders")
    jobs = {handle.id for handle in handles}
    assert open_ids(server) == jobs
    publish_outcomes(server, *(success(job) for job in jobs))
    assert set(stored_notices(server)) == {f"{job}.success" for job in jobs}
    assert not server.exists(KEYS.notices_open)


def test_a_repeat_of_a_job_that_has_ended_opens_no_notice(server: redis.Redis, client: Client):
    options = {"instances": [{"age": 41}], "id": "a", "notify": "orders"}
    client.submit("churn", **options)
    publish_outcomes(server, success("a"))
    client.submit("churn", **options)
    assert open_ids(server) == set()


def test_an_outcome_with_a_notice_outlives_the_attempts_to_deliver_it(server: redis.Redis):
    open_job(server, "loud")
    server.set(KEYS.job("quiet"), encode_record(None))
    publish_outcomes(server, success("loud"), success("quiet"), ttl=60)
    assert server.ttl(KEYS.result("quiet")) <= 60
    for key in (KEYS.result("loud"), KEYS.job("loud")):
        assert NOTICE_SECONDS - 60 < server.ttl(key) <= NOTICE_SECONDS


def test_an_outcome_that_is_kept_for_longer_is_not_kept_for_less(server: redis.Redis):
    open_job(server, "a")
    publish_outcomes(server, success("a"), ttl=10 * NOTICE_SECONDS)
    assert server.ttl(KEYS.result("a")) > 9 * NOTICE_SECONDS


def test_a_worker_that_ends_a_claim_stores_the_notices_with_its_outcomes(server: redis.Redis, client: Client):
    for job in "ab":
        client.submit("churn", instances=[{"age": 41}], id=job, notify="orders")
    leases = Leases(server, KEYS)
    claim = leases.claim("w/1", [ClaimLimits(queue="predict.churn", jobs=10, bytes=10**6)], lease_ms=LEASE_MS)
    outcomes = {job: b'{"status":"SUCCESS","result":null,"task_id":"%b"}' % job.encode() for job in "ab"}
    assert leases.publish(claim.lease, outcomes, ttl=60) == [True, True]
    assert set(stored_notices(server)) == {"a.success", "b.success"}
    assert leases.publish(claim.lease, outcomes, ttl=60) == [
        True,
        True,
    ]  # the reply was lost, and the call repeated
    assert set(stored_notices(server)) == {"a.success", "b.success"}


def test_a_worker_that_lost_its_lease_stores_no_notice(server: redis.Redis, client: Client):
    client.submit("churn", instances=[{"age": 41}], id="a", notify="orders")
    leases = Leases(server, KEYS)
    claim = leases.claim("w/1", [ClaimLimits(queue="predict.churn", jobs=10, bytes=10**6)], lease_ms=LEASE_MS)
    leases.requeue(claim.lease)
    assert leases.publish(claim.lease, {"a": b'{"status":"SUCCESS"}'}, ttl=60) is None
    assert (open_ids(server), stored_notices(server)) == ({"a"}, {})


def test_a_cancelled_job_leaves_a_notice(server: redis.Redis):
    open_job(server, "a")
    run(lambda command: execute(server, command), cancel(KEYS, "a", ttl=60, now=NOW))
    assert set(stored_notices(server)) == {"a.cancelled"}


def test_a_purged_queue_leaves_a_notice_of_each_job(server: redis.Redis, client: Client):
    for job in "abc":
        client.submit("churn", instances=[{"age": 41}], id=job, notify="orders" if job != "c" else None)
    purge = QueuePurge(KEYS, "predict.churn", ttl=60)
    while not purge.finished:
        run(lambda command: execute(server, command), purge.step(NOW))
    assert purge.result.cancelled == 3
    assert set(stored_notices(server)) == {"a.cancelled", "b.cancelled"}


@pytest.mark.parametrize("record_is_there", [True, False])
def test_a_replayed_job_leaves_a_notice_again(server: redis.Redis, client: Client, record_is_there: bool):
    message = make_message("a", notify="orders")
    letter = make_letter("a")
    store_letter(server, letter, message)
    if record_is_there:
        server.set(KEYS.job("a"), encode_record())
    assert client.dead_letters.replay(ids=["a"]).done == 1
    assert open_ids(server) == {"a"}
    publish_outcomes(server, success("a"))
    assert set(stored_notices(server)) == {"a.success"}


def test_a_replayed_job_without_a_notice_leaves_none(server: redis.Redis, client: Client):
    store_letter(server, make_letter("a"), make_message("a"))
    assert client.dead_letters.replay(ids=["a"]).done == 1
    assert open_ids(server) == set()


def sweep(server: redis.Redis, start: int = 0):
    return run(lambda command: execute(server, command), sweep_page(KEYS, start))


@pytest.mark.parametrize(
    ("stored", "status"),
    [
        (b'{"status": "SUCCESS", "result": 1}', "success"),
        (b'{"result": 1, "status": "FAILURE"}', "failure"),
        (b'{"status": "REVOKED", "result": {"exc_message": ["revoked"]}}', "cancelled"),
        (b'{"status": "REVOKED", "result": {"exc_message": ["expired"]}}', "expired"),
    ],
)
def test_a_sweep_stores_the_notice_of_an_outcome_that_plain_celery_stored(
    server: redis.Redis, stored: bytes, status: str
):
    open_job(server, "a")
    server.set(KEYS.result("a"), stored)
    assert (sweep(server).stored, sweep(server).stored) == (1, 0)
    assert set(stored_notices(server)) == {f"a.{status}"}


@pytest.mark.parametrize("stored", [None, b'{"status": "STARTED"}'])
def test_a_sweep_leaves_a_job_that_has_not_ended(server: redis.Redis, stored: bytes | None):
    open_job(server, "a")
    if stored is not None:
        server.set(KEYS.result("a"), stored)
    page = sweep(server)
    assert (page.jobs, page.stored, page.removed) == (1, 0, 0)
    assert (open_ids(server), stored_notices(server)) == ({"a"}, {})


def test_a_sweep_removes_what_nobody_knows_any_more_and_ids_that_somebody_made_up(server: redis.Redis):
    open_job(server, "waiting")
    server.zadd(KEYS.notices_open, {"expired": 1, "made-up": 2, "x.y:z": 3})
    server.set(KEYS.job("made-up"), encode_record(None))
    server.set(KEYS.result("made-up"), b'{"status":"SUCCESS"}')
    page = sweep(server)
    assert (page.jobs, page.stored, page.removed) == (4, 0, 3)
    assert open_ids(server) == {"waiting"}


def test_all_of_it_is_in_one_slot_of_a_cluster(server: redis.Redis):
    keys = Keys("{installation}:")
    server.set(keys.job("a"), encode_record())
    server.zadd(keys.notices_open, {"a": 1})
    execute(server, publish_command(keys, [success("a")], ttl=60, now=NOW))
    assert [name.decode() for name in server.hkeys(keys.notices)] == ["a.success"]
    assert all(key.startswith(b"{installation}:") for key in server.scan_iter())
    assert execute(server, Command(("ZCARD", keys.notices_open))) == 0
