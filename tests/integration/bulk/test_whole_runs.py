"""Whole runs with a real worker: what is in the output, in Redis, and what a run says of its failures."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import redis
from celery import Celery
from pyarrow import parquet

from headrace import Client, InvalidInput
from headrace.bulk import make_run
from headrace.wire.bulk import ChunkStep, FinishStep, PlanStep, Step
from headrace.wire.message import Job, encode_message
from headrace.wire.outcome import Failure, decode_outcome
from headrace.wire.queues import bulk_queue_name
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.bulk_site import KEYS, BulkSite, add_bulk_model
from tests.support.claim_models import HOLD, KILL, LOOP_IN_C, SLEEP
from tests.support.misbehaving_models import action_number, raise_system_exit
from tests.support.waiting import wait_until

RAISE = action_number(raise_system_exit)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BulkSite]:
    """A site with a worker of three processes, two of which run bulk jobs."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "out").mkdir()
    with EmbeddedRedis() as redis_server:
        add_bulk_model(folder, "hasty", time_limit=2.0)
        site = BulkSite(redis_server, add_bulk_model(folder), folder)
        with site.worker("--concurrency", "3"):
            yield site


@pytest.fixture
def server(site: BulkSite) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(site.redis.url) as server:
        yield server


def letters(server: redis.Redis, run: str) -> list[str]:
    """Return the ids of the dead letters of a run."""
    return sorted(name.decode() for name in server.hkeys(KEYS.dead) if name.decode().startswith(f"{run}:"))


def test_a_run_predicts_each_row_once_and_leaves_nothing_but_receipts(site: BulkSite, server: redis.Redis) -> None:
    site.write_table(2000)
    site.submit("whole")
    progress = site.wait("whole")
    assert (progress.state, progress.error) == ("success", None)
    assert (progress.rows, progress.rows_done, progress.rows_failed) == (2000, 2000, 0)
    assert progress.chunks == progress.chunks_done
    assert site.predictions("whole") == {number: 2.0 * number for number in range(2000)}
    summary = json.loads((site.output / "whole" / "_SUCCESS").read_text())
    assert (summary["rows"], summary["failed"], summary["run"]) == (2000, 0, "whole")
    chunks = [f"whole:{number}" for number in range(progress.chunks or 0)]
    assert not server.exists(*map(KEYS.result, chunks), *map(KEYS.job, chunks))
    assert server.hlen(KEYS.receipts("whole")) == len(chunks)


def test_rows_that_kill_their_process_are_row_errors_and_all_others_are_predicted(
    site: BulkSite, server: redis.Redis
) -> None:
    guilty = (3, 777, 1500)
    site.write_table(2000, group_rows=1000, name="crash.parquet", action=dict.fromkeys(guilty, float(KILL)))
    site.submit("crash", input="in:crash.parquet")
    progress = site.wait("crash", seconds=150)
    assert (progress.state, progress.rows_done, progress.rows_failed) == ("success", 2000, 3)
    assert site.failures("crash").reasons == {"crash": 3}
    assert site.predictions("crash") == {row: None if row in guilty else 2.0 * row for row in range(2000)}
    errors = parquet.read_table(site.output / "crash" / "errors").to_pylist()
    assert [(error["row"], error["reason"]) for error in errors] == [(row + 1, "crash") for row in guilty]
    assert letters(server, "crash") == []


def test_a_row_that_computes_for_ever_is_a_row_error_within_the_time_limit(site: BulkSite) -> None:
    site.write_table(40, name="loop.parquet", action={17: float(LOOP_IN_C)})
    site.submit("loop", model="hasty", input="in:loop.parquet")
    progress = site.wait("loop", seconds=120)
    assert (progress.state, progress.rows_done, progress.rows_failed) == ("success", 40, 1)
    assert site.failures("loop").reasons == {"timeout": 1}
    assert site.predictions("loop")[17] is None


def test_a_file_of_text_is_a_run_too(site: BulkSite) -> None:
    site.input.mkdir(exist_ok=True)
    rows = "".join(f"{number},0,{'x' if number == 7 else 0}\n" for number in range(500))
    (site.input / "rows.csv").write_text("number,action,seconds\n" + rows)
    site.submit("text", input="in:rows.csv", key="number", keep=[])
    progress = site.wait("text")
    assert (progress.state, progress.rows_done, progress.rows_failed) == ("success", 500, 1)
    lines = (site.output / "text" / "part-00000.csv").read_text().splitlines()
    assert len(lines) == 501
    assert lines[3].startswith("2,4")


def test_more_failed_rows_than_the_run_may_have_end_it(site: BulkSite) -> None:
    actions = dict.fromkeys(range(0, 400, 100), float(RAISE))
    site.write_table(2000, name="raising.parquet", action=actions)
    site.submit("raising", input="in:raising.parquet", max_failed=3)
    progress = site.wait("raising")
    assert (progress.state, progress.is_stopped) == ("failure", True)
    assert "4 rows failed" in str(progress.error)
    assert not (site.output / "raising" / "_SUCCESS").exists()


def test_a_changed_file_fails_its_chunks_and_the_run_says_so(site: BulkSite, server: redis.Redis) -> None:
    (site.input / "changed").mkdir(parents=True)
    site.write_table(101, name="changed/first.parquet", action={0: HOLD}, seconds={0: 60.0})
    site.write_table(102, name="changed/second.parquet", action={0: HOLD}, seconds={0: 60.0})
    site.write_table(103, name="changed/third.parquet")
    third = site.input / "changed" / "third.parquet"
    with site.holding():
        site.submit("changed", input="in:changed/*.parquet")
        wait_until(lambda: {100, 101} <= {max(call) for call in site.calls})
        third.rename(third.with_name("aside"))
        site.write_table(90, name="changed/third.parquet")
    progress = site.wait("changed")
    assert (progress.state, progress.chunks_done, progress.chunks_failed) == ("failure", 2, 1)
    assert "1 of 3 chunks failed" in str(progress.error)
    (failure,) = site.failures("changed").chunks
    assert (failure.job, failure.reason) == ("changed:2", "bad input")
    assert "third.parquet has changed" in failure.message
    assert letters(server, "changed") == ["changed:2"]
    assert site.resume("changed").state == "planning"
    assert site.wait("changed").chunks_failed == 1
    assert letters(server, "changed") == ["changed:2"], "one letter, not two"
    third.with_name("aside").rename(third)
    with Client(site.redis.url) as client:
        assert client.dead_letters.replay(ids=["changed:2"]).done == 1
    wait_until(lambda: site.read("changed").state == "success")
    assert (site.read("changed").chunks_failed, letters(server, "changed")) == (0, [])


def test_a_run_of_no_file_fails_and_is_resumed_once_there_is_one(site: BulkSite) -> None:
    site.submit("late", input="in:late.parquet")
    progress = site.wait("late")
    assert progress.state == "failure"
    assert "in:late.parquet" in str(progress.error)
    site.write_table(100, name="late.parquet")
    site.submit("late", input="in:late.parquet")
    assert site.wait("late").state == "success"
    assert len(site.predictions("late")) == 100


def test_a_cancelled_run_ends_and_is_resumed_where_it_ended(site: BulkSite) -> None:
    site.write_table(300, name="slow.parquet", action={0: SLEEP, 299: SLEEP}, seconds={0: 1.0, 299: 1.0})
    site.submit("slow", input="in:slow.parquet")
    wait_until(lambda: site.read("slow").state == "running")
    assert site.cancel("slow").state == "cancelled"
    site.resume("slow")
    assert site.wait("slow").state == "success"
    assert len(site.predictions("slow")) == 300


def test_the_outcome_of_a_chunk_is_its_receipt_for_a_plain_celery_client(site: BulkSite) -> None:
    site.write_table(100, name="plain.parquet")
    app = Celery(broker=site.redis.url, backend=site.redis.url)
    step = {"step": "chunk", "input": "in:plain.parquet", "output": "out:mine/part.parquet"}
    result = app.send_task("headrace.bulk", ["doubling", step], queue="bulk.doubling")
    receipt = result.get(timeout=60)
    app.close()
    assert (receipt["rows"], "failed" in receipt) == (100, False)
    assert receipt["bytes"] == (site.output / "mine" / "part.parquet").stat().st_size


def chunk(**changes: object) -> ChunkStep:
    return ChunkStep(**{"input": "in:rows.parquet", "output": "out:whole/part-99999.parquet", **changes})  # type: ignore[arg-type]


HOSTILE: dict[str, Step] = {
    "a chunk that its run did not plan": chunk(run="whole", chunk=99999),
    "the output of a run": chunk(),
    "another run's output": chunk(run="crash", chunk=0),
    "a run that is not there": chunk(run="ghost", chunk=0),
    "a plan of another output": PlanStep(run=make_run("doubling", "in:rows.parquet", "out:other", name="whole")),
    "a plan that nobody submitted": PlanStep(run=make_run("doubling", "in:rows.parquet", "out:x", name="nobody")),
    "a finish too early": FinishStep(run="whole"),
    "a location that is not there": chunk(output="elsewhere:part.parquet"),
    "a location for reading": chunk(output="in:part.parquet"),
    "a hidden folder": chunk(output="out:whole/_headrace/part.parquet"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_message_is_bad_input_and_changes_nothing(
    site: BulkSite, server: redis.Redis, name: str
) -> None:
    if not server.exists(KEYS.run("whole")):
        site.write_table(2000)
        site.submit("whole")
        site.wait("whole")
    before, files = server.hgetall(KEYS.run("whole")), site.content("whole")
    job = Job(id=f"hostile-{list(HOSTILE).index(name)}", model="doubling", instances=[], step=HOSTILE[name])
    server.lpush(bulk_queue_name("doubling"), encode_message(job))
    stored = wait_until(lambda: server.get(KEYS.result(job.id)))
    outcome = decode_outcome(stored)
    assert isinstance(outcome, Failure)
    assert outcome.reason == "bad input", outcome
    assert server.hgetall(KEYS.run("whole")) == before
    assert site.content("whole") == files


@pytest.mark.parametrize(
    "step",
    [
        {"step": "chunk", "input": "in:a.parquet", "output": "out:b.parquet", "path": "/etc/passwd"},
        {"step": "chunk", "input": "in:../a.parquet", "output": "out:b.parquet"},
        {"step": "chunk", "input": "in:a.parquet", "output": "s3://b/c.parquet"},
        {"step": "chunk", "input": "in:a.parquet", "output": "out:b.parquet", "first": 10**30},
        {"step": "chunk", "input": "in:a.parquet", "output": "out:b.parquet", "first": -1},
        {"step": "chunk", "input": "in:a.parquet", "output": "out:b.parquet", "rows": [5, 5]},
        {"step": "chunk", "input": "in:a.parquet", "output": "out:b.parquet", "keep": ["x"] * 20_000},
        {"step": "chunk", "input": "in:" + "a" * 5000, "output": "out:b.parquet"},
        {"step": "delete"},
        {},
        [],
    ],
)
def test_a_step_that_is_none_is_bad_input(site: BulkSite, step: object) -> None:
    app = Celery(broker=site.redis.url, backend=site.redis.url)
    result = app.send_task("headrace.bulk", ["doubling", step], queue="bulk.doubling")
    with pytest.raises(InvalidInput):
        result.get(timeout=30)
    app.close()
