"""A message beyond the limits of a job is refused before it is decoded, at a cost that grows with its bytes."""

from __future__ import annotations

import base64
import json
import time

import pytest

from headrace.errors import InvalidInput
from headrace.wire.limits import JobLimits
from headrace.wire.message import Job, encode_message
from headrace.wire.parsing import parse

LIMITS = JobLimits(max_bytes=8 * 1024 * 1024, max_values=1_000_000)


def job_of(instances: bytes) -> bytes:
    """Return the message of the job `a` with these instances, as JSON."""
    envelope = json.loads(encode_message(Job(id="a", model="churn", instances=[1])))
    body = b'[["churn",' + instances + b"],{},null]"
    return json.dumps({**envelope, "body": base64.b64encode(body).decode()}).encode()


@pytest.mark.parametrize(
    ("instances", "setting"),
    [
        (b"[" + b"[]," * 2_700_000 + b"[]]", "HEADRACE_MAX_JOB_VALUES"),
        (b"[" + b"[]," * 500_001 + b"[]]", "HEADRACE_MAX_JOB_VALUES"),
        (b"[" + b'{"a":1},' * 600_000 + b"{}]", "HEADRACE_MAX_JOB_VALUES"),
        (b"[" + b"[[[[[1]]]]]," * 250_000 + b"1]", "HEADRACE_MAX_JOB_VALUES"),
        (b'["' + b"x" * 9_000_000 + b'"]', "HEADRACE_MAX_JOB_BYTES"),
        (b"[" + b" " * 20_000_000 + b"]", "HEADRACE_MAX_JOB_BYTES"),
    ],
)
def test_a_job_beyond_a_limit_is_refused_under_its_id_and_names_the_setting(instances: bytes, setting: str):
    parsed = parse(job_of(instances), limits=LIMITS)
    assert (parsed.id, parsed.args) == ("a", [])
    with pytest.raises(InvalidInput, match=setting):
        parsed.to_job()


def test_the_values_of_the_headers_are_counted_too():
    envelope = json.loads(encode_message(Job(id="a", model="churn", instances=[1])))
    envelope["headers"]["task"] = [[]] * 1_000_001
    with pytest.raises(InvalidInput, match="HEADRACE_MAX_JOB_VALUES"):
        parse(json.dumps(envelope).encode(), limits=LIMITS).to_job()


@pytest.mark.parametrize(
    "instances",
    [
        b"[" + b"1234567," * 990_000 + b"1]",
        b'["' + b",[{" * 700_000 + b'"]',
        b'["' + b'\\",' * 1_100_000 + b'"]',
    ],
)
def test_a_job_within_the_limits_is_decoded_whatever_its_texts_hold(instances: bytes):
    assert parse(job_of(instances), limits=LIMITS).to_job().instances == json.loads(instances)


def test_a_smaller_limit_is_kept():
    limits = JobLimits(max_bytes=200_000, max_values=1000)
    with pytest.raises(InvalidInput, match=r"more than HEADRACE_MAX_JOB_BYTES of the worker \(200,000\)"):
        parse(job_of(b'["' + b"x" * 280_000 + b'"]'), limits=limits).to_job()
    with pytest.raises(InvalidInput, match=r"holds about 25,0.. values, more than the 1,000"):
        parse(job_of(b"[" + b"1234," * 25_000 + b"1]"), limits=limits).to_job()


def test_a_client_checks_its_instances_by_the_same_limits():
    limits = JobLimits(max_bytes=200_000, max_values=1000)
    limits.check_instances(b"[" + b"1," * 400 + b"1]")
    limits.check_instances(b'["' + b"," * 100_000 + b'"]')
    with pytest.raises(InvalidInput, match="more than the 200,000 of HEADRACE_MAX_JOB_BYTES"):
        limits.check_instances(b"[" + b" " * 200_000 + b"]")
    with pytest.raises(InvalidInput, match="more than the 1,000 of HEADRACE_MAX_JOB_VALUES"):
        limits.check_instances(b"[" + b"1," * 50_000 + b"1]")


@pytest.mark.parametrize("filler", [b"[],", b'"\\"",', b'"', b'\\"', b"{", b'"a":', b" ,"])
def test_the_cost_of_a_refusal_grows_with_the_bytes(filler: bytes):
    def cost(count: int) -> float:
        message = job_of(b"[" + filler * count)
        started_at = time.process_time()
        parsed = parse(message, limits=JobLimits(max_values=count))
        assert parsed.refusal is not None
        return time.process_time() - started_at

    small, large = (min(cost(count) for _ in range(3)) for count in (100_000, 800_000))
    assert large < max(0.005, small) * 8 * 5  # 64 times as much if the cost were quadratic
