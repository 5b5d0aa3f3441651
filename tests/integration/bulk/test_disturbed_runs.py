"""Runs whose workers are killed, whose Redis forgets, and that run beside online jobs."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
import redis

from headrace import Client
from headrace.results.started import encode_mark
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child
from tests.support.bulk_site import KEYS, BulkSite, add_bulk_model
from tests.support.claim_models import SLEEP
from tests.support.waiting import wait_until

#: Rows, the rows of a row group, and the chunks that sleep, so that a kill meets them.
ROWS, GROUP = 3000, 200
SLOW = dict.fromkeys(range(0, ROWS, GROUP), 0.15)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_bulk_model(tmp_path_factory.mktemp("store"))


@pytest.fixture
def site(models: Path, tmp_path: Path) -> Iterator[BulkSite]:
    (tmp_path / "out").mkdir()
    with EmbeddedRedis() as redis_server:
        yield BulkSite(redis_server, models, tmp_path)


def write_slow_tables(site: BulkSite) -> None:
    for number in range(ROWS // GROUP):
        name = f"rows-{number:02}.parquet"
        site.write_table(GROUP, name=name, action={0: SLEEP}, seconds={0: 0.15})


def kill(worker: Child) -> None:
    os.killpg(worker.process.pid, signal.SIGKILL)


def rows_predicted(site: BulkSite) -> int:
    return sum(len(call) for call in site.calls if len(call) > 2)  # the example has two rows


def test_the_output_of_a_run_whose_workers_are_killed_is_that_of_an_undisturbed_run(site: BulkSite) -> None:
    write_slow_tables(site)
    options = {"HEADRACE_BULK_ONLY": "true"}
    with site.worker(**options):
        site.submit(input="in:rows-*.parquet")
        assert site.wait().state == "success"
    undisturbed = site.content()
    (site.folder / "calls").unlink()
    with EmbeddedRedis() as other:
        disturbed = msgspec.structs.replace(site, redis=other, out="disturbed")
        disturbed.output.mkdir()
        disturbed.submit(input="in:rows-*.parquet")
        kills = 3
        for number in range(kills):
            with disturbed.worker(name=f"killed-{number}", **options) as worker:
                done = disturbed.read().chunks_done
                wait_until(lambda done=done: disturbed.read().chunks_done > done)
                kill(worker)
        with disturbed.worker(name="last", **options):
            progress = disturbed.wait()
    assert progress.state == "success"
    assert disturbed.content() == undisturbed
    assert (progress.rows_done, progress.rows_failed) == (ROWS, 0)
    again = rows_predicted(disturbed) - ROWS
    assert again <= kills * 2 * GROUP, "only chunks in flight are predicted again"


def test_a_run_whose_redis_has_forgotten_all_goes_on_from_its_parts(site: BulkSite) -> None:
    write_slow_tables(site)
    with site.worker() as worker:
        site.submit(input="in:rows-*.parquet")
        wait_until(lambda: site.read().chunks_done >= 4)
        kill(worker)
    parts = len([*site.output.glob("nightly/part-*")])
    with redis.Redis.from_url(site.redis.url) as server:
        server.flushall()
    (site.folder / "calls").unlink()
    site.submit(input="in:rows-*.parquet")
    with site.worker(name="next"):
        progress = site.wait()
    assert (progress.state, progress.rows_done) == ("success", ROWS)
    assert rows_predicted(site) == ROWS - parts * GROUP, "no part is written twice"


def test_a_lost_chunk_is_enqueued_again_when_the_run_is_resumed(site: BulkSite) -> None:
    write_slow_tables(site)
    with site.worker() as worker:
        site.submit(input="in:rows-*.parquet")
        wait_until(lambda: site.read().chunks_done >= 2)
        kill(worker)
    with redis.Redis.from_url(site.redis.url) as server:
        server.delete(*KEYS.lists("bulk.doubling"))
    time.sleep(5.1)  # a new job may be moving
    site.resume()
    with site.worker(name="next"):
        assert site.wait().state == "success"
    counts = Counter(site.read_rows())
    assert set(counts.values()) == {ROWS // GROUP}


def test_a_chunk_ends_though_a_lost_claim_has_left_the_mark_that_it_runs(site: BulkSite) -> None:
    site.write_table(GROUP)
    with redis.Redis.from_url(site.redis.url) as server:
        for step in ("plan", "0", "finish"):
            job = f"nightly:{step}"
            server.set(KEYS.result(job), encode_mark(job, "lost@host", "host/1/lost/1"), ex=30)
        site.submit()
        with site.worker():
            assert site.wait().state == "success"
        assert server.hlen(KEYS.dead) == 0


def test_a_process_stays_free_for_online_jobs_while_bulk_jobs_wait(site: BulkSite) -> None:
    for number in range(6):
        site.write_table(100, name=f"rows-{number}.parquet", action={0: SLEEP}, seconds={0: 1.0})
    with ExitStack() as stack:
        stack.enter_context(site.worker("--concurrency", "2"))
        client = stack.enter_context(Client(site.redis.url, check=False))
        server = stack.enter_context(redis.Redis.from_url(site.redis.url))
        site.submit(input="in:rows-*.parquet")
        wait_until(lambda: site.read().state == "running")
        most_bulk = 0
        while site.read().chunks_done < 4:
            members = [
                member for member in server.zrange(KEYS.leases, 0, -1) if member.endswith(b"#bulk.doubling")
            ]
            most_bulk = max(most_bulk, len([member for member in members if b",blocking" not in member]))
            job = client.submit("doubling", {"number": 1.0, "action": 0.0, "seconds": 0.0})
            assert job.result(timeout=30).prediction == 2.0
        assert most_bulk == 1
        assert site.wait().state == "success"


def test_a_worker_of_bulk_jobs_leaves_online_jobs_alone(site: BulkSite) -> None:
    site.write_table(100)
    with site.worker(HEADRACE_BULK_ONLY="true"), Client(site.redis.url, check=False) as client:
        job = client.submit("doubling", {"number": 1.0, "action": 0.0, "seconds": 0.0})
        site.submit()
        assert site.wait().state == "success"
        assert job.status() == "waiting"
