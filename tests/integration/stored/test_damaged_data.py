"""One damaged thing in Redis is named, and neither hides the others nor ends a thread or a claim."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import redis

from headrace import Client, HeadraceError, Settings
from headrace.catalog import aliases, published, workers
from headrace.catalog.aliases import Alias
from headrace.connection.commands import execute
from headrace.errors import ModelError, StoredDataError
from headrace.monitor.activity import decode_events
from headrace.wire import stored
from headrace.wire.keys import Keys
from headrace.wire.outcome import decode_by_job, decode_lines
from headrace_worker import manifest
from headrace_worker.rollout import version_stats
from headrace_worker.rollout.version_stats import VersionStats
from headrace_worker.telemetry.queue_metrics import QueueCollector
from tests.support.answering_worker import CHURN
from tests.support.lease_operations import success
from tests.support.stored_dead_letters import list_ids, make_letter, store_letter

KEYS = Keys()
#: What somebody may have stored: no UTF-8, text with a wrong byte, cut JSON, other types, deep JSON, nothing.
DAMAGED = [b"\xff", b'{"m":"\xff"}', b'{"version":', b"[]", b"null", b'"text"', b"[" * 100_000, b""]


@pytest.fixture(autouse=True)
def _log_each_name_again() -> None:
    stored._log_once.cache_clear()


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_alias_and_a_damaged_change_hide_no_other(
    server: redis.Redis, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    move = aliases.move_alias(KEYS, "churn", "production", None, Alias(version="1"), by="me", reason="")
    execute(server, move)
    server.hset(KEYS.aliases("churn"), "canary", damaged)
    server.hset(KEYS.aliases("churn"), b"\xff", b'{"version":"2"}')
    server.lpush(KEYS.alias_history("churn"), damaged)
    with caplog.at_level(logging.WARNING, "headrace.stored"):
        current = aliases.decode_aliases("churn", execute(server, aliases.read_aliases(KEYS, "churn")))
        history = aliases.decode_history("churn", execute(server, aliases.read_history(KEYS, "churn")))
    assert current.by_name == {"production": Alias(version="1")}
    assert [change.alias for change in history] == ["production"]
    assert "canary of the aliases of churn" in caplog.text
    assert "change 1 of the history of churn's aliases" in caplog.text


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_report_of_a_worker_hides_no_other(
    server: redis.Redis, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    execute(server, workers.publish_status(KEYS, "churn", "one", ["1"], {"2": "broken"}))
    server.hset(KEYS.loaded("churn"), "two", damaged)
    server.hset(KEYS.refused("churn"), "3", damaged)
    with caplog.at_level(logging.WARNING, "headrace.stored"):
        loaded = workers.decode_loaded("churn", execute(server, workers.read_loaded(KEYS, "churn")), 0)
        refused = workers.decode_refused("churn", execute(server, workers.read_refused(KEYS, "churn")), 0)
    assert (list(loaded), list(refused)) == (["one"], ["2"])
    assert "two of the workers of churn" in caplog.text
    assert "3 of the refused versions of churn" in caplog.text


@pytest.mark.parametrize("damaged", [b"\xff", b"nan", b"inf", b"text", b""])
def test_a_damaged_statistic_hides_no_other(
    server: redis.Redis, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    stats = VersionStats(succeeded=2, failed=1, jobs_by_bucket={3: 3})
    execute(server, version_stats.add_command(KEYS, "churn", "1", stats))
    server.hset(KEYS.version_stats("churn", "1"), "failed", damaged)
    server.hset(KEYS.version_stats("churn", "1"), "t\u00b2", 1)
    with caplog.at_level(logging.WARNING, "headrace.stored"):
        reply = execute(server, version_stats.read_command(KEYS, "churn", "1"))
        decoded = version_stats.decode_stats("churn@1", reply)
    assert (decoded.succeeded, decoded.failed, decoded.jobs_by_bucket) == (2, 0, {3: 3})
    assert "failed of the statistics of churn@1" in caplog.text


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_contract_is_named_and_the_other_models_are_used(
    redis_url: str, server: redis.Redis, damaged: bytes
) -> None:
    published.publish_contract(server, KEYS, CHURN)
    server.hset(KEYS.contracts("other"), mapping={"latest": "1", "1": damaged, b"\xff": b"x"})
    server.sadd(KEYS.models, "other", b"\xff", "not a name")
    with Client(redis_url) as client:
        assert client.models() == ["churn", "other"]
        assert client.contract("churn") == CHURN
        with pytest.raises(StoredDataError, match="the contract of model 'other'"):
            client.contract("other")
        with pytest.raises(HeadraceError, match="has no version"):
            client.contract("other@9")
        client.submit("churn", {"age": 41})


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_record_or_outcome_is_named_and_hides_no_other_job(
    redis_url: str, server: redis.Redis, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server.set(KEYS.job("a"), b"d" * 12 + damaged)
    server.set(KEYS.result("b"), damaged)
    server.set(KEYS.result("c"), success("c"))
    with Client(settings=Settings(redis_url=redis_url)) as client, caplog.at_level(logging.WARNING):
        assert client.job("a").status() in {"unknown", "waiting"}
        if damaged:
            assert "the record of job a" in caplog.text
            assert client.job("b").status() == "failure"
        client.job("a").explain()
        client.job("b").explain()
        finished = client.as_completed([client.job("c"), client.job("b")], timeout=5) if damaged else []
        assert {job.id for job in finished} == ({"b", "c"} if damaged else set())


@pytest.mark.parametrize("damaged", DAMAGED)
def test_damaged_lines_of_a_reply_channel_hide_no_other(damaged: bytes) -> None:
    message = damaged + b"\n" + success("c") + b"\n" + damaged
    assert [outcome.job for outcome in decode_lines(message)] == ["c"]
    assert list(decode_by_job({"c": success("c"), "d": object()})) == ["c"]
    assert list(decode_events(damaged)) == []
    assert list(decode_events(b'{"body": "' + damaged[:50] + b'"}')) == []


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_dead_letter_is_listed_and_can_be_purged(
    redis_url: str, server: redis.Redis, damaged: bytes
) -> None:
    store_letter(server, make_letter("good"))
    store_letter(server, make_letter("bad"))
    server.hset(KEYS.dead, "bad", damaged)
    server.zadd(KEYS.dead_times, {b"\xff": 1})
    with Client(redis_url) as client:
        assert set(list_ids(client)) >= {"good", "bad"}
        assert client.dead_letters.show("bad").error == "InvalidLetter"
        assert client.dead_letters.purge(ids=["bad"]).done == 1


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_manifest_is_a_model_error_that_names_the_version(damaged: bytes) -> None:
    with pytest.raises(ModelError, match=r"churn@7"):
        manifest.decode(damaged, "churn@7")


def metrics_of(server: redis.Redis) -> dict[str, list[Any]]:
    return {family.name: family.samples for family in QueueCollector(lambda: server).collect()}


@pytest.mark.parametrize("key", ["predict.churn", KEYS.delayed("predict.churn"), KEYS.isolated("predict.churn")])
def test_a_list_of_another_type_hides_no_other_queue(
    redis_url: str, server: redis.Redis, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.sadd(KEYS.models, "churn", "other")
    server.lpush("predict.other", b"a", b"b")
    server.hset(key, "not", "ours")
    with Client(redis_url) as client, caplog.at_level(logging.WARNING, "headrace.stored"):
        assert [(queue.model, queue.waiting) for queue in client.queues()] == [("churn", 0), ("other", 2)]
    assert "a list of predict.churn cannot be read" in caplog.text


@pytest.mark.parametrize("key", [KEYS.loaded("churn"), KEYS.refused("churn")])
def test_a_key_of_another_type_hides_no_other_metric_of_the_exporter(server: redis.Redis, key: str) -> None:
    for model in ("churn", "other"):
        server.sadd(KEYS.models, model)
    execute(server, workers.publish_status(KEYS, "other", "one", ["1"], {}))
    server.delete(key)
    server.set(key, "text")
    samples = metrics_of(server)
    assert [sample.value for sample in samples["headrace_redis_up"]] == [1.0]
    assert [sample.labels["model"] for sample in samples["headrace_model_workers"]] == ["other"]
