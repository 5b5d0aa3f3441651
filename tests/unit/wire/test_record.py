"""The record of a job: its first bytes, and what they tell a script."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from headrace.submit.options import JobOptions, parse_options
from headrace.wire.job_encoder import JobEncoder
from headrace.wire.record import DIGEST_BYTES, NAMES_BYTES, NOTIFY_MARK, decode_record

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def encode(**options: Any) -> bytes:
    """Return the record of a job with these options, without the digest."""
    submitted = parse_options("churn", JobOptions(**options), NOW)
    return JobEncoder(submitted.make_job("a", None, [1]), None).encode_record(1)


def test_the_record_of_a_job_with_a_notice_begins_with_the_mark_and_the_name():
    record = encode(notify="orders", owner="shop", metadata={"k": "v"}, delay=5)
    assert record.startswith(NOTIFY_MARK + b'orders","m":"churn"')


@pytest.mark.parametrize("options", [{}, {"owner": "shop"}, {"metadata": {"h": "orders"}}])
def test_no_other_record_begins_with_the_mark(options: dict[str, Any]):
    assert not encode(**options).startswith(NOTIFY_MARK[:5])


def test_listeners_and_model_stand_behind_the_endpoint_and_within_the_bytes_that_scripts_read():
    assert encode(listen="orders", metadata={"k": "v"}).startswith(b'{"l":"orders","m":"churn"')
    submitted = parse_options("m" * 64, JobOptions(notify="n" * 32, listen="l" * 32, owner="shop"), NOW)
    record = JobEncoder(submitted.make_job("a", None, [1]), None).encode_record(1)
    assert record.index(b'","t":') < NAMES_BYTES
    assert record.startswith(NOTIFY_MARK + b"n" * 32 + b'","l":"' + b"l" * 32 + b'","m":"' + b"m" * 64 + b'"')


def test_owner_and_notice_are_read_again():
    record = decode_record("a", b"." * DIGEST_BYTES + encode(owner="shop", notify="orders"))
    assert (record.owner, record.notify, record.model) == ("shop", "orders", "churn")
    record = decode_record("a", b"." * DIGEST_BYTES + encode())
    assert (record.owner, record.notify) == (None, None)


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ({"traceparent": f"00-{'4b' * 16}-00f067aa0ba902b7-01", "sentry-trace": "other"}, "4b" * 16),
        ({"sentry-trace": f"{'5c' * 16}-00f067aa0ba902b7-1"}, "5c" * 16),
        ({"traceparent": "<script>"}, None),
        (None, None),
    ],
)
def test_the_record_of_a_traced_job_has_the_id_of_its_trace(headers: dict[str, str] | None, trace: str | None):
    submitted = parse_options("churn", JobOptions(), NOW)
    encoder = JobEncoder(submitted.make_job("a", None, [1], trace=headers), None)
    assert decode_record("a", b"." * DIGEST_BYTES + encoder.encode_record(1)).trace == trace
