"""An outcome is stored as Celery stores a result, and decoded whichever client stored it."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import JobCancelled, JobExpired, JobFailed
from headrace.wire.outcome import (
    Cancelled,
    Expired,
    Failure,
    Outcome,
    Prediction,
    Reason,
    Success,
    decode_or_malformed,
    decode_outcome,
    encode_outcome,
    outcome_status,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)

_PREDICTIONS = st.lists(
    st.none() | st.integers(-9, 9) | st.text() | st.lists(st.floats(0, 1), max_size=3), max_size=3
)
_OUTCOMES: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(
        Success,
        job=st.text(min_size=1),
        prediction=st.builds(
            Prediction,
            model=st.text(),
            version=st.text(),
            predictions=_PREDICTIONS,
            classes=st.none() | st.lists(st.text() | st.integers(-9, 9) | st.booleans()).map(tuple),
        ),
    ),
    st.builds(
        Failure,
        job=st.text(min_size=1),
        reason=st.sampled_from(get_args(Reason)),
        error=st.text(min_size=1),
        module=st.text(min_size=1),
        message=st.text(),
        traceback=st.none() | st.text(),
    ),
    st.builds(Cancelled, job=st.text(min_size=1)),
    st.builds(Expired, job=st.text(min_size=1)),
)


@given(outcome=_OUTCOMES)
def test_an_encoded_outcome_is_decoded_unchanged(outcome: Outcome):
    assert decode_outcome(encode_outcome(outcome, NOW)) == outcome


def test_the_status_comes_first_as_the_publishing_script_requires():
    assert encode_outcome(Cancelled(job="a"), NOW).startswith(b'{"status":"REVOKED"')


@pytest.mark.parametrize("status", ["STARTED", "RETRY", "PENDING", "RECEIVED"])
def test_an_unfinished_state_is_no_outcome(status: str):
    assert decode_outcome(json.dumps({"status": status, "result": {"pid": 1}, "task_id": "a"}).encode()) is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("WorkerLostError", "crash"),
        ("TimeLimitExceeded", "timeout"),
        ("NotRegistered", "malformed"),
        ("ValueError", "permanent"),
    ],
)
def test_a_failure_stored_by_celery_itself_has_a_reason(error: str, reason: str):
    stored = {
        "status": "FAILURE",
        "task_id": "a",
        "result": {"exc_type": error, "exc_message": ["it", "broke"], "exc_module": "billiard.exceptions"},
        "traceback": "Traceback ...",
    }
    failure = decode_outcome(json.dumps(stored).encode())
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.message, failure.traceback) == (reason, "it broke", "Traceback ...")


def test_a_revoke_by_celery_is_a_cancellation_or_an_expiry():
    def stored(message: str) -> bytes:
        raised = {"exc_type": "TaskRevokedError", "exc_message": [message], "exc_module": "celery.exceptions"}
        return json.dumps({"status": "REVOKED", "task_id": "a", "result": raised}).encode()

    assert decode_outcome(stored("revoked")) == Cancelled(job="a")
    assert decode_outcome(stored("terminated")) == Cancelled(job="a")
    assert decode_outcome(stored("expired")) == Expired(job="a")


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"status":"SUCCESS","task_id":"a","result":4}',
        b'{"status":"SUCCESS","task_id":"a","result":{"model":"m"}}',
        b"[" * 100_000,
    ],
)
def test_an_invalid_value_is_decoded_as_a_malformed_failure(stored: bytes):
    failure = decode_or_malformed("a", stored)
    assert isinstance(failure, Failure)
    assert failure.job == "a"
    assert failure.reason == "malformed"


@pytest.mark.parametrize(
    "result",
    [None, "text", 4, [], {"exc_type": None}, {"exc_type": 5, "exc_message": {"a": 1}}, {"exc_message": None}],
)
def test_a_failure_of_any_shape_can_be_decoded(result: Any):
    assert isinstance(
        decode_or_malformed("a", json.dumps({"status": "FAILURE", "task_id": "a", "result": result}).encode()),
        Failure,
    )


def test_getting_an_outcome_returns_the_prediction_or_raises():
    prediction = Prediction(model="m", version="1", predictions=[7])
    assert Success(job="a", prediction=prediction).get() == prediction
    failure = Failure(job="a", reason="crash", error="WorkerLostError", module="x", message="gone")
    with pytest.raises(JobFailed, match=r"job a failed \(crash\): WorkerLostError: gone") as caught:
        failure.get()
    assert (caught.value.job, caught.value.reason, caught.value.error) == ("a", "crash", "WorkerLostError")
    with pytest.raises(JobCancelled):
        Cancelled(job="a").get()
    with pytest.raises(JobExpired):
        Expired(job="a").get()


def test_every_outcome_has_its_status():
    assert [outcome_status(outcome) for outcome in (Cancelled(job="a"), Expired(job="a"))] == [
        "cancelled",
        "expired",
    ]


def test_only_a_job_with_one_instance_has_an_only_prediction():
    assert Prediction(model="m", version="1", predictions=[7]).prediction == 7
    with pytest.raises(ValueError, match="2 instances"):
        _ = Prediction(model="m", version="1", predictions=[7, 8]).prediction


def test_an_outcome_that_was_stored_without_classes_is_decoded():
    stored = b'{"status":"SUCCESS","task_id":"a","result":{"model":"m","version":"1","predictions":[[0.25,0.75]]}}'
    assert decode_outcome(stored) == Success(
        job="a", prediction=Prediction(model="m", version="1", predictions=[[0.25, 0.75]])
    )


def test_an_outcome_without_classes_is_stored_as_it_always_was():
    prediction = Prediction(model="m", version="1", predictions=[1])
    stored = json.loads(encode_outcome(Success(job="a", prediction=prediction), NOW))
    assert stored["result"] == {"model": "m", "version": "1", "predictions": [1]}


def test_values_are_labelled_by_their_classes():
    values = Prediction(model="m", version="1", predictions=[[0.25, 0.75]], classes=("basic", "gold"))
    assert values.labelled == {"basic": 0.25, "gold": 0.75}
    two = Prediction(model="m", version="1", predictions=[[1.0, 0.0], [0.5, 0.5]], classes=(0, 1))
    assert two.labelled == [{0: 1.0, 1: 0.0}, {0: 0.5, 1: 0.5}]
    with pytest.raises(ValueError, match="m@1 have no value for each class, as those of `predict_proba` have"):
        _ = Prediction(model="m", version="1", predictions=[7]).labelled


def test_the_error_of_a_failure_has_its_fields_and_survives_pickling():
    failure = Failure(
        job="a",
        reason="attempts exhausted",
        error="ValueError",
        module="builtins",
        message="nobody is that old",
        traceback="Traceback ...",
    )
    with pytest.raises(JobFailed) as caught:
        failure.get()
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert str(error) == "job a failed (attempts exhausted): ValueError: nobody is that old"
        assert (error.job, error.reason, error.error) == ("a", "attempts exhausted", "ValueError")
        assert (error.message, error.traceback) == ("nobody is that old", "Traceback ...")


@pytest.mark.parametrize(("outcome", "reason"), [(Cancelled(job="a"), "cancelled"), (Expired(job="a"), "expired")])
def test_a_cancellation_and_an_expiry_have_a_message_and_no_traceback(outcome: Outcome, reason: str):
    with pytest.raises(JobFailed) as caught:
        outcome.get()
    assert (caught.value.reason, caught.value.traceback) == (reason, None)
    assert caught.value.message.startswith("the job was")
