"""A shadow runs after the outcomes of its jobs are published; its results and its errors are only counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from headrace.catalog.aliases import Alias
from headrace.catalog.contract import Array, Contract, Output
from headrace.connection.commands import execute
from headrace.wire.keys import Keys
from headrace.wire.message import Job
from headrace.wire.outcome import Prediction, Success
from headrace_worker.execution.report import ClaimReport
from headrace_worker.rollout import version_stats
from headrace_worker.rollout.shadow import ShadowRunner
from headrace_worker.rollout.version_stats import VersionStats
from headrace_worker.route import Route
from headrace_worker.transport.claims import Claim, Lease
from tests.support.claim_reports import batch_run, claim_report, claimed_job

KEYS = Keys("shadow-test:")


def model(version: str, predict: Callable[..., Any] = lambda _method, rows: [1.0] * len(rows)) -> Any:
    contract = Contract(
        model="churn", version=version, input=Array(shape=(1,)), methods={"predict": Output(shape=())}
    )
    return SimpleNamespace(
        manifest=SimpleNamespace(name="churn", version=version), contract=contract, predict=predict
    )


def report(**aliases: Alias) -> ClaimReport:
    """Return the report of a claim with three jobs of version 1 and one of version 2."""
    batch_runs, outcomes = [], {}
    now = time.monotonic()
    for version, count in (("1", 3), ("2", 1)):
        jobs = [Job(id=f"v{version}-{number}", model="churn", instances=[[7.0]]) for number in range(count)]
        claimed = [claimed_job(job) for job in jobs]
        batch_runs.append(batch_run(claimed, model(version), started_at=now - 1, finished_at=now))
        prediction = Prediction(model="churn", version=version, predictions=[1.0])
        outcomes |= {job.id: Success(job=job.id, prediction=prediction) for job in jobs}
    claim = Claim(
        lease=Lease(name="w/1", queue="predict.churn", origins=()),
        queued_messages=(),
        route=Route(model="churn", aliases={"production": Alias(version="1"), **aliases}),
    )
    return claim_report(claim, batch_runs, outcomes=outcomes.values(), times=(now - 1, now, now))


@pytest.fixture
def run_shadow(server: redis.Redis) -> Iterator[Callable[..., VersionStats]]:
    """A function that handles a claim with these aliases, and returns the statistics of version 2."""

    def run_shadow(predict: Callable[..., Any], **aliases: Alias) -> VersionStats:
        registry: Any = SimpleNamespace(get=lambda _model, version: model(version, predict))
        ShadowRunner(server, KEYS, registry).on_claim_finished(report(**aliases))
        reply = execute(server, version_stats.read_command(KEYS, "churn", "2"))
        return version_stats.decode_stats("churn@2", reply)

    yield run_shadow
    server.delete(KEYS.version_stats("churn", "1"), KEYS.version_stats("churn", "2"))


@pytest.mark.parametrize("error", [SystemExit(1), ValueError("no")])
def test_a_shadow_that_raises_is_counted_as_failed(run_shadow: Callable[..., VersionStats], error: BaseException):
    def predict(_method: str, _rows: Any) -> Any:
        raise error

    stats = run_shadow(predict, shadow=Alias(version="2"))
    assert (stats.failed, stats.compared) == (3, 0)


def test_a_version_that_is_canary_and_shadow_is_counted_as_both(run_shadow: Callable[..., VersionStats]):
    stats = run_shadow(
        lambda _method, rows: [3.0] * len(rows), shadow=Alias(version="2"), canary=Alias(version="2", share=0.1)
    )
    assert (stats.succeeded, stats.failed, stats.compared, stats.differing) == (4, 0, 3, 3)
    assert stats.largest_difference == pytest.approx(2.0)
