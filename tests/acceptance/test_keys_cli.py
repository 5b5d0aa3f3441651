"""`headrace keys`: what an operator types, and what he reads."""

from __future__ import annotations

import json
import re

import pytest
import redis

from headrace.catalog.api_keys import digest_api_key
from headrace.wire.keys import Keys
from tests.support.command import headrace

KEY = re.compile(r"hr_orders_[0-9A-Za-z]{43}\n")


def keys(redis_url: str, *arguments: str) -> str:
    """Run a command that succeeds, and return what it prints on standard output."""
    ran = headrace("keys", *arguments, HEADRACE_REDIS_URL=redis_url)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_key_is_printed_alone_and_once(redis_url: str, server: redis.Redis):
    limits = ("--models", "churn, prices", "--scopes", "predict,jobs", "--rate", "500/s", "--waiting", "200")
    limits += ("--max-rows", "64", "--priority", "3", "--notify", "orders")
    ran = headrace("keys", "add", "orders", *limits, HEADRACE_REDIS_URL=redis_url)
    assert KEY.fullmatch(ran.stdout)
    assert ran.stderr == (
        "orders: predict, jobs of churn, prices; at most 500/s jobs; 200 requests at once; 64 instances a job; "
        "priority 3 and later; notices to orders. The key is not shown again.\n"
    )
    (listed,) = map(json.loads, keys(redis_url, "list", "--json").splitlines())
    assert listed.pop("secrets")
    assert listed.pop("by")
    assert listed == {
        "name": "orders",
        "models": ["churn", "prices"],
        "scopes": ["predict", "jobs"],
        "rate": "500/s",
        "waiting": 200,
        "max_rows": 64,
        "priority": 3,
        "notify": ["orders"],
    }
    assert digest_api_key(ran.stdout.strip()) in server.hget(Keys().callers, "orders").decode()
    assert ran.stdout.strip().rpartition("_")[2] not in keys(redis_url, "list", "--json") + keys(redis_url, "list")


def test_a_key_is_rotated_changed_and_revoked(redis_url: str, server: redis.Redis):
    first = keys(redis_url, "add", "orders")
    second = keys(redis_url, "rotate", "orders")
    assert KEY.fullmatch(second)
    assert second != first
    table = keys(redis_url, "list").splitlines()
    assert table[0].split()[:3] == ["NAME", "KEYS", "NEWEST"]
    assert table[1].split()[:2] == ["orders", "2"]
    ran = headrace("keys", "revoke", "orders", "--old", HEADRACE_REDIS_URL=redis_url)
    assert ran.stderr == "1 old key of orders revoked\n"
    stored = server.hget(Keys().callers, "orders").decode()
    assert [digest_api_key(key.strip()) in stored for key in (first, second)] == [False, True]
    keys(redis_url, "change", "orders", "--rate", "20/h", "--models", "churn")
    keys(redis_url, "change", "orders", "--rate", "none")
    (listed,) = map(json.loads, keys(redis_url, "list", "--json").splitlines())
    assert (listed["rate"], listed["models"]) == (None, ["churn"])
    keys(redis_url, "revoke", "orders")
    assert not server.exists(Keys().callers)
    assert keys(redis_url, "list", "--json") == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "a.b"), "1 to 32 letters"),
        (("add", "a", "--models", ""), "--models is empty"),
        (("add", "a", "--models", "no such"), "a model's name is"),
        (("add", "a", "--scopes", "predicts"), "no scope 'predicts'; did you mean 'predict'?"),
        (("add", "a", "--rate", "5/d"), "a rate is 1 to 1,000,000 jobs"),
        (("add", "a", "--notify", "https://x"), "`notify` is a name"),
        (("revoke", "a"), "there is no caller 'a'"),
    ],
)
def test_a_mistake_changes_nothing_and_says_what_to_do(
    redis_url: str, server: redis.Redis, arguments: tuple[str, ...], message: str
):
    ran = headrace("keys", *arguments, HEADRACE_REDIS_URL=redis_url)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert message in ran.stderr
    assert not server.exists(Keys().callers)
