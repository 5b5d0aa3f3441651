"""The body of a request: what happened to which job, the same for each attempt, and no value nobody asked for."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from headrace.outcome import Cancelled, Expired, Failure, Prediction, Success
from headrace.wire.notice import Notice, NoticeContent
from headrace.wire.outcome import encode_outcome
from headrace.wire.record import Record
from headrace_gateway.notify.payload import MAX_PREDICTIONS, OUTCOME_BYTES, encode_payload

NOW = datetime(2026, 11, 30, tzinfo=UTC)
RECORD = Record(notify="orders", model="churn", metadata={"order": "4711"}, owner="shop")


def notice(status: str) -> Notice:
    content = NoticeContent(job="a", status=status, at_ms=1_796_040_000_123, record=RECORD)
    return Notice(id=f"a.{status}", content=content, attempts=(), message=b"", stored=b"")


def success(predictions: list) -> bytes:
    prediction = Prediction(model="churn", version="3", predictions=predictions)
    return encode_outcome(Success(job="a", prediction=prediction), NOW)


def body(status: str, stored: bytes | None, *, full: bool = False) -> dict:
    return msgspec.json.decode(encode_payload(notice(status), stored, full=full))


def test_a_body_says_what_happened_to_which_job_and_no_more():
    assert body("success", success([0.5])) == {
        "type": "job.success",
        "timestamp": "2026-11-30T12:00:00.123Z",
        "data": {
            "id": "a",
            "model": "churn",
            "version": "3",
            "status": "success",
            "metadata": {"order": "4711"},
        },
    }


def test_a_full_body_has_the_predictions():
    assert body("success", success([[1, 2], None]), full=True)["data"]["predictions"] == [[1, 2], None]


@pytest.mark.parametrize("count", [MAX_PREDICTIONS // 2 + 1, OUTCOME_BYTES])
def test_predictions_that_are_too_long_are_left_out(count):
    stored = success([1] * count)[:OUTCOME_BYTES]
    data = body("success", stored, full=True)["data"]
    assert (data["version"], data["predictions_omitted"], "predictions" in data) == ("3", "too long", False)


def test_a_failure_has_its_reason_and_class_without_message_or_traceback():
    failure = Failure(
        job="a",
        reason="permanent",
        error="ValueError",
        module="builtins",
        message="m-e-s-s",
        traceback="t-r-a-c-e",
    )
    encoded = encode_payload(notice("failure"), encode_outcome(failure, NOW), full=True)
    data = msgspec.json.decode(encoded)["data"]
    assert (data["status"], data["reason"], data["error"]) == ("failure", "permanent", "ValueError")
    assert b"m-e-s-s" not in encoded
    assert b"t-r-a-c-e" not in encoded


@pytest.mark.parametrize(("status", "outcome"), [("cancelled", Cancelled(job="a")), ("expired", Expired(job="a"))])
def test_a_cancelled_and_an_expired_job_are_told_apart(status, outcome):
    assert body(status, encode_outcome(outcome, NOW))["type"] == f"job.{status}"


@pytest.mark.parametrize("stored", [None, b"", b"{", encode_outcome(Cancelled(job="a"), NOW)])
def test_an_outcome_that_is_gone_or_replaced_leaves_a_thin_body(stored):
    data = body("success", stored, full=True)["data"]
    assert (data["status"], data["version"], data.get("predictions_omitted")) == ("success", None, "gone")


def test_each_attempt_has_the_same_bytes():
    stored = success([0.1, 0.2])
    assert len({encode_payload(notice("success"), stored, full=True) for _ in range(5)}) == 1
