"""One result for each job, in their order, whatever jobs and models do."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from hypothesis import given
from hypothesis import strategies as st

from headrace.wire.message import Job
from headrace.wire.outcome import Expired, Outcome, Success
from headrace_worker.execution import predict
from headrace_worker.execution.claimed_job import FailedRun, NotRunnableHere
from headrace_worker.models.registry import Registry
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store
from tests.support import hostile_models
from tests.support.claim_reports import claimed_job

NOW = datetime(2030, 1, 1, tzinfo=UTC)
MOST = 64


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    store = Store(tmp_path_factory.mktemp("store") / "models")
    hostile_models.add(store, max_batch_instances=MOST)
    registry = Registry(store, WorkerSettings(trust_pickle=True))
    assert not registry.preload()
    return registry


def job(name: str, *do: str, size: float = 1.0, **options: Any) -> Job:
    """A job of an instance for each thing to do; of one that is predicted, if none is named."""
    instances = [hostile_models.instance(what, size=size) for what in do or ("predict",)]
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


def sizes(results: list[Value]) -> list[Any]:
    """The predictions, and the name of the error where there are none."""
    told: list[Any] = []
    for one in results:
        match one:
            case Success():
                told.append(one.prediction.predictions)
            case FailedRun():
                told.append(type(one.error).__name__)
            case _:
                told.append(one.reason)  # type: ignore[union-attr]  # a failure
    return told


def test_jobs_are_predicted_together_and_each_gets_its_own(registry: Registry):
    jobs = [job("a", size=1), job("b", "predict", "predict", size=2), job("c", size=3)]
    outcomes = run(registry, jobs)
    assert [one.job for one in outcomes] == ["a", "b", "c"]  # type: ignore[union-attr]
    assert sizes(outcomes) == [[2], [4, 4], [6]]
    assert hostile_models.calls == [4]
    assert outcomes[0].prediction.model == "obedient"  # type: ignore[union-attr]
    assert outcomes[0].prediction.version == "1"  # type: ignore[union-attr]


def test_nothing_is_run_for_no_jobs(registry: Registry):
    assert run(registry, []) == []
    assert hostile_models.calls == []


def test_a_job_larger_than_a_batch_is_predicted_in_slices(registry: Registry):
    instances = [hostile_models.instance(size=size) for size in range(2 * MOST + 1)]
    [outcome] = run(registry, [Job(id="a", model="obedient", instances=instances)])
    assert sizes([outcome]) == [[2.0 * size for size in range(2 * MOST + 1)]]
    assert hostile_models.calls == [MOST, MOST, 1]


def test_a_large_job_that_fails_in_its_last_slice_fails_whole_and_once(registry: Registry):
    [result] = run(registry, [job("a", *["predict"] * MOST, "raise")])
    assert isinstance(result, FailedRun)
    assert hostile_models.calls == [MOST, 1]


@pytest.mark.parametrize("jobs", [1, 2, 3, 7, 32, 64])
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_one_guilty_job_fails_alone_and_is_found_in_few_calls(registry: Registry, jobs: int, place: float):
    guilty = math.floor(place * (jobs - 1))
    outcomes = run(registry, [job(str(at), *(["raise"] if at == guilty else [])) for at in range(jobs)])
    assert [at for at, one in enumerate(outcomes) if isinstance(one, FailedRun)] == [guilty]
    assert len(hostile_models.calls) <= 2 * math.ceil(math.log2(jobs)) + 1


@given(st.lists(st.sampled_from(["predict", "raise", "exit", "eat memory", "give too few"]), max_size=MOST))
def test_every_guilty_job_fails_and_no_other(registry: Registry, told: list[str]):
    outcomes = run(registry, [job(str(at), what, size=at) for at, what in enumerate(told)])
    errors = {
        "raise": "ValueError",
        "exit": "SystemExit",
        "eat memory": "MemoryError",
        "give too few": "ModelError",
    }
    assert sizes(outcomes) == [errors.get(what, [2.0 * at]) for at, what in enumerate(told)]


def test_a_model_that_gives_too_few_predictions_fails_in_words(registry: Registry):
    [raised] = run(registry, [job("a", "give too few", "predict")])
    assert isinstance(raised, FailedRun)
    assert str(raised.error) == "the model returned 1 predictions for 2 instances; it must return one for each"


def test_outcomes_keep_the_order_of_jobs_that_never_ran(registry: Registry):
    jobs = [
        job("expired", expires=NOW - timedelta(seconds=1)),
        job("good"),
        Job(id="unknown", model="nobody", instances=[hostile_models.instance()]),
        job("guilty", "raise"),
        Job(id="bad", model="obedient", instances=[{"do": 1}]),
        job("version", version="9"),
        job("good too"),
    ]
    outcomes = run(registry, jobs)
    assert isinstance(outcomes[0], Expired)
    assert sizes(outcomes[1:]) == [[2], "unknown model", "ValueError", "bad input", "unknown model", [2]]


def test_two_jobs_of_one_id_get_an_outcome_each(registry: Registry):
    assert sizes(run(registry, [job("a", size=1), job("a", size=2)])) == [[2], [4]]


def test_an_error_is_told_with_its_job_and_model(registry: Registry):
    [_, raised] = run(registry, [job("a"), job("b", "raise")])
    assert isinstance(raised, FailedRun)
    assert raised.admitted.claimed.job.id == "b"
    assert raised.admitted.model.manifest.title == "obedient@1"


def test_an_error_that_cannot_be_put_in_words_fails_its_job_alone(registry: Registry):
    outcomes = run(registry, [job("a", "say nothing sensible"), job("b")])
    assert sizes(outcomes) == ["Unsayable", [2]]


def test_when_time_is_up_nothing_more_is_run_and_what_was_done_stays_done(
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
    jobs = [job(str(at), *["predict"] * MOST) for at in range(3)]
    jobs.insert(0, job("expired", expires=NOW - timedelta(seconds=1)))
    expired, *results = run(registry, jobs)
    assert isinstance(expired, Expired)
    assert sizes(results) == [[0] * MOST, "SoftTimeLimitExceeded", "SoftTimeLimitExceeded"]
    assert calls == [MOST, MOST]
