"""Tests of the commands for single jobs: submit, status, result, cancel, queues."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import redis

from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.command import headrace
from tests.support.stock_worker import publish_stock_contract, start_stock_worker

GOLD = '{"age": 41, "plan": "gold"}'


@pytest.fixture(scope="module")
def _worker(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with start_stock_worker(redis_server.url, tmp_path_factory.mktemp("worker") / "log"):
        yield


@pytest.fixture
def url(redis_url: str, _worker: None) -> str:
    """Return the URL of a Redis with a worker that serves `churn`."""
    publish_stock_contract(redis_url)
    return redis_url


@pytest.fixture
def idle_url(redis_server: EmbeddedRedis) -> Iterator[str]:
    """Return the URL of another database of the server, without a worker."""
    url = redis_server.url.removesuffix("/0") + "/1"
    publish_stock_contract(url)
    yield url
    with redis.Redis.from_url(url) as client:
        client.flushdb()


def test_a_job_is_submitted_waited_for_and_has_a_status(url):
    submitted = headrace("submit", "churn", GOLD, "--url", url)
    assert submitted.returncode == 0, submitted.stderr
    job = submitted.stdout.strip()
    result = headrace("result", job, "--timeout", "20", "--url", url)
    assert (result.returncode, result.stdout) == (0, "82\n")
    assert headrace("status", job, "--url", url).stdout == "success\n"


def test_wait_prints_the_prediction(url):
    result = headrace("submit", "churn", "-", "--wait", "--timeout", "20", stdin=GOLD, HEADRACE_REDIS_URL=url)
    assert (result.returncode, result.stdout) == (0, "82\n")


def test_a_version_may_follow_the_name_of_the_model(url):
    result = headrace("submit", "churn@3", GOLD, "--timeout", "20", "--json", "--url", url)
    assert json.loads(result.stdout)["version"] == "3", result.stderr
    unknown = headrace("submit", "churn@9", GOLD, "--json", "--url", url)
    assert unknown.returncode == 1
    assert "'churn' has no version '9'" in unknown.stderr
    twice = headrace("submit", "churn@3", GOLD, "--version", "3", "--url", url)
    assert (twice.returncode, twice.stdout) == (1, "")
    assert "give one of them" in twice.stderr


def test_several_instances_are_one_job_and_json_has_all_predictions(url, tmp_path):
    file = tmp_path / "two.json"
    file.write_text(f"[{GOLD}, {GOLD}]")
    result = headrace("submit", "churn", str(file), "--id", "two", "--timeout", "20", "--json", "--url", url)
    assert json.loads(result.stdout) == {
        "id": "two",
        "model": "churn",
        "version": "3",
        "predictions": [82.0, 82.0],
    }


def test_a_failed_job_exits_3_and_prints_the_error(url):
    submitted = headrace("submit", "churn", '{"age": 1, "plan": "fail"}', "--id", "bad", "--url", url)
    assert submitted.stdout == "bad\n"
    result = headrace("result", "bad", "--timeout", "20", "--url", url)
    assert result.returncode == 3
    assert result.stdout == ""
    assert "ValueError: the model cannot" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_waiting_for_a_failure_exits_3_too(url):
    result = headrace("submit", "churn", '{"age": 1, "plan": "fail"}', "--timeout", "20", "--url", url)
    assert result.returncode == 3
    assert len(result.stderr.splitlines()) == 1


def test_a_timeout_exits_4(idle_url):
    result = headrace("submit", "churn", GOLD, "--id", "slow", "--timeout", "0.2", "--url", idle_url)
    assert result.returncode == 4
    assert headrace("result", "slow", "--timeout", "0.2", "--url", idle_url).returncode == 4


def test_a_waiting_job_is_counted_and_can_be_cancelled(idle_url):
    for name, priority in (("a", "0"), ("b", "9")):
        headrace("submit", "churn", GOLD, "--id", name, "--priority", priority, "--url", idle_url)
    table = headrace("queues", "--url", idle_url).stdout.splitlines()
    columns = [
        "QUEUE",
        "MODEL",
        "P0",
        "P3",
        "P6",
        "P9",
        "ISOLATED",
        "WAITING",
        "DELAYED",
        "DUE",
        "LEASED",
        "BACKLOG",
    ]
    assert table[0].split() == columns
    assert table[1].split() == ["predict.churn", "churn", "1", "0", "0", "1", "0", "2", "0", "0", "0", "2"]
    depth = json.loads(headrace("queues", "--json", "--url", idle_url).stdout)
    assert (depth["model"], depth["waiting"], depth["backlog"]) == ("churn", 2, 2)
    assert (
        headrace("status", "a", "b", "missing", "--url", idle_url).stdout
        == "a\twaiting\nb\twaiting\nmissing\tunknown\n"
    )
    cancelled = headrace("cancel", "a", "b", "--url", idle_url)
    assert (cancelled.returncode, cancelled.stdout) == (0, "a\tcancelled\nb\tcancelled\n")
    assert headrace("result", "a", "--url", idle_url).returncode == 3


def test_a_job_that_cannot_be_cancelled_exits_1(url):
    headrace("submit", "churn", GOLD, "--id", "done", "--timeout", "20", "--url", url)
    cancelled = headrace("cancel", "done", "missing", "--url", url)
    assert (cancelled.returncode, cancelled.stdout) == (1, "done\tsuccess\nmissing\tunknown\n")


def test_an_unknown_job_is_cancelled_on_request_and_does_not_run(idle_url):
    cancelled = headrace("cancel", "early", "--unknown", "--url", idle_url)
    assert (cancelled.returncode, cancelled.stdout) == (0, "cancelled\n")
    headrace("submit", "churn", GOLD, "--id", "early", "--url", idle_url)
    assert headrace("status", "early", "--url", idle_url).stdout == "cancelled\n"


def test_a_result_of_an_unknown_job_is_not_waited_for(idle_url):
    result = headrace("result", "missing", "--url", idle_url)
    assert result.returncode == 1
    assert "job missing is unknown" in result.stderr


def test_a_model_is_paused_with_a_reason_that_everybody_sees_and_resumed(idle_url):
    job = headrace("submit", "churn", GOLD, "--url", idle_url).stdout.strip()
    paused = headrace("queues", "pause", "churn", "--reason", "no \x1b[2J features", "--url", idle_url)
    assert (paused.returncode, paused.stdout) == (0, "")
    pause = re.search(r"paused by \S+@\S+ at [\d-]+ [\d:]+ UTC: no \\x1b\[2J features", paused.stderr)
    assert pause
    header, row = headrace("queues", "--url", idle_url).stdout.splitlines()
    assert header.endswith("  PAUSED")
    assert row.endswith(f"  {pause[0]}")
    (depth,) = map(json.loads, headrace("queues", "--json", "--url", idle_url).stdout.splitlines())
    assert depth["paused"]["reason"] == "no \x1b[2J features"
    assert f"the model is {pause[0]}" in headrace("explain", job, "--url", idle_url).stdout
    assert headrace("queues", "resume", "churn", "--url", idle_url).stderr == "churn is resumed\n"
    assert headrace("queues", "resume", "churn", "--url", idle_url).stderr == "churn was not paused\n"
    assert not headrace("queues", "--url", idle_url).stdout.splitlines()[0].endswith("PAUSED")
    assert "paused" not in headrace("explain", job, "--url", idle_url).stdout


def test_options_in_front_of_a_command_of_queues_are_refused_instead_of_ignored(idle_url):
    result = headrace("queues", "--url", idle_url, "pause", "churn")
    assert result.returncode == 2
    assert "write the options behind `pause`" in result.stderr


def test_an_empty_list_of_queues_is_reported_on_stderr(redis_url):
    result = headrace("queues", "--url", redis_url)
    assert (result.returncode, result.stdout) == (0, "")
    assert "no model has a queue yet" in result.stderr


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        ('{"agee": 1, "plan": "x"}', "did you mean 'age'?"),
        ('{"age": "secret", "plan": "x"}', "must be a number"),
        ("{nonsense", "is no valid JSON: line 1, column 2: "),
        ('{"age": 1,\n"plan" "secret"}', "is no valid JSON: line 2, column 8: expected ':'"),
        ("no-such-file.json", "neither JSON nor a file"),
        ("[]", "the list is empty"),
        ("41", "must be an object"),
        ("[" * 100_000, "is no valid JSON: it is nested too deeply"),
        ("null", "must be an object"),
    ],
)
def test_bad_instances_are_refused_in_one_line(idle_url, instances, message):
    result = headrace("submit", "churn", instances, "--url", idle_url)
    assert result.returncode == 1
    assert message in result.stderr
    assert "secret" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chrn", GOLD], "did you mean 'churn'?"),
        (["churn", GOLD, "--version", "9"], "version '9'"),
        (["churn", GOLD, "--method", "transform"], "has no method"),
        (["churn", GOLD, "--id", "a b"], "a job's id is"),
        (["ch urn", GOLD], "model"),
    ],
)
def test_bad_options_are_refused_in_one_line(idle_url, arguments, message):
    result = headrace("submit", *arguments, "--url", idle_url)
    assert result.returncode == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
