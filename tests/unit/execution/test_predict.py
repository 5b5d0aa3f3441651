"""Every job has a result, in the order of the jobs, whatever jobs and models do."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from hypothesis import given
from hypothesis import strategies as st

from headrace.wire.message import Job
from headrace.wire.outcome import Expired, Failure, Outcome, Success
from headrace_worker.execution import predict
from headrace_worker.execution.claimed_job import FailedRun, NotRunnableHere
from headrace_worker.models.registry import Registry
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store
from tests.support import hostile_models
from tests.support.claim_reports import claimed_job

NOW = datetime(2030, 1, 1, tzinfo=UTC)
MAX_INSTANCES = 64


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    store = Store(tmp_path_factory.mktemp("store") / "models")
    hostile_models.add(store, max_batch_instances=MAX_INSTANCES)
    registry = Registry(store, WorkerSettings(trust_pickle=True))
    assert not registry.preload()
    return registry


def job(name: str, *do: str, size: float = 1.0, **options: Any) -> Job:
    """Return a job with an instance for each action in `do`, or with one instance that is predicted."""
    instances = [hostile_models.instance(action, size=size) for action in do or ("predict",)]
    return Job(id=name, model="obedient", instances=instances, **options)


Value = Outcome | FailedRun | NotRunnableHere


def run(registry: Registry, jobs: list[Job]) -> list[Value]:
    hostile_models.calls.clear()
    claimed_jobs = [claimed_job(job) for job in jobs]
    results, batch_runs = predict.run(claimed_jobs, registry, NOW)
    assert all(result.claimed is claimed for result, claimed in zip(results, claimed_jobs, strict=True))
    for result in results:
        if result.batch_run is not None:
            assert result.batch_run in batch_runs
            assert result.admitted in result.batch_run.batch.jobs
        else:
            assert result.admitted is None
    return [result.value for result in results]


def summaries(values: list[Value]) -> list[Any]:
    """Return each job's predictions, or the name of its error, or the reason of its failure."""
    summaries: list[Any] = []
    for value in values:
        match value:
            case Success():
                summaries.append(value.prediction.predictions)
            case FailedRun():
                summaries.append(type(value.error).__name__)
            case _:
                summaries.append(value.reason)  # type: ignore[union-attr]  # a failure
    return summaries


def test_jobs_are_predicted_together_and_each_gets_its_own_predictions(registry: Registry):
    jobs = [job("a", size=1), job("b", "predict", "predict", size=2), job("c", size=3)]
    outcomes = run(registry, jobs)
    assert [outcome.job for outcome in outcomes] == ["a", "b", "c"]  # type: ignore[union-attr]
    assert summaries(outcomes) == [[2], [4, 4], [6]]
    assert hostile_models.calls == [4]
    assert outcomes[0].prediction.model == "obedient"  # type: ignore[union-attr]
    assert outcomes[0].prediction.version == "1"  # type: ignore[union-attr]


def test_no_model_runs_without_jobs(registry: Registry):
    assert run(registry, []) == []
    assert hostile_models.calls == []


def test_a_job_larger_than_a_batch_is_predicted_in_slices(registry: Registry):
    instances = [hostile_models.instance(size=size) for size in range(2 * MAX_INSTANCES + 1)]
    [outcome] = run(registry, [Job(id="a", model="obedient", instances=instances)])
    assert summaries([outcome]) == [[2.0 * size for size in range(2 * MAX_INSTANCES + 1)]]
    assert hostile_models.calls == [MAX_INSTANCES, MAX_INSTANCES, 1]


def test_a_large_job_that_fails_in_its_last_slice_fails_as_a_whole_and_is_not_repeated(registry: Registry):
    [result] = run(registry, [job("a", *["predict"] * MAX_INSTANCES, "raise")])
    assert isinstance(result, FailedRun)
    assert hostile_models.calls == [MAX_INSTANCES, 1]


@pytest.mark.parametrize("jobs", [1, 2, 3, 7, 32, 64])
@pytest.mark.parametrize("position", [0, 0.5, 1])
def test_one_failing_job_fails_alone_and_is_found_in_few_calls(registry: Registry, jobs: int, position: float):
    failing = math.floor(position * (jobs - 1))
    values = run(registry, [job(str(index), *(["raise"] if index == failing else [])) for index in range(jobs)])
    assert [index for index, value in enumerate(values) if isinstance(value, FailedRun)] == [failing]
    assert len(hostile_models.calls) <= 2 * math.ceil(math.log2(jobs)) + 1


@given(
    st.lists(st.sampled_from(["predict", "raise", "exit", "eat memory", "return too few"]), max_size=MAX_INSTANCES)
)
def test_every_failing_job_fails_and_no_other(registry: Registry, actions: list[str]):
    outcomes = run(registry, [job(str(index), action, size=index) for index, action in enumerate(actions)])
    errors = {
        "raise": "ValueError",
        "exit": "SystemExit",
        "eat memory": "MemoryError",
        "return too few": "ModelError",
    }
    assert summaries(outcomes) == [errors.get(action, [2.0 * index]) for index, action in enumerate(actions)]


def test_too_few_predictions_are_an_error_with_both_numbers(registry: Registry):
    [failed_run] = run(registry, [job("a", "return too few", "predict")])
    assert isinstance(failed_run, FailedRun)
    assert str(failed_run.error) == "the model returned 1 predictions for 2 instances; it must return one for each"


def test_outcomes_keep_the_order_of_jobs_that_never_ran(registry: Registry):
    jobs = [
        job("expired", expires=NOW - timedelta(seconds=1)),
        job("good"),
        Job(id="unknown", model="unserved", instances=[hostile_models.instance()]),
        job("failing", "raise"),
        Job(id="bad", model="obedient", instances=[{"do": 1}]),
        job("version", version="9"),
        job("good too"),
    ]
    outcomes = run(registry, jobs)
    assert isinstance(outcomes[0], Expired)
    assert summaries(outcomes[1:]) == [[2], "unknown model", "ValueError", "bad input", "unknown model", [2]]


def test_two_jobs_of_one_id_get_an_outcome_each(registry: Registry):
    assert summaries(run(registry, [job("a", size=1), job("a", size=2)])) == [[2], [4]]


def test_a_failed_run_names_its_job_and_model(registry: Registry):
    [_, failed_run] = run(registry, [job("a"), job("b", "raise")])
    assert isinstance(failed_run, FailedRun)
    assert failed_run.admitted.claimed.job.id == "b"
    assert failed_run.admitted.model.manifest.title == "obedient@1"


def test_an_error_without_a_readable_message_fails_its_job_alone(registry: Registry):
    outcomes = run(registry, [job("a", "raise unreadable"), job("b")])
    assert summaries(outcomes) == ["UnreadableError", [2]]


def test_after_the_soft_time_limit_nothing_more_runs_and_finished_batches_keep_their_results(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    model = registry.get("obedient")
    calls = []

    def too_slow(method: str, instances: Any) -> Any:
        calls.append(len(instances))
        if len(calls) > 1:
            raise SoftTimeLimitExceeded
        return [0] * len(instances)

    monkeypatch.setattr(model, "predict", too_slow)
    jobs = [job(str(index), *["predict"] * MAX_INSTANCES) for index in range(3)]
    jobs.insert(0, job("expired", expires=NOW - timedelta(seconds=1)))
    expired, *results = run(registry, jobs)
    assert isinstance(expired, Expired)
    assert summaries(results) == [[0] * MAX_INSTANCES, "SoftTimeLimitExceeded", "SoftTimeLimitExceeded"]
    assert calls == [MAX_INSTANCES, MAX_INSTANCES]


def test_jobs_that_name_more_versions_than_fit_in_memory_wait_for_another_claim(tmp_path: Path):
    store = Store(tmp_path / "models")
    for _ in range(5):
        hostile_models.add(store, max_batch_instances=MAX_INSTANCES)
    registry = Registry(store, WorkerSettings(trust_pickle=True, versions_of_jobs=2))
    assert not registry.preload()
    named = ["5", "77", "1", "78", "2", "3", "1", None, "4", "5"]
    values = run(registry, [job(str(index), version=version) for index, version in enumerate(named)])
    kinds = ["failure" if isinstance(value, Failure) else type(value).__name__ for value in values]
    expected = ["Success", "failure", "Success", "failure", "Success", "NotRunnableHere", "Success", "Success"]
    assert kinds == [*expected, "NotRunnableHere", "Success"]
    assert registry.loaded_versions("obedient") == ("1", "2", "5")
