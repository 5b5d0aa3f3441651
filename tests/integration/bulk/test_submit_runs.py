"""Runs are submitted once for each name, and read, listed, resumed and cancelled without a worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redis

from headrace import InvalidInput, RunConflict, Settings, UnknownModel, UnknownRun
from headrace.bulk import cancel_run, failures_of, list_runs, make_run, read_run, resume_run, submit_run
from headrace.catalog.published import ContractCache, publish_contract
from headrace.clock import utc_now
from headrace.connection.commands import execute, run
from headrace.wire.bulk import Run, RunProgress
from headrace.wire.keys import Keys
from headrace.wire.parsing import parse
from headrace.wire.queues import bulk_queue_name
from tests.support.answering_worker import CHURN

KEYS = Keys()
PLANS = KEYS.lists(bulk_queue_name("churn"))[2]
Submit = Callable[..., RunProgress]


@pytest.fixture
def perform(server: redis.Redis) -> Callable[[Any], Any]:
    publish_contract(server, KEYS, CHURN)
    return partial(run, partial(execute, server))


@pytest.fixture
def submit(perform: Callable[[Any], Any]) -> Submit:
    return lambda run_: perform(
        submit_run(KEYS, run_, Settings(), None, contracts=ContractCache(KEYS, 0), now=utc_now())
    )


def nightly(**options: Any) -> Run:
    return make_run("churn", "in:rows/*.parquet", "out:scores", **{"name": "nightly", **options})


def plans(server: redis.Redis) -> list[str]:
    return [parse(message).to_job().id for message in reversed(server.lrange(PLANS, 0, -1))]


def test_a_run_is_submitted_as_one_plan_job(submit: Submit, server: redis.Redis) -> None:
    progress = submit(nightly(version="3"))
    assert (progress.state, progress.run, progress.chunks) == ("planning", nightly(version="3"), None)
    (message,) = server.lrange(PLANS, 0, -1)
    body = parse(message)
    assert body.args == ["churn", {"step": "plan", "run": json.loads(server.hget(KEYS.run("nightly"), "run"))}]
    assert json.loads(message)["headers"]["task"] == "headrace.bulk"


def test_a_run_that_is_submitted_again_is_one_run(submit: Submit, server: redis.Redis) -> None:
    assert submit(nightly()) == submit(nightly())
    assert plans(server) == ["nightly:plan"]


def test_a_name_with_other_arguments_is_a_conflict(submit: Submit, server: redis.Redis) -> None:
    submit(nightly())
    with pytest.raises(RunConflict, match="'nightly' exists with another key"):
        submit(nightly(key="customer"))
    assert plans(server) == ["nightly:plan"]


@pytest.mark.parametrize("state", ["failure", "cancelled"])
def test_submitting_a_run_that_ended_badly_resumes_it(submit: Submit, server: redis.Redis, state: str) -> None:
    submit(nightly())
    server.hset(KEYS.run("nightly"), mapping={"state": state, "is_stopped": 1, "error": "x", "ended_ms": 1})
    progress = submit(nightly())
    assert (progress.state, progress.round, progress.is_stopped) == ("planning", 2, False)
    assert (progress.error, progress.ended_ms) == (None, None)
    assert plans(server) == ["nightly:plan", "nightly:plan-2"]


def test_a_run_that_succeeded_is_not_run_again(submit: Submit, perform: Any, server: redis.Redis) -> None:
    submit(nightly())
    server.hset(KEYS.run("nightly"), "state", "success")
    assert submit(nightly()).state == "success"
    assert perform(resume_run(KEYS, "nightly", Settings(), None)).state == "success"
    assert plans(server) == ["nightly:plan"]


def test_a_cancelled_run_is_stopped_and_stays_so(submit: Submit, perform: Any) -> None:
    submit(nightly())
    cancelled = perform(cancel_run(KEYS, "nightly"))
    assert (cancelled.state, cancelled.is_stopped) == ("cancelled", True)
    assert perform(cancel_run(KEYS, "nightly")) == cancelled


def test_runs_are_listed_newest_first_and_by_model(submit: Submit, perform: Any, server: redis.Redis) -> None:
    names = [f"run-{number:03}" for number in range(130)]
    for number, name in enumerate(names):
        submit(nightly(name=name))
        server.zadd(KEYS.runs, {name: 10**13 + number})
    assert [each.run.name for each in perform(list_runs(KEYS, limit=3))] == ["run-129", "run-128", "run-127"]
    assert len(perform(list_runs(KEYS, limit=1000))) == len(names)
    assert perform(list_runs(KEYS, model="other")) == []
    server.hset(KEYS.run("run-129"), "run", "{")
    assert [each.run.name for each in perform(list_runs(KEYS, limit=1))] == ["run-128"]


def test_failures_are_counted_by_reason_and_name_the_chunks(
    submit: Submit, perform: Any, server: redis.Redis
) -> None:
    submit(nightly())
    server.hset(KEYS.run("nightly"), mapping={"reason:bad input": 2, "reason:crash": 3})
    failure = '{"job":"nightly:%d","reason":"bad input","message":"changed"}'
    server.hset(KEYS.receipts("nightly"), mapping={"!10": failure % 10, "!9": failure % 9, "1": '{"rows":1}'})
    failures = perform(failures_of(KEYS, "nightly"))
    assert failures.reasons == {"crash": 3, "bad input": 2}
    assert [(each.chunk, each.job) for each in failures.chunks] == [("9", "nightly:9"), ("10", "nightly:10")]


def test_runs_that_are_not_there_are_named(submit: Submit, perform: Any) -> None:
    for operation in (read_run, cancel_run, failures_of):
        with pytest.raises(UnknownRun, match="'nightly'"):
            perform(operation(KEYS, "nightly"))
    with pytest.raises(UnknownModel, match="other"):
        submit(make_run("other", "in:a", "out:b"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"input_": "s3://bucket/x"},
        {"input_": "/etc/passwd"},
        {"input_": "in:/etc/passwd"},
        {"input_": "in:a/../../etc/passwd"},
        {"input_": "in:a\\b"},
        {"input_": "in:a\nb"},
        {"input_": "in:" + "a" * 2000},
        {"input_": 7},
        {"output": "out:*.parquet"},
        {"output": "out:scores/_headrace"},
        {"output": "out:"},
        {"name": "a/b"},
        {"name": "a:b"},
        {"name": ""},
        {"keep": "age"},
        {"keep": [""]},
        {"max_failed": -1},
        {"max_failed": float("nan")},
        {"max_failed": "101%"},
        {"max_failed": True},
        {"version": ""},
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        make_run("churn", **{"input_": "in:rows", "output": "out:scores", **arguments})


@pytest.mark.parametrize(("text", "number"), [("1%", 0.01), ("100", 100.0), (0.5, 0.5), (7, 7.0), (None, None)])
def test_the_most_failed_rows_are_a_number_or_a_share(text: Any, number: float | None) -> None:
    assert nightly(max_failed=text).max_failed == number
