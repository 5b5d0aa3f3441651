"""Jobs are enqueued once, whole and checked, or not at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import redis

from headrace import Client
from headrace.catalog.contract import Feature, Named
from headrace.catalog.published import publish_contract
from headrace.connection.connect import connect
from headrace.errors import InvalidInput, JobCancelled, JobConflict, QueueFull, UnknownModel
from headrace.settings import Settings
from headrace.wire.keys import Keys
from headrace.wire.outcome import Prediction, Success
from headrace.wire.record import decode_record
from tests.support.answering_worker import CHURN, AnsweringWorker, publish_outcomes

AGE = {"age": 41}


@pytest.fixture
def client(redis_url: str, server: redis.Redis) -> Iterator[Client]:
    publish_contract(server, Keys(), CHURN)
    with Client(redis_url) as client:
        yield client


def waiting(server: redis.Redis, name: str = "predict.churn") -> list[dict[str, Any]]:
    return [json.loads(raw) for raw in server.lrange(name, 0, -1)]


def calls(server: redis.Redis, command: str) -> int:
    return int(server.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))


def test_a_submitted_job_waits_in_the_queue_of_its_model(client: Client, server: redis.Redis):
    job = client.submit("churn", AGE)
    (message,) = waiting(server)
    assert message["headers"]["id"] == job.id
    assert (job.model, job.status()) == ("churn", "waiting")


def test_a_job_submitted_twice_is_one_job(client: Client, server: redis.Redis):
    for _ in range(3):
        assert client.submit("churn", AGE, id="order-1").id == "order-1"
    assert len(waiting(server)) == 1


@pytest.mark.parametrize("other", [{"age": 42}, {"age": 41.5}])
def test_an_id_with_other_input_is_a_conflict(client: Client, server: redis.Redis, other: dict[str, Any]):
    client.submit("churn", AGE, id="order-1")
    with pytest.raises(JobConflict, match="order-1"):
        client.submit("churn", other, id="order-1")
    assert len(waiting(server)) == 1


def test_a_hundred_threads_with_one_id_make_one_job(client: Client, server: redis.Redis):
    threads = [threading.Thread(target=client.submit, args=("churn", AGE), kwargs={"id": "a"}) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(waiting(server)) == 1


def test_submit_is_one_round_trip(client: Client, server: redis.Redis):
    client.submit("churn", AGE)
    server.config_resetstat()
    for _ in range(10):
        client.submit("churn", AGE)
    assert calls(server, "evalsha") + calls(server, "fcall") == 10
    assert calls(server, "eval") == calls(server, "hgetall") == calls(server, "script|load") == 0


def test_a_script_that_the_server_no_longer_has_is_sent_again(client: Client, server: redis.Redis):
    client.submit("churn", AGE)
    server.script_flush()
    client.submit("churn", AGE)
    assert len(waiting(server)) == 2


@pytest.mark.parametrize(
    ("priority", "name"), [(0, ""), (2, ""), (3, "\x06\x163"), (8, "\x06\x166"), (9, "\x06\x169")]
)
def test_a_priority_selects_kombus_list(client: Client, server: redis.Redis, priority: int, name: str):
    client.submit("churn", AGE, priority=priority)
    assert server.llen("predict.churn" + name) == 1


def test_jobs_of_one_call_keep_their_order(client: Client, server: redis.Redis):
    jobs = client.submit_many("churn", [{"age": age} for age in range(700)])
    waiting_ids = [message["headers"]["id"] for message in waiting(server)]
    assert waiting_ids[::-1] == [job.id for job in jobs]


def test_jobs_of_one_call_may_have_ids_of_the_caller(client: Client, server: redis.Redis):
    for _ in range(2):
        jobs = client.submit_many("churn", iter([AGE, AGE]), ids=iter(["a", "b"]), priority=9)
    assert [job.id for job in jobs] == ["a", "b"]
    assert server.llen("predict.churn\x06\x169") == 2


@pytest.mark.parametrize("ids", [["a"], ["a", "b", "c"]])
def test_a_call_needs_as_many_ids_as_instances(client: Client, server: redis.Redis, ids: list[str]):
    with pytest.raises(InvalidInput, match="2 instances"):
        client.submit_many("churn", [AGE, AGE], ids=ids)
    assert waiting(server) == []
    with pytest.raises(InvalidInput, match="`ids` than instances"):
        client.submit_many("churn", iter([AGE, AGE]), ids=iter(ids))


def test_a_call_without_instances_makes_no_jobs(client: Client):
    assert client.submit_many("churn", []) == []
    assert client.submit_many("churn", iter(())) == []
    with pytest.raises(InvalidInput, match="at least one"):
        client.submit("churn", instances=[])


def test_nothing_of_a_list_with_a_bad_instance_is_enqueued(client: Client, server: redis.Redis):
    with pytest.raises(InvalidInput, match="instance 999: feature 'age'"):
        client.submit_many("churn", [AGE] * 999 + [{"age": "x"}])
    assert waiting(server) == []


def test_the_chunks_of_an_iterator_before_a_bad_instance_are_enqueued(client: Client, server: redis.Redis):
    with pytest.raises(InvalidInput, match="instance 999:") as caught:
        client.submit_many("churn", iter([AGE] * 999 + [{"age": "x"}]))
    assert len(waiting(server)) == 750
    assert caught.value.__notes__ == ["750 jobs of the same call were enqueued before"]


def test_an_oversized_job_is_refused_before_anything_is_enqueued(redis_url: str, server: redis.Redis):
    with Client(settings=Settings(redis_url=redis_url, max_job_bytes=1000), check=False) as client:
        for submit in (
            lambda big: client.submit("churn", big),
            lambda big: client.submit_many("churn", [AGE, big]),
        ):
            with pytest.raises(InvalidInput, match="HEADRACE_MAX_JOB_BYTES"):
                submit({"age": "x" * 1000})
    assert waiting(server) == []


def test_large_jobs_are_sent_in_several_calls(redis_url: str, server: redis.Redis):
    with Client(redis_url, check=False) as client:
        server.config_resetstat()
        client.submit_many("churn", [["x" * 500_000]] * 6)
    assert calls(server, "evalsha") + calls(server, "eval") + calls(server, "fcall") >= 3
    assert len(waiting(server)) == 6


def test_an_unknown_model_is_refused_with_a_suggestion(client: Client, server: redis.Redis):
    with pytest.raises(UnknownModel, match="did you mean 'churn'"):
        client.submit("chrun", AGE)
    with pytest.raises(UnknownModel, match="has no version '9'; it has 3"):
        client.submit("churn", AGE, version="9")
    assert server.keys("predict.*") == []


def test_without_any_contract_the_error_says_what_to_do(redis_url: str):
    with Client(redis_url) as client, pytest.raises(UnknownModel, match="start `headrace worker`"):
        client.submit("churn", AGE)


def test_unchecked_jobs_need_no_contract(redis_url: str, server: redis.Redis):
    with Client(redis_url, check=False) as client:
        client.submit("anything", {"x": "y"})
    assert server.llen("predict.anything") == 1


def test_a_contract_that_refuses_is_read_again_first(client: Client, server: redis.Redis):
    client.submit("churn", AGE)
    publish_contract(
        server,
        Keys(),
        msgspec.structs.replace(CHURN, version="4", input=Named(features=(Feature(name="years", kind="number"),))),
    )
    client.submit("churn", {"years": 4})
    with pytest.raises(InvalidInput, match="churn@4: instance 0: no feature 'age'"):
        client.submit("churn", AGE)
    client.submit("churn", AGE, version="3")


def test_a_version_published_late_does_not_become_the_newest(client: Client, server: redis.Redis):
    for version in ("10", "9"):
        publish_contract(server, Keys(), msgspec.structs.replace(CHURN, version=version))
    assert client.contract("churn").version == "10"
    assert client.contract("churn", "9").version == "9"


def test_a_contract_is_cached(client: Client, server: redis.Redis):
    client.submit("churn", AGE)
    server.config_resetstat()
    client.submit_many("churn", iter([AGE] * 1000))
    assert calls(server, "hget") == 0


def test_a_contract_that_cannot_be_read_says_so(client: Client, server: redis.Redis):
    server.hset("headrace:contracts:churn", "3", b'{"of the": "future"}')
    with pytest.raises(Exception, match="upgrade this one"):
        client.submit("churn", AGE)


def test_a_full_queue_refuses_jobs_and_lists_the_accepted(redis_url: str, server: redis.Redis):
    settings = Settings(redis_url=redis_url, queue_limit=300)
    with Client(settings=settings, check=False) as client:
        with pytest.raises(QueueFull, match=r"predict\.churn holds 300 jobs.*HEADRACE_QUEUE_LIMIT") as caught:
            client.submit_many("churn", [AGE] * 1000, ids=[f"j{number}" for number in range(1000)])
        assert caught.value.accepted == tuple(f"j{number}" for number in range(300))
        assert client.submit("churn", AGE, id="j7").id == "j7", "a repeated job takes no room"
        with pytest.raises(QueueFull):
            client.submit("churn", AGE, priority=9)
        client.submit("other", AGE)
    assert len(waiting(server)) == 300


def test_a_cancelled_job_stays_cancelled(client: Client, server: redis.Redis):
    job = client.submit("churn", AGE)
    assert job.cancel()
    assert job.cancel(), "a second cancellation is no error"
    prediction = Success(job=job.id, prediction=Prediction(model="churn", version="3", predictions=[1]))
    assert publish_outcomes(server, prediction) == [0]
    assert job.status() == "cancelled"
    with pytest.raises(JobCancelled):
        job.result(timeout=5)


def test_a_job_with_an_outcome_cannot_be_cancelled(client: Client, redis_url: str):
    with AnsweringWorker(redis_url):
        job = client.submit("churn", AGE)
        job.result(timeout=10)
    assert not client.job(job.id).cancel()
    assert client.job(job.id).status() == "success"


def test_the_status_of_a_job_follows_it(client: Client, server: redis.Redis):
    assert client.job("never-submitted").status() == "unknown"
    job = client.submit("churn", AGE, delay=timedelta(hours=1))
    handle = client.job(job.id)
    assert (handle.model, handle.status(), handle.model) == (None, "waiting", "churn")
    server.set(f"celery-task-meta-{job.id}", b'{"status": "STARTED", "result": {"pid": 1}, "task_id": "x"}')
    assert job.status() == "running"
    assert not job.done()
    publish_outcomes(
        server, Success(job=job.id, prediction=Prediction(model="churn", version="3", predictions=[1]))
    )
    assert job.status() == "success"
    assert job.done()


def test_queue_depths_are_by_model_and_priority(client: Client):
    client.submit_many("churn", [AGE] * 3)
    client.submit("churn", AGE, priority=9)
    (depth,) = client.queues()
    assert (depth.model, depth.queue, depth.waiting) == ("churn", "predict.churn", 4)
    assert depth.by_priority == {0: 3, 3: 0, 6: 0, 9: 1}
    assert client.models() == ["churn"]


def test_without_models_there_are_no_queues(redis_url: str):
    with Client(redis_url) as client:
        assert client.queues() == []


def test_installations_with_different_prefixes_are_separate(redis_url: str, server: redis.Redis):
    settings = Settings(redis_url=redis_url, key_prefix="shop:")
    with connect(settings) as prefixed:
        publish_contract(prefixed, Keys("shop:"), CHURN)
    with Client(settings=settings) as client, AnsweringWorker(redis_url, keys=Keys("shop:")):
        assert client.predict("churn", AGE, timeout=10).prediction == 82
    assert all(name.startswith(b"shop:") for name in server.scan_iter())


def test_a_record_lives_as_long_as_the_settings_say(client: Client, server: redis.Redis):
    job = client.submit("churn", AGE, metadata={"batch": "7"})
    record = decode_record(job.id, server.get(Keys().job(job.id)))
    assert record.model == "churn"
    assert record.metadata == {"batch": "7"}
    assert 6 * 86_400 < server.ttl(Keys().job(job.id)) <= 7 * 86_400
    publish_outcomes(
        server, Success(job=job.id, prediction=Prediction(model="churn", version="3", predictions=[1])), ttl=100
    )
    assert 90 < server.ttl(Keys().job(job.id)) <= 100
    assert 90 < server.ttl(f"celery-task-meta-{job.id}") <= 100


def test_the_record_holds_the_owner_and_the_notice_of_every_job_of_a_call(client: Client, server: redis.Redis):
    handles = client.submit_many("churn", [AGE, AGE], owner="shop", notify="orders")
    for handle in (*handles, client.submit("churn", AGE, owner="shop", notify="orders")):
        record = decode_record(handle.id, server.get(Keys().job(handle.id)))
        assert (record.owner, record.notify) == ("shop", "orders")


def test_every_key_of_a_job_expires(client: Client, server: redis.Redis, redis_url: str):
    with AnsweringWorker(redis_url):
        client.predict("churn", AGE, timeout=10)
    for key in server.scan_iter():
        assert key in {b"headrace:models", b"headrace:contracts:churn"} or server.ttl(key) > 0, key


def test_the_environment_names_the_redis_and_an_argument_overrides_it(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HEADRACE_REDIS_URL", redis_url)
    with Client(check=False) as client:
        assert client.models() == []
    monkeypatch.setenv("HEADRACE_REDIS_URL", "redis://127.0.0.1:1/0")
    with Client(redis_url, check=False) as client:
        assert client.models() == []
