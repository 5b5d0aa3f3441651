"""Anything may be stored as a moment: the commands that print moments print the nearest one that there is."""

from __future__ import annotations

import msgspec
import pytest
import redis

from headrace.wire.keys import Keys
from headrace.wire.record import DIGEST_BYTES, Record
from headrace_worker.store.store import Store
from tests.support.command import headrace
from tests.support.constant_models import add_constant
from tests.support.stock_worker import publish_stock_contract
from tests.support.stored_dead_letters import crashed_attempt, make_letter, make_message

KEYS = Keys()
#: Unix milliseconds: beyond the year 9999, and before the year 1.
MOMENTS = [10**15, 10**18, -(10**15)]


@pytest.fixture(autouse=True)
def url(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_REDIS_URL", redis_url)
    publish_stock_contract(redis_url)


@pytest.mark.parametrize("score", ["inf", "-inf", "1e300", "1e15"])
def test_dead_letters_that_died_at_no_moment_are_printed(score: str, server: redis.Redis):
    letter = make_letter("a", attempts=(crashed_attempt(10**15), crashed_attempt(-(10**15))))
    server.hset(KEYS.dead, "a", letter.encode())
    server.hset(KEYS.dead_messages, "a", make_message("a"))
    server.zadd(KEYS.dead_times, {"a": score})
    result = headrace("dead", "show", "a")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"died       {'1-01-01' if score == '-inf' else '9999-12-31'}" in result.stdout
    for command in (["explain", "a"], ["dead", "list"], ["dead", "list", "--all"]):
        result = headrace(*command)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_record_of_no_moment_is_explained(moment: int, server: redis.Redis):
    record = msgspec.json.encode(Record(model="churn", submitted_ms=moment, not_before_ms=moment))
    server.set(KEYS.job("a"), b"d" * DIGEST_BYTES + record)
    server.zadd(KEYS.delayed("predict.churn"), {b"5" + make_message("a"): moment})
    result = headrace("explain", "a")
    assert (result.returncode, result.stderr) == (0, "")
    assert "submitted" in result.stdout


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_change_and_a_pause_of_no_moment_are_printed(moment: int, server: redis.Redis, tmp_path):
    store = Store(tmp_path / "models")
    add_constant(store, tmp_path, "churn", 1.0)
    change = {"alias": "production", "version": "1", "by": "ann", "at_ms": moment}
    server.lpush(KEYS.alias_history("churn"), msgspec.json.encode(change))
    server.hset(KEYS.paused, "churn", msgspec.json.encode({"by": "ann", "at_ms": moment}))
    for command in (["models", "history", "churn", "--store", str(store.path)], ["queues"]):
        result = headrace(*command)
        assert (result.returncode, result.stderr) == (0, "")
        assert "ann" in result.stdout or "paused" in result.stdout
