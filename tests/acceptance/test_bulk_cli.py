"""Tests of `headrace bulk`: what each command prints, and its exit code. The test plays the workers of a run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from subprocess import CompletedProcess
from typing import Any

import msgspec
import pytest
import redis

from headrace.catalog.published import publish_contract
from headrace.wire.keys import Keys
from headrace.wire.queues import bulk_queue_name
from tests.support.answering_worker import CHURN
from tests.support.command import headrace
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

KEYS = Keys()
RUN = ("churn", "in:2026-11/*.parquet", "-o", "out:scores/2026-11")
Bulk = Callable[..., CompletedProcess[str]]


@pytest.fixture
def bulk(redis_url: str, server: redis.Redis) -> Bulk:
    """Return a function that runs a command of `headrace bulk`."""
    publish_contract(server, KEYS, CHURN)
    return lambda *arguments: headrace("bulk", *arguments, HEADRACE_REDIS_URL=redis_url)


@pytest.fixture
def nightly(bulk: Bulk) -> str:
    """Submit the run `nightly`, and return its name."""
    return bulk("submit", *RUN, "--name", "nightly").stdout.strip()


def change_run(server: redis.Redis, name: str = "nightly", **fields: Any) -> None:
    """Write fields of a run as its workers do."""
    server.hset(KEYS.run(name), mapping=fields)


def finish(server: redis.Redis, state: str, **fields: Any) -> None:
    now_ms = int(time.time() * 1000)
    change_run(
        server, state=state, submitted_ms=now_ms - 9000, started_ms=now_ms - 8000, ended_ms=now_ms, **fields
    )


DONE = {"chunks": 2, "chunks_done": 2, "rows": 1000, "rows_done": 1000, "version": "3"}


def test_submit_prints_the_name_and_the_same_name_is_the_same_run(bulk: Bulk, server: redis.Redis):
    arguments = ("submit", *RUN, "--name", "nightly", "--key", "customer", "--keep", "none", "--max-failed", "1%")
    submitted = bulk(*arguments)
    assert (submitted.returncode, submitted.stdout, submitted.stderr) == (0, "nightly\n", "")
    change_run(server, state="running", started_ms=1, **{**DONE, "rows_done": 470})
    again = bulk(*arguments)
    assert (again.returncode, again.stdout) == (0, "nightly\n")
    assert again.stderr == "the run was submitted before: running, 470 of 1,000 rows (47%), 0 failed\n"
    assert sum(server.llen(name) for name in KEYS.sources(bulk_queue_name("churn"))) == 1
    other = bulk("submit", *RUN, "--name", "nightly")
    assert (other.returncode, other.stdout) == (1, "")
    assert "exists with another key and keep and max-failed" in other.stderr


def test_the_json_of_a_run_has_every_field(bulk: Bulk):
    submitted = json.loads(bulk("submit", *RUN, "--keep", "age, plan", "--json").stdout)
    assert submitted["keep"] == ["age", "plan"]
    assert (submitted["state"], submitted["rows_failed"], submitted["method"]) == ("planning", 0, None)
    assert json.loads(bulk("status", submitted["name"], "--json").stdout) == submitted
    assert json.loads(bulk("list", "--json").stdout) == submitted


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["churn", "customers.parquet", "-o", "out:x"], 1, "`input` has no location, 'customers.parquet'"),
        (["churn", "in:a"], 2, "Missing option '-o'"),
        (["churn", "in:a", "-o", "out:x", "--keep", "a,,b"], 2, "--keep is names of columns"),
        (["churn", "in:a", "-o", "out:x", "--max-failed", "many"], 1, "`max_failed` is a number of rows"),
        (["churn", "in:a", "-o", "out:x", "--timeout", "0"], 2, "seconds above 0"),
    ],
)
def test_a_mistake_is_one_line_and_enqueues_nothing(
    bulk: Bulk, server: redis.Redis, arguments: list[str], code: int, message: str
):
    result = bulk("submit", *arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert server.zcard(KEYS.runs) == 0


def test_an_unknown_run_is_an_error(bulk: Bulk):
    for command in ("status", "failures"):
        result = bulk(command, "never")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("headrace: there is no bulk run 'never'")


def test_status_has_rows_chunks_pace_and_options_within_80_columns(bulk: Bulk, server: redis.Redis, nightly: str):
    bulk("submit", *RUN, "--name", "other", "--key", "customer", "--keep", "none", "--max-failed", "1%")
    finish(server, "failure", **{**DONE, "rows_failed": 12, "chunks_failed": 1}, error="1 chunk failed \x1b[2J")
    first, second = bulk("status", nightly, "other").stdout.split("run other")
    lines = first.splitlines()
    assert lines[0] == "run nightly of churn@3: failure"
    assert "  rows       1,000 of 1,000 rows (100%), 12 failed" in lines
    assert "  chunks     2 of 2 done, 1 failed" in lines
    assert "  pace       125 rows/s" in lines
    assert lines[-1] == "  error      1 chunk failed \\x1b[2J"
    assert "  options    key customer, keep none, max-failed 1%" in second
    assert all(len(line) <= 80 for line in (*lines, *second.splitlines()))


def test_the_list_is_a_table_of_80_columns(bulk: Bulk, server: redis.Redis, nightly: str):
    assert bulk("list", "--model", "other").stderr == "no bulk run of other\n"
    finish(server, "success", **DONE)
    header, row = bulk("list").stdout.splitlines()
    assert header.split() == ["RUN", "MODEL", "STATE", "DONE", "ROWS", "FAILED", "ROWS/S", "AGE"]
    assert row.split()[:7] == ["nightly", "churn@3", "success", "100%", "1,000", "0", "125"]
    assert len(header) <= 80


def test_a_wait_exits_0_after_a_success_and_3_after_failed_rows(bulk: Bulk, server: redis.Redis, nightly: str):
    finish(server, "success", **DONE)
    waited = bulk("wait", nightly)
    assert (waited.returncode, waited.stdout) == (0, "")
    assert waited.stderr == "1,000 rows predicted by churn@3 in 9.0 s (125 rows/s), 0 failed\n"
    change_run(server, rows_failed=2)
    failed = bulk("wait", nightly, "--json")
    assert (failed.returncode, json.loads(failed.stdout)["rows_failed"]) == (3, 2)
    assert failed.stderr.endswith("2 failed\n`headrace bulk failures nightly` says why\n")


@pytest.mark.parametrize(("state", "message"), [("failure", "in:2026-11 has no file"), ("cancelled", "cancelled")])
def test_a_wait_exits_3_after_a_run_that_failed_or_was_cancelled(
    bulk: Bulk, server: redis.Redis, nightly: str, state: str, message: str
):
    finish(server, state, error="in:2026-11 has no file" if state == "failure" else "")
    waited = bulk("wait", nightly, "--json")
    assert (waited.returncode, json.loads(waited.stdout)["state"]) == (3, state)
    assert message in waited.stderr
    assert "`headrace bulk resume nightly`" in waited.stderr


def test_a_wait_exits_4_after_its_timeout(bulk: Bulk, nightly: str):
    waited = bulk("wait", nightly, "--timeout", "0.2")
    assert waited.returncode == 4
    assert "is not planned after 0.2 s: does a worker serve its model?" in waited.stderr
    submitted = bulk("submit", *RUN, "--name", nightly, "--timeout", "0.2")
    assert (submitted.returncode, submitted.stdout) == (4, "")


@pytest.fixture
def finishing_worker(server: redis.Redis) -> Iterator[None]:
    """Play a worker that finishes the run `nightly` once it is submitted."""

    def work() -> None:
        wait_until(lambda: server.exists(KEYS.run("nightly")))
        finish(server, "success", **DONE)

    worker = threading.Thread(target=work)
    worker.start()
    yield
    worker.join()


def test_submit_waits_if_it_is_told_to(bulk: Bulk, finishing_worker: None):
    submitted = bulk("submit", *RUN, "--name", "nightly", "--wait", "--json")
    assert (submitted.returncode, json.loads(submitted.stdout)["state"]) == (0, "success"), submitted.stderr
    assert submitted.stderr.startswith("run nightly\n")


def test_a_run_is_cancelled_once_and_resumed(bulk: Bulk, server: redis.Redis, nightly: str):
    assert bulk("cancel", nightly).stdout == "cancelled\n"
    bulk("submit", *RUN, "--name", "other")
    assert bulk("cancel", nightly, "other").stdout == "nightly\tcancelled\nother\tcancelled\n"
    assert bulk("resume", nightly).stdout == "planning\n"
    resumed = bulk("submit", *RUN, "--name", nightly)
    assert resumed.stderr == "the run was submitted before, and resumed once: planning\n"
    finish(server, "success", **DONE)
    cancelled = bulk("cancel", nightly)
    assert (cancelled.returncode, cancelled.stdout) == (1, "success\n")
    assert bulk("resume", nightly).stdout == "success\n"


def test_failures_are_counted_by_reason_and_name_the_failed_chunks(bulk: Bulk, server: redis.Redis, nightly: str):
    assert bulk("failures", nightly).stderr == "no row failed\n"
    change_run(server, **{"reason:bad input": 1200, "reason:crash": 3})
    failure = {"job": "nightly:17", "reason": "bad input", "message": "the file \x1b[2J changed"}
    server.hset(KEYS.receipts(nightly), "!17", msgspec.json.encode(failure))
    shown = bulk("failures", nightly)
    assert shown.returncode == 0
    assert shown.stdout.splitlines() == [
        " ROWS  REASON",
        "1,200  bad input",
        "    3  crash",
        "chunk 17 failed (bad input): the file \\x1b[2J changed",
    ]
    assert "out:scores/2026-11/errors" in shown.stderr
    assert "`headrace dead show nightly:17`" in shown.stderr
    as_json = json.loads(bulk("failures", nightly, "--json").stdout)
    assert as_json["reasons"] == {"bad input": 1200, "crash": 3}
    assert as_json["chunks"][0]["chunk"] == "17"


def test_explain_takes_the_name_of_a_run(bulk: Bulk, redis_url: str, nightly: str):
    explained = headrace("explain", nightly, "--url", redis_url)
    assert explained.returncode == 0
    assert explained.stdout.startswith("run nightly of churn: planning\n")
    assert "the queue bulk.churn has 1 waiting job and 0 under lease" in explained.stdout
    assert json.loads(headrace("explain", nightly, "--json", "--url", redis_url).stdout)["notes"]
    assert headrace("explain", "never", "--url", redis_url).returncode == 1


def test_top_shows_the_runs_that_go_on(bulk: Bulk, server: redis.Redis, redis_url: str, nightly: str):
    change_run(server, state="running", started_ms=int(time.time() * 1000) - 1000, **{**DONE, "rows_done": 470})
    page = headrace("top", "--once", "--every", "0.1", "--url", redis_url).stdout
    header, row = next(
        (line, following)
        for line, following in zip(page.splitlines(), page.splitlines()[1:], strict=False)
        if line.startswith("RUN")
    )
    assert header.split() == ["RUN", "MODEL", "STATE", "DONE", "ROWS", "FAILED", "ROWS/S", "LEFT"]
    assert row.split()[:6] == ["nightly", "churn", "running", "47%", "470", "0"]
    (overview,) = map(
        json.loads, headrace("top", "--once", "--every", "0.1", "--json", "--url", redis_url).stdout.splitlines()
    )
    assert overview["runs"][0]["rows_done"] == 470


def test_a_terminal_shows_a_bar_and_ctrl_c_leaves_the_run(server: redis.Redis, redis_url: str, nightly: str):
    change_run(server, state="running", started_ms=1, **{**DONE, "rows_done": 470})
    with Terminal("bulk", "wait", nightly, "--url", redis_url) as terminal:
        terminal.read("]  47%  470 rows done, 0 failed")
        terminal.type(b"\x03")
        screen = terminal.read()
        assert terminal.process.wait(10) == 130
    assert "run nightly goes on; `headrace bulk cancel nightly` cancels it" in screen.replace("\r\n", "")
    assert "Traceback" not in screen
    assert server.hget(KEYS.run(nightly), "state") == b"running"
