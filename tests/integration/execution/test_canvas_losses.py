"""A worker is killed between the outcomes of jobs and what follows them: every task that follows runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import chain, chord

from tests.support.canvas_site import LEASE_SECONDS, CanvasSite, predict, row
from tests.support.canvas_tasks import app, record
from tests.support.crash_points import FOLLOW_UP_STEPS
from tests.support.waiting import wait_until

JOBS = 30


@pytest.mark.parametrize(
    ("step", "process"),
    [
        ("publishing", "all"),
        ("published", "all"),
        *((step, process) for step in FOLLOW_UP_STEPS for process in ("self", "all")),
    ],
)
def test_every_task_that_follows_a_job_runs_though_the_worker_is_killed(
    canvas: CanvasSite, tmp_path: Path, step: str, process: str
) -> None:
    linked, chained, failed, joined = (
        f"{name}-{step}-{process}" for name in ("linked", "chained", "failed", "joined")
    )
    callbacks = {
        predict("doubling", [row(number)]).apply_async(link=record.si(f"link {number}", key=linked)).id
        for number in range(JOBS)
    }
    chains = [
        chain(
            predict("rows", [row(number)]), predict(model="doubling"), record.s(key=chained), app=app
        ).apply_async()
        for number in range(JOBS)
    ]
    errbacks = {
        predict("doubling", [["text"]]).apply_async(link_error=record.s(key=failed)).id for _ in range(JOBS)
    }
    chords = [
        chord([predict("doubling", [row(1)]), predict("rows", [row(number)])], record.s(key=joined), app=app)()
        for number in range(JOBS)
    ]
    crash_file = tmp_path / "crashed"
    settings = {"CRASH_AT": step, "CRASH_PROCESS": process, "CRASH_FILE": str(crash_file)}
    with canvas.headrace_worker("--include", "tests.support.crash_points", **settings) as worker:
        wait_until(crash_file.exists)
        if process == "all":
            worker.process.wait(20)
        with canvas.headrace_worker(name="next"):
            wait_until(lambda: len({*map(str, canvas.recorded(linked))}) == JOBS)
            assert {*canvas.recorded(linked)} == {f"link {number}" for number in range(JOBS)}
            assert {app.AsyncResult(id_).get(timeout=30)["predictions"][0] for id_ in callbacks} == {
                2.0 * number for number in range(JOBS)
            }
            assert [sent.get(timeout=30)["predictions"] for sent in chains] == [
                [4.0 * number] for number in range(JOBS)
            ]
            wait_until(lambda: {*canvas.recorded(failed)} == errbacks)
            results = [sent.get(timeout=30)[1]["predictions"] for sent in chords]
            assert results == [[[2.0 * number, 0, 0]] for number in range(JOBS)]
            wait_until(lambda: canvas.server.zcard("headrace:follow-ups") == 0, 3 * LEASE_SECONDS)
