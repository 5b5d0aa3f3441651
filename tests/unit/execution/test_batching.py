"""Jobs are admitted or end without running; admitted jobs of one version and method form batches."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.wire.message import Job
from headrace.wire.outcome import Expired, Failure, Outcome
from headrace_worker.execution.batching import admit, form_batches
from headrace_worker.execution.claimed_job import Admitted, NotRunnableHere
from headrace_worker.models.registry import Registry
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store
from tests.support import hostile_models
from tests.support.claim_reports import claimed_job

NOW = datetime(2030, 1, 1, tzinfo=UTC)
MAX_INSTANCES = 10


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Two versions of `obedient` that take batches of 10 instances, and one of `other`."""
    store = Store(tmp_path_factory.mktemp("store") / "models")
    for _ in range(2):
        hostile_models.add(store, max_batch_instances=MAX_INSTANCES)
    hostile_models.add(store, "other", max_batch_instances=MAX_INSTANCES)
    return Registry(store, WorkerSettings(trust_pickle=True))


def job(name: str = "a", *, model: str = "obedient", count: int = 1, **options: Any) -> Job:
    return Job(id=name, model=model, instances=[hostile_models.instance()] * count, **options)


def admit_all(registry: Registry, jobs: list[Job]) -> list[Admitted]:
    results = [admit_one(registry, job) for job in jobs]
    assert all(isinstance(result, Admitted) for result in results)
    return results  # type: ignore[return-value]  # as the line above says


def admit_one(registry: Registry, job: Job) -> Admitted | NotRunnableHere | Outcome:
    return admit(claimed_job(job), registry, NOW)


def batched_ids(registry: Registry, jobs: list[Job]) -> list[list[str]]:
    return [[entry.claimed.job.id for entry in batch.jobs] for batch in form_batches(admit_all(registry, jobs))]


def test_jobs_of_one_version_and_method_are_one_batch(registry: Registry):
    assert batched_ids(registry, [job("a"), job("b", method="predict"), job("c", version="2")]) == [
        ["a", "b", "c"]
    ]


def test_versions_and_models_have_batches_of_their_own(registry: Registry):
    jobs = [job("a", version="1"), job("b"), job("c", version="1"), job("d", model="other"), job("e")]
    assert batched_ids(registry, jobs) == [["a", "c"], ["b", "e"], ["d"]]


def test_a_job_larger_than_a_batch_has_a_batch_of_its_own(registry: Registry):
    assert batched_ids(registry, [job("a"), job("b", count=MAX_INSTANCES * 3), job("c")]) == [["a"], ["b"], ["c"]]


def test_each_job_of_a_model_that_predicts_jobs_alone_is_a_batch(tmp_path: Path):
    store = Store(tmp_path)
    hostile_models.add(store, alone=True, max_batch_instances=MAX_INSTANCES)
    registry = Registry(store, WorkerSettings(trust_pickle=True))
    assert batched_ids(registry, [job("a"), job("b"), job("c", count=MAX_INSTANCES * 3)]) == [["a"], ["b"], ["c"]]


def test_two_jobs_of_one_id_are_two_jobs(registry: Registry):
    assert batched_ids(registry, [job("a"), job("a", count=2)]) == [["a", "a"]]


@given(
    st.lists(st.tuples(st.integers(1, 25), st.sampled_from(["1", "2", None])), min_size=1, max_size=30),
)
def test_every_job_is_in_one_batch_and_no_batch_of_several_is_too_large(
    registry: Registry, sizes_and_versions: Any
):
    ready = admit_all(
        registry,
        [
            job(str(number), count=count, version=version)
            for number, (count, version) in enumerate(sizes_and_versions)
        ],
    )
    made = form_batches(ready)
    assert sorted(id(entry) for batch in made for entry in batch.jobs) == sorted(map(id, ready))
    for batch in made:
        assert len(batch.jobs) == 1 or len(batch.instances) <= MAX_INSTANCES
        assert {(id(entry.model), entry.method) for entry in batch.jobs} == {(id(batch.model), batch.method)}
        left, right = batch.halves()
        assert [*left.jobs, *right.jobs] == list(batch.jobs)


@pytest.mark.parametrize("ago", [0, 1, 3600])
def test_a_job_whose_deadline_has_come_expires(registry: Registry, ago: float):
    assert admit_one(registry, job(expires=NOW - timedelta(seconds=ago))) == Expired(job="a")


def test_a_job_with_time_left_runs(registry: Registry):
    assert isinstance(admit_one(registry, job(expires=NOW + timedelta(milliseconds=1))), Admitted)


@pytest.mark.parametrize(
    ("options", "reason", "message"),
    [
        ({"model": "obediant"}, "unknown model", "no model 'obediant' in .*; did you mean 'obedient'?"),
        ({"version": "3"}, "unknown model", "obedient has no version '3'; it has 1, 2"),
        ({"version": "../../etc"}, "unknown model", "model 'obedient' has no alias '../../etc'"),
        ({"model": "../obedient"}, "bad input", "a model's name is 1 to 64 letters"),
        ({"model": ""}, "bad input", "a model's name is 1 to 64 letters"),
        ({"method": "transform"}, "bad input", "obedient@2 has no method 'transform'; it has predict"),
        ({"method": "fit"}, "bad input", "obedient@2 has no method 'fit'"),
        ({"method": "__init__"}, "bad input", "obedient@2 has no method '__init__'"),
        ({"count": 0}, "bad input", "a job needs at least one instance; the list is empty"),
    ],
)
def test_a_job_that_no_worker_can_run_fails_with_the_reason(
    registry: Registry, options: dict[str, Any], reason: str, message: str
):
    failure = admit_one(registry, job(**options))
    assert isinstance(failure, Failure)
    assert failure.reason == reason
    assert failure.message.startswith(message.partition(".*")[0]), failure.message
    assert failure.traceback is None


@pytest.mark.parametrize(
    "instance",
    [
        {},
        None,
        [],
        "predict",
        7,
        True,
        {"do": "predict", "secret": "Xyzzy"},
        {"do": "predict", "secret": "Xyzzy", "size": "Xyzzy"},
        {"do": "predict", "secret": "Xyzzy", "size": None},
        {"do": "predict", "secret": "Xyzzy", "size": True},
        {"do": "predict", "secret": "Xyzzy", "size": float("inf")},
        {"do": "predict", "secret": ["Xyzzy"], "size": 1},
        {"do": "predict", "secret": {"Xyzzy": "Xyzzy"}, "size": 1},
        {"do": "predict", "secret": "Xyzzy", "size": 1, "weight": "Xyzzy"},
    ],
)
def test_an_instance_that_does_not_fit_fails_its_job_and_is_not_quoted(registry: Registry, instance: Any):
    failure = admit_one(registry, Job(id="a", model="obedient", instances=[instance]))
    assert isinstance(failure, Failure)
    assert failure.reason == "bad input"
    assert failure.message.startswith("obedient@2: instance 0")
    assert "Xyzzy" not in failure.message
