"""`client.bulk` submits a run that any process can follow by its name; what cannot run is refused before it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import redis

from headrace import AsyncClient, Client, InvalidInput, ResultTimeout, RunConflict, UnknownModel, UnknownRun
from headrace.catalog.published import publish_contract
from headrace.errors import BrokerUnavailable, RunCancelled, RunFailed
from headrace.wire.keys import Keys
from headrace.wire.queues import bulk_queue_name
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.answering_worker import CHURN
from tests.support.waiting import wait_until

KEYS = Keys()
TABLE, SCORES = "in:2026-11/*.parquet", "out:scores/2026-11"


@pytest.fixture
def client(redis_url: str, server: redis.Redis) -> Iterator[Client]:
    publish_contract(server, KEYS, CHURN)
    with Client(redis_url) as client:
        yield client


def waiting_jobs(server: redis.Redis) -> int:
    return sum(server.llen(name) for name in KEYS.sources(bulk_queue_name("churn")))


def change_run(server: redis.Redis, name: str, **fields: Any) -> None:
    """Write fields of a run as its workers do."""
    server.hset(KEYS.run(name), mapping=fields)


def test_a_run_is_one_job_and_its_handle_is_its_name(client: Client, server: redis.Redis):
    run = client.bulk("churn@3", TABLE, SCORES, name="nightly", key="customer", keep=[], max_failed="1%")
    progress = run.status()
    assert (progress.state, progress.run.version, progress.run.keep) == ("planning", "3", ())
    assert (progress.run.key, progress.run.max_failed) == ("customer", 0.01)
    assert client.bulk_run("nightly").status() == progress
    assert client.bulk_runs() == [progress]
    assert client.bulk_runs("other") == []
    assert waiting_jobs(server) == 1


def test_a_name_is_made_if_there_is_none(client: Client):
    names = {client.bulk("churn", TABLE, SCORES).name for _ in range(2)}
    assert len(names) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input": "s3://lake/in/*.parquet"}, "`input` is a URL.* HEADRACE_LOCATIONS"),
        ({"output": "s3://KEY:secret@lake/out"}, "`output` is a URL"),
        ({"input": "/srv/in/a.parquet"}, "`input` has no location.*headrace batch"),
        ({"input": "customers.parquet"}, "`input` has no location.*headrace batch"),
        ({"input": "C:\\in\\a.parquet"}, "`input` is the name of a location"),
        ({"input": "in:../other/a.parquet"}, "without '..'"),
        ({"input": "in:/etc/passwd"}, "below its location"),
        ({"output": "out:"}, "a path below it"),
        ({"output": "out:*.parquet"}, "not a pattern"),
        ({"input": b"in:a"}, "got a bytes"),
        ({"model": "chrn"}, "did you mean 'churn'"),
        ({"model": "churn@9"}, "no version '9'; it has 3"),
        ({"model": "churn@3", "version": "3"}, "give one of them"),
        ({"method": "transform"}, "no method"),
        ({"name": "night/29"}, "a run's name is"),
        ({"keep": "age"}, "`keep` is a list of columns"),
        ({"keep": [1]}, "`keep` is a list of columns"),
        ({"key": ""}, "`key` is the name of a column"),
        ({"version": 3}, "`version` is a number as text"),
        ({"max_failed": "1 %%"}, "`max_failed` is a number of rows, or a share"),
        ({"max_failed": -1}, "`max_failed` is a number of rows, or a share"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_enqueued(
    client: Client, server: redis.Redis, arguments: dict[str, Any], message: str
):
    with pytest.raises(InvalidInput, match=message) as refused:
        client.bulk(**{"model": "churn", "input": TABLE, "output": SCORES, **arguments})
    assert "secret" not in str(refused.value)
    assert "$" not in str(refused.value)
    assert (waiting_jobs(server), server.zcard(KEYS.runs)) == (0, 0)


def test_a_name_with_other_arguments_says_in_what_they_differ(client: Client, server: redis.Redis):
    client.bulk("churn", TABLE, SCORES, name="nightly")
    with pytest.raises(RunConflict, match="'nightly' exists with another input and max-failed"):
        client.bulk("churn", "in:2026-12/*.parquet", SCORES, name="nightly", max_failed=10)
    assert waiting_jobs(server) == 1


def test_without_checks_a_model_that_no_worker_has_published_is_accepted(redis_url: str):
    with Client(redis_url, check=False) as client:
        assert client.bulk("later", TABLE, SCORES).status().state == "planning"
    with Client(redis_url) as client, pytest.raises(UnknownModel):
        client.bulk("later", TABLE, SCORES)


def test_a_wait_returns_the_progress_of_a_success_and_shows_it_meanwhile(client: Client, server: redis.Redis):
    run = client.bulk("churn", TABLE, SCORES, name="nightly")
    states: list[str] = []

    def finish() -> None:
        wait_until(lambda: states == ["planning"])
        change_run(server, "nightly", state="running", chunks=2, rows=200, chunks_done=1, rows_done=100)
        wait_until(lambda: "running" in states)
        change_run(server, "nightly", state="success", chunks_done=2, rows_done=200, rows_failed=3)

    def note(progress: Any) -> None:
        if progress.state not in states:
            states.append(progress.state)

    worker = threading.Thread(target=finish)
    worker.start()
    try:
        progress = run.wait(20, on_progress=note)
    finally:
        worker.join()
    assert (progress.rows_done, progress.rows_failed) == (200, 3)
    assert states == ["planning", "running", "success"]


def test_a_wait_raises_for_each_end_that_is_no_success(client: Client, server: redis.Redis):
    run = client.bulk("churn", TABLE, SCORES, name="nightly")
    with pytest.raises(ResultTimeout, match=r"nightly is not planned after 0\.1 s"):
        run.wait(0.1)
    assert run.cancel()
    with pytest.raises(RunCancelled):
        run.wait(0)
    assert run.resume()
    assert run.status().round == 2
    change_run(server, "nightly", state="failure", error="in:2026-11 has no file")
    assert not run.cancel()
    with pytest.raises(RunFailed, match="in:2026-11 has no file"):
        run.wait()
    change_run(server, "nightly", state="success")
    assert not run.resume()
    with pytest.raises(UnknownRun, match="'never'"):
        client.bulk_run("never").wait(5)


def test_failures_are_by_reason_and_by_chunk(client: Client, server: redis.Redis):
    run = client.bulk("churn", TABLE, SCORES, name="nightly")
    change_run(server, "nightly", **{"reason:bad input": 2})
    failure = {"job": "nightly:17", "reason": "bad input", "message": "changed since it was planned"}
    server.hset(KEYS.receipts("nightly"), "!17", msgspec.json.encode(failure))
    failures = run.failures()
    assert failures.reasons == {"bad input": 2}
    assert [chunk.chunk for chunk in failures.chunks] == ["17"]


def test_a_run_without_a_worker_says_what_it_waits_for(client: Client, server: redis.Redis):
    run = client.bulk("churn", TABLE, SCORES, name="nightly")
    explanation = run.explain()
    assert (explanation.waiting, explanation.leased) == (1, 0)
    assert "does one serve 'churn'" in explanation.notes[-1]
    client.pause("churn", reason="bad features")
    assert "bad features" in run.explain().notes[0]
    client.resume("churn")
    server.delete(*KEYS.sources(bulk_queue_name("churn")))
    assert "headrace bulk resume nightly" in run.explain().notes[-1]
    change_run(server, "nightly", state="success")
    assert run.explain().notes == ()


def test_the_plan_of_a_run_is_found_in_its_queue_and_lost_without_it(client: Client, server: redis.Redis):
    client.bulk("churn", TABLE, SCORES, name="nightly")
    timeline = client.job("nightly:plan").explain()
    assert (timeline.status, timeline.model) == ("waiting", "churn")
    assert "it is the next" in timeline.steps[-1].text


def test_a_wait_survives_a_restart_of_redis():
    with EmbeddedRedis("--appendonly", "yes", "--appendfsync", "always") as embedded:
        with redis.Redis.from_url(embedded.url) as server:
            publish_contract(server, KEYS, CHURN)
        with Client(embedded.url) as client:
            run = client.bulk("churn", TABLE, SCORES, name="nightly")
            looks: list[str] = []
            results: list[str] = []
            waiting = threading.Thread(
                target=lambda: results.append(
                    run.wait(30, on_progress=lambda progress: looks.append(progress.state)).state
                )
            )
            waiting.start()
            wait_until(lambda: bool(looks))
            embedded.kill()
            embedded.start()
            with redis.Redis.from_url(embedded.url) as server:
                change_run(server, "nightly", state="success")
            waiting.join(30)
            assert results == ["success"]


def test_a_redis_that_is_not_there_is_an_error_at_once():
    with Client("redis://127.0.0.1:1") as client, pytest.raises(BrokerUnavailable, match="cannot be reached"):
        client.bulk_run("nightly").wait(60)


def test_the_asyncio_client_has_the_same_runs(redis_url: str, client: Client, server: redis.Redis):
    async def follow() -> None:
        async with AsyncClient(redis_url) as other:
            run = await other.bulk("churn", TABLE, SCORES, name="nightly")
            waiting = asyncio.create_task(run.wait(20))
            await asyncio.sleep(0)
            assert await run.cancel()
            with pytest.raises(RunCancelled):
                await waiting
            assert [progress.state for progress in await other.bulk_runs("churn")] == ["cancelled"]
            assert await other.bulk_run("nightly").resume()
            assert (await run.explain()).progress.round == 2
            assert (await run.failures()).reasons == {}

    asyncio.run(follow())
    assert client.bulk_run("nightly").status().state == "planning"


_SUBMIT = """
import re, sys
from pathlib import Path
from headrace import Client
with Client(sys.argv[1]) as client:
    client.bulk("churn", "in:2026-11/*.parquet", "out:scores/2026-11", name="light").status()
peak = re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())
print(int(peak[1]) // 1024, *sys.modules)
"""


def test_a_client_submits_without_pyarrow_and_fsspec_in_less_than_60_mb(client: Client, redis_url: str):
    process = subprocess.run(
        [sys.executable, "-c", _SUBMIT, redis_url], capture_output=True, text=True, check=True, timeout=60
    )
    megabytes, *modules = process.stdout.split()
    assert int(megabytes) < 60
    assert {module.partition(".")[0] for module in modules}.isdisjoint({"pyarrow", "fsspec", "numpy", "celery"})
