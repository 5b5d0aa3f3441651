"""A message that would end a job without a run is compared with what Redis holds of the job."""

from __future__ import annotations

import msgspec
import pytest

from headrace.results.started import encode_mark
from headrace.wire.record import DIGEST_BYTES, Record
from headrace_worker.execution.forged import find_problem

QUEUE, LEASE = "predict.churn", "me/1"


def record(model: str) -> bytes:
    return b"0" * DIGEST_BYTES + msgspec.json.encode(Record(model=model))


@pytest.mark.parametrize(
    ("stored", "state"),
    [
        (None, None),
        (record("churn"), None),
        (b"", None),
        (b"\xff" * 40, None),
        (record("churn"), encode_mark("a", "w", LEASE)),
        (None, b"\xff"),
        (None, b'{"status": "PENDING"}'),
        (record("churn"), b'{"status": "SUCCESS", "result": 1}'),
    ],
)
def test_a_job_that_nothing_protects_ends(stored: bytes | None, state: bytes | None) -> None:
    assert find_problem("a", QUEUE, LEASE, stored, state) is None


@pytest.mark.parametrize(
    ("stored", "state", "fact"),
    [
        (record("fraud"), None, "was submitted to the queue predict.fraud"),
        (record("churn2"), None, "was submitted to the queue predict.churn2"),
        (record("churn"), encode_mark("a", "w", "other/2"), "runs now"),
        (None, b'{"status": "STARTED", "result": {"pid": 7, "hostname": "w"}}', "runs now"),
        (None, b'{"result": null, "status": "STARTED"}', "runs now"),
    ],
)
def test_a_job_of_another_queue_or_claim_goes_on(stored: bytes | None, state: bytes | None, fact: str) -> None:
    assert find_problem("a", QUEUE, LEASE, stored, state) == (
        f"it bears the id of a job that {fact}, and that job goes on; submit this one under another id"
    )
