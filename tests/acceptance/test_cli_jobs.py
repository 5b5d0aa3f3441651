"""Jobs from the command line: submit, status, result, cancel, queues."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import redis

from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.command import headrace
from tests.support.stock_worker import publish_stock_contract, running

GOLD = '{"age": 41, "plan": "gold"}'


@pytest.fixture(scope="module")
def _worker(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with running(redis_server.url, tmp_path_factory.mktemp("worker") / "log"):
        yield


@pytest.fixture
def url(redis_url: str, _worker: None) -> str:
    """A Redis with a worker that serves `churn`."""
    publish_stock_contract(redis_url)
    return redis_url


@pytest.fixture
def idle(redis_server: EmbeddedRedis) -> Iterator[str]:
    """A Redis (another database of the server) that nobody takes jobs from."""
    url = redis_server.url.removesuffix("/0") + "/1"
    publish_stock_contract(url)
    yield url
    with redis.Redis.from_url(url) as client:
        client.flushdb()


def test_a_job_is_submitted_awaited_and_asked_for(url):
    submitted = headrace("submit", "churn", GOLD, "--url", url)
    assert submitted.returncode == 0, submitted.stderr
    job = submitted.stdout.strip()
    waited = headrace("result", job, "--timeout", "20", "--url", url)
    assert (waited.returncode, waited.stdout) == (0, "82\n")
    assert headrace("status", job, "--url", url).stdout == "success\n"


def test_wait_prints_the_prediction(url):
    waited = headrace("submit", "churn", "-", "--wait", "--timeout", "20", stdin=GOLD, HEADRACE_REDIS_URL=url)
    assert (waited.returncode, waited.stdout) == (0, "82\n")


def test_a_version_may_stand_behind_the_model(url):
    waited = headrace("submit", "churn@3", GOLD, "--timeout", "20", "--json", "--url", url)
    assert json.loads(waited.stdout)["version"] == "3", waited.stderr
    without = headrace("submit", "churn@9", GOLD, "--json", "--url", url)
    assert without.returncode == 1
    assert "'churn' has no version '9'" in without.stderr
    twice = headrace("submit", "churn@3", GOLD, "--version", "3", "--url", url)
    assert (twice.returncode, twice.stdout) == (1, "")
    assert "give one of them" in twice.stderr


def test_several_instances_are_one_job_and_json_says_it_all(url, tmp_path):
    file = tmp_path / "two.json"
    file.write_text(f"[{GOLD}, {GOLD}]")
    waited = headrace("submit", "churn", str(file), "--id", "two", "--timeout", "20", "--json", "--url", url)
    assert json.loads(waited.stdout) == {
        "id": "two",
        "model": "churn",
        "version": "3",
        "predictions": [82.0, 82.0],
    }


def test_a_failed_job_exits_3_and_says_why(url):
    failed = headrace("submit", "churn", '{"age": 1, "plan": "fail"}', "--id", "bad", "--url", url)
    assert failed.stdout == "bad\n"
    waited = headrace("result", "bad", "--timeout", "20", "--url", url)
    assert waited.returncode == 3
    assert waited.stdout == ""
    assert "ValueError: the model cannot" in waited.stderr
    assert len(waited.stderr.splitlines()) == 1


def test_waiting_for_a_failure_exits_3_too(url):
    waited = headrace("submit", "churn", '{"age": 1, "plan": "fail"}', "--timeout", "20", "--url", url)
    assert waited.returncode == 3
    assert len(waited.stderr.splitlines()) == 1


def test_time_that_runs_out_exits_4(idle):
    waited = headrace("submit", "churn", GOLD, "--id", "late", "--timeout", "0.2", "--url", idle)
    assert waited.returncode == 4
    assert headrace("result", "late", "--timeout", "0.2", "--url", idle).returncode == 4


def test_a_job_that_waits_is_counted_and_can_be_cancelled(idle):
    for name, priority in (("a", "0"), ("b", "9")):
        headrace("submit", "churn", GOLD, "--id", name, "--priority", priority, "--url", idle)
    table = headrace("queues", "--url", idle).stdout.splitlines()
    columns = ["QUEUE", "MODEL", "P0", "P3", "P6", "P9", "AGAIN", "WAITING", "DELAYED", "LEASED"]
    assert table[0].split() == columns
    assert table[1].split() == ["predict.churn", "churn", "1", "0", "0", "1", "0", "2", "0", "0"]
    depth = json.loads(headrace("queues", "--json", "--url", idle).stdout)
    assert (depth["model"], depth["waiting"]) == ("churn", 2)
    assert (
        headrace("status", "a", "b", "nobody", "--url", idle).stdout == "a\tqueued\nb\tqueued\nnobody\tunknown\n"
    )
    cancelled = headrace("cancel", "a", "b", "--url", idle)
    assert (cancelled.returncode, cancelled.stdout) == (0, "a\tcancelled\nb\tcancelled\n")
    assert headrace("result", "a", "--url", idle).returncode == 3


def test_what_cannot_be_cancelled_exits_1(url):
    headrace("submit", "churn", GOLD, "--id", "done", "--timeout", "20", "--url", url)
    late = headrace("cancel", "done", "nobody", "--url", url)
    assert (late.returncode, late.stdout) == (1, "done\tsuccess\nnobody\tunknown\n")


def test_a_result_of_an_unknown_job_is_not_waited_for(idle):
    shown = headrace("result", "nobody", "--url", idle)
    assert shown.returncode == 1
    assert "no job nobody is known" in shown.stderr


def test_no_queue_is_told_on_stderr(redis_url):
    shown = headrace("queues", "--url", redis_url)
    assert (shown.returncode, shown.stdout) == (0, "")
    assert "no model has a queue yet" in shown.stderr


@pytest.mark.parametrize(
    ("instances", "says"),
    [
        ('{"agee": 1, "plan": "x"}', "did you mean 'age'?"),
        ('{"age": "secret", "plan": "x"}', "must be a number"),
        ("{nonsense", "is no valid JSON"),
        ("no-such-file.json", "neither JSON nor a file"),
        ("[]", "the list is empty"),
        ("41", "must be an object"),
        ("[" * 100_000, "is no valid JSON"),
        ("null", "must be an object"),
    ],
)
def test_bad_instances_are_refused_in_one_line(idle, instances, says):
    shown = headrace("submit", "churn", instances, "--url", idle)
    assert shown.returncode == 1
    assert says in shown.stderr
    assert "secret" not in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["chrn", GOLD], "did you mean 'churn'?"),
        (["churn", GOLD, "--version", "9"], "version '9'"),
        (["churn", GOLD, "--method", "transform"], "has no method"),
        (["churn", GOLD, "--id", "a b"], "a job's id is"),
        (["ch urn", GOLD], "model"),
    ],
)
def test_bad_options_are_refused_in_one_line(idle, arguments, says):
    shown = headrace("submit", *arguments, "--url", idle)
    assert shown.returncode == 1
    assert says in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
