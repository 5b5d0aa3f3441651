"""The in-memory client has the methods, checks and outcomes of the real client."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
import pytest

from headrace import Client, JobHandle, RunHandle
from headrace.catalog.contract import Array, Contract, Feature, Named, Output
from headrace.errors import (
    InvalidInput,
    JobCancelled,
    JobConflict,
    JobExpired,
    JobFailed,
    QueueFull,
    ResultTimeout,
    RunCancelled,
    RunConflict,
    UnknownLetter,
    UnknownModel,
    UnknownRun,
)
from headrace.settings import Settings
from headrace.testing import InMemoryClient, InMemoryJob, InMemoryRun

CHURN = Contract(
    model="churn",
    version="3",
    input=Named(features=(Feature(name="age", kind="number"),)),
    methods={"predict": Output(shape=(), classes=("no", "yes"))},
)


def over_40(instances: list[Any]) -> list[int]:
    return [int(instance["age"] > 40) for instance in instances]


def test_a_model_is_a_function():
    client = InMemoryClient({"churn": over_40})
    assert client.predict("churn", {"age": 41}).predictions == [1]
    job = client.submit("churn", instances=[{"age": 1}, {"age": 50}])
    assert (job.status(), job.done(), job.result().predictions) == ("success", True, [0, 1])


def test_a_model_is_a_contract_that_is_checked():
    client = InMemoryClient({"churn": CHURN})
    assert client.predict("churn", {"age": 41}).prediction == "no"
    assert client.predict("churn", {"age": 41}).version == "3"
    with pytest.raises(InvalidInput, match="'age' must be a number"):
        client.submit("churn", {"age": "x"})
    with pytest.raises(InvalidInput, match="no method"):
        client.submit("churn", {"age": 1}, method="transform")
    with pytest.raises(UnknownModel):
        client.submit("churn", {"age": 1}, version="9")


def test_a_function_may_have_a_contract_too():
    client = InMemoryClient({"churn": over_40}, contracts=[CHURN])
    assert client.predict("churn", {"age": 41}).prediction == 1
    with pytest.raises(InvalidInput):
        client.predict("churn", {"agee": 41})


def test_a_contract_of_arrays_predicts_in_its_shape():
    contract = Contract(model="m", version="1", input=Array(shape=(2,)), methods={"predict": Output(shape=(3,))})
    assert InMemoryClient({"m": contract}).predict("m", [1, 2]).prediction == [0, 0, 0]


def test_an_unknown_model_is_refused():
    with pytest.raises(UnknownModel, match="Known: churn"):
        InMemoryClient({"churn": over_40}).submit("chrun", {"age": 1})


def test_an_exception_of_the_function_is_the_failure_of_the_job():
    def broken(instances: list[Any]) -> list[int]:
        raise MemoryError("too much")

    job = InMemoryClient({"churn": broken}).submit("churn", {"age": 1})
    assert job.status() == "failure"
    with pytest.raises(JobFailed, match="MemoryError: too much"):
        job.result()


def test_a_missing_prediction_is_a_failure():
    with pytest.raises(JobFailed, match="0 predictions for 1"):
        InMemoryClient({"churn": lambda instances: []}).predict("churn", {"age": 1})


def test_the_same_id_is_one_job_and_other_input_a_conflict():
    client = InMemoryClient({"churn": over_40})
    for _ in range(2):
        client.submit("churn", {"age": 1}, id="a")
    assert len(client.submitted) == 1
    with pytest.raises(JobConflict):
        client.submit("churn", {"age": 2}, id="a")


def test_jobs_wait_for_run_which_takes_priority_0_first():
    run: list[int] = []

    def record(instances: list[Any]) -> list[int]:
        run.extend(instance["n"] for instance in instances)
        return [0]

    client = InMemoryClient({"m": record}, at_once=False)
    low_priority = client.submit("m", {"n": 2}, priority=9)
    client.submit("m", {"n": 1})
    assert [depth.waiting for depth in client.queues()] == [2]
    with pytest.raises(ResultTimeout, match=r"call `run\(\)`"):
        low_priority.result(timeout=60)
    assert client.run() == 2
    assert run == [1, 2]
    assert client.run() == 0


def test_a_job_can_be_cancelled_until_it_has_an_outcome():
    client = InMemoryClient({"churn": over_40}, at_once=False)
    job = client.submit("churn", {"age": 1})
    assert job.cancel()
    assert client.run() == 0
    with pytest.raises(JobCancelled):
        job.result()
    done = InMemoryClient({"churn": over_40}).submit("churn", {"age": 1})
    assert not done.cancel()


def test_a_job_can_expire():
    client = InMemoryClient({"churn": over_40}, at_once=False)
    job = client.submit("churn", {"age": 1}, expires=1e-6)
    client.run()
    with pytest.raises(JobExpired):
        job.result()


def test_a_full_queue_lists_the_accepted_jobs():
    client = InMemoryClient({"churn": over_40}, at_once=False, settings=Settings(queue_limit=2))
    with pytest.raises(QueueFull) as caught:
        client.submit_many("churn", [{"age": 1}] * 3, ids=["a", "b", "c"])
    assert caught.value.accepted == ("a", "b")


def test_as_completed_yields_finished_jobs():
    client = InMemoryClient({"churn": over_40})
    jobs = client.submit_many("churn", [{"age": age} for age in (1, 50)])
    assert [job.result().prediction for job in client.as_completed(jobs, timeout=1)] == [0, 1]


def test_the_model_receives_instances_as_decoded_from_json():
    received: list[Any] = []

    def record(instances: list[Any]) -> list[int]:
        received.extend(instances)
        return [0]

    InMemoryClient({"m": record}).predict("m", {"x": float("nan"), "y": (1, 2)})
    assert received == [{"x": None, "y": [1, 2]}]


@pytest.mark.parametrize(
    ("real", "memory"), [(Client, InMemoryClient), (JobHandle, InMemoryJob), (RunHandle, InMemoryRun)]
)
def test_every_public_method_of_the_real_client_exists_with_its_parameters(real: type, memory: type):
    for name, method in inspect.getmembers(real, inspect.isfunction):
        if name.startswith("_") or name == "set_outcome":
            continue
        assert hasattr(memory, name), name
        parameters = inspect.signature(method).parameters
        assert list(inspect.signature(getattr(memory, name)).parameters) == list(parameters), name


def test_a_failed_job_is_a_dead_letter_until_it_is_replayed_or_purged():
    fixed = []

    def churn(instances):
        if not fixed:
            raise ValueError("not yet")
        return [1 for _ in instances]

    client = InMemoryClient({"churn": churn})
    first, second = client.submit_many("churn", [{"age": 41}, {"age": 42}], ids=["a", "b"], metadata={"x": "1"})
    letter, _ = client.dead_letters.list(model="churn", reason="permanent", error="ValueError")
    assert (letter.id, letter.message, letter.instances, letter.metadata) == ("a", "not yet", 1, {"x": "1"})
    assert [group.count for group in client.dead_letters.groups()] == [2]
    assert client.dead_letters.count().letters == 2
    assert client.dead_letters.replay(ids=["a", "never-failed"], dry_run=True).missing == ("never-failed",)
    client.dead_letters.replay(ids=["a"])
    assert [attempt.cause for attempt in client.dead_letters.show("a").attempts] == ["replay"]
    fixed.append(True)
    progress = []
    assert client.dead_letters.replay(ids=["a"], version="4", on_progress=progress.append).done == 1
    assert progress[0].done == 1
    assert (first.result().version, second.status()) == ("4", "failure")
    assert [letter.id for letter in client.dead_letters.export()] == ["b"]
    with pytest.raises(InvalidInput, match="say which letters"):
        client.dead_letters.purge()
    assert client.dead_letters.purge(every=True).done == 1
    with pytest.raises(UnknownLetter):
        client.dead_letters.show("b")


def test_a_replayed_job_waits_for_run_if_jobs_do():
    answers = [ValueError("once"), [7]]

    def churn(_):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    client = InMemoryClient({"churn": churn}, at_once=False)
    job = client.submit("churn", {"age": 41})
    client.run()
    client.dead_letters.replay(model="churn")
    assert job.status() == "waiting"
    client.run()
    assert job.result().prediction == 7


@pytest.mark.parametrize("order", [(2, 10), (10, 2)])
def test_the_newest_of_several_contracts_serves(order: tuple[int, int]):
    contracts = [msgspec.structs.replace(CHURN, version=str(version)) for version in order]
    client = InMemoryClient({"churn": over_40}, contracts=contracts)
    assert client.contract("churn").version == "10"
    assert client.contract("churn", "2").version == "2"
    assert client.predict("churn", {"age": 41}).version == "10"
    assert client.predict("churn@2", {"age": 41}).version == "2"
    with pytest.raises(UnknownModel, match="it has 2, 10"):
        client.contract("churn", "3")


def test_a_bulk_run_is_checked_and_ends_as_a_success_without_a_file():
    client = InMemoryClient({"churn": CHURN})
    run = client.bulk("churn", "in:rows/*.parquet", "out:scores", name="nightly", key="customer")
    assert (run.status().state, run.status().run.key) == ("success", "customer")
    states: list[str] = []
    assert run.wait(5, on_progress=lambda progress: states.append(progress.state)).rows_done == 0
    assert states == ["success"]
    assert not run.resume()
    assert not run.cancel()
    assert (run.failures().reasons, run.explain().notes) == ({}, ())
    assert (
        client.bulk("churn", "in:rows/*.parquet", "out:scores", name="nightly", key="customer").name == "nightly"
    )
    with pytest.raises(RunConflict, match="another key"):
        client.bulk("churn", "in:rows/*.parquet", "out:scores", name="nightly")
    for arguments in (("chrun", "in:a", "out:b"), ("churn@9", "in:a", "out:b")):
        with pytest.raises(UnknownModel):
            client.bulk(*arguments)
    for arguments in (("churn", "s3://lake/a", "out:b"), ("churn", "a.parquet", "out:b")):
        with pytest.raises(InvalidInput):
            client.bulk(*arguments)
    with pytest.raises(InvalidInput, match="no method"):
        client.bulk("churn", "in:a", "out:b", method="transform")
    with pytest.raises(UnknownRun):
        client.bulk_run("never").status()


def test_bulk_runs_wait_with_the_jobs_of_a_client_that_does_not_run_at_once():
    client = InMemoryClient({"churn": over_40}, at_once=False)
    first, second = (client.bulk("churn", "in:a", "out:b", name=name) for name in ("first", "second"))
    with pytest.raises(ResultTimeout):
        first.wait()
    assert first.cancel()
    with pytest.raises(RunCancelled):
        first.wait()
    client.pause("churn")
    client.run()
    assert [progress.state for progress in client.bulk_runs("churn")] == ["planning", "cancelled"]
    client.resume("churn")
    client.run()
    assert (first.status().state, second.wait().state) == ("cancelled", "success")
    assert first.resume()
    client.run()
    assert (first.wait().state, first.status().round) == ("success", 2)


def test_an_unknown_id_is_cancelled_on_request_only():
    client = InMemoryClient({"churn": over_40})
    assert not client.job("typo").cancel()
    assert client.submit("churn", {"age": 41}, id="typo").result().prediction == 1
    assert client.job("early").cancel(unknown=True)
    with pytest.raises(JobCancelled):
        client.submit("churn", {"age": 41}, id="early").result()


def test_a_real_client_refuses_the_handles_of_an_in_memory_client():
    job = InMemoryClient({"churn": over_40}).submit("churn", {"age": 1})
    with (
        Client("redis://127.0.0.1:1", check=False) as client,
        pytest.raises(TypeError, match="JobHandle; got a InMem"),
    ):
        client.as_completed([job])
