"""The scripts do what the model says: each stored trace of the model is replayed on a real Redis."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import redis

from headrace.connection.commands import Script
from headrace_worker.transport import claim_script, lease_scripts, publish_script
from tests.model_check.checker import find_missing_tool
from tests.model_check.replay import Difference, Replay
from tests.model_check.traces import parse_trace, read_traces, simulate

TRACES = read_traces()
#: Steps that the stored traces must have.
STEPS = {
    *(
        "submit",
        "cancel",
        "replay",
        "claim",
        "park",
        "blmove",
        "unblock",
        "renew",
        "publish",
        "requeue",
        "isolate",
    ),
    *("crash", "expire", "sweep", "move_due"),
}


@pytest.fixture
def replay(redis_url: str) -> Iterator[Replay]:
    with contextlib.closing(Replay(redis_url)) as replay:
        yield replay


def test_the_stored_traces_have_every_step() -> None:
    assert {step.name for text in TRACES.values() for step in parse_trace(text)} == STEPS


@pytest.mark.parametrize("name", TRACES)
def test_the_scripts_follow_a_trace_of_the_model(name: str, replay: Replay) -> None:
    replay.follow(parse_trace(TRACES[name]))


@pytest.mark.skipif(find_missing_tool() is not None, reason="spin or gcc is not installed")
@pytest.mark.parametrize("seed", [1001, 1002, 1003])
def test_the_scripts_follow_a_new_trace(seed: int, replay: Replay) -> None:
    """The stored traces are of the model as it was when they were stored; these are of the model as it is."""
    replay.follow(parse_trace(simulate(seed)))


def change(script: Script, before: str, after: str) -> Script:
    """Return a script with other text in one place."""
    assert script.source.count(before) == 1
    changed = Script("changed", script.source.replace(before, after), flag="allow-oom")
    del Script.every[changed.function]  # it is none of ours
    return changed


CHANGES = {
    "a sweep ends leases that are not expired": (
        lease_scripts,
        "_REQUEUE_ISOLATED",
        "return expiry and not (only_if_expired and tonumber(expiry) > now)",
        "return expiry",
    ),
    "a lost run is not counted": (
        lease_scripts,
        "_REQUEUE_ISOLATED",
        "redis.call('RPUSH', isolated, line .. (is_first_attempt and '\\n' or '') .. messages[i])",
        "redis.call('RPUSH', isolated, messages[i])",
    ),
    "a requeue forgets the list": (
        lease_scripts,
        "_REQUEUE",
        "redis.call(push, source_key(source), messages[number])",
        "local _ = push",
    ),
    "an empty lease leaves no fence": (lease_scripts, "_REQUEUE", "if is_fenced then", "if false then"),
    "a renewal brings a lost lease back": (
        lease_scripts,
        "_RENEW",
        "if redis.call('ZSCORE', leases, member) then",
        "if true then",
    ),
    "publishing ignores the fence": (
        publish_script,
        "PUBLISH",
        "if not checked('ZSCORE', leases, member) then",
        "if false then",
    ),
    "a claim records no lease": (
        claim_script,
        "CLAIM",
        "redis.call('ZADD', leases, now + lease_ms, member)",
        "local _ = member",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_a_script_is_a_difference(
    name: str, server: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, script, before, after = CHANGES[name]
    monkeypatch.setattr(module, script, change(getattr(module, script), before, after))
    assert any(_differs(text, redis_url, server) for text in TRACES.values())


def _differs(text: str, redis_url: str, server: redis.Redis) -> bool:
    """Replay a trace on the empty Redis. Returns whether the scripts do something else than the model."""
    server.flushall()
    with contextlib.closing(Replay(redis_url)) as replay:
        try:
            replay.follow(parse_trace(text))
        except Difference:
            return True
    return False
