"""A trace travels with a job in the headers of its message; a job without a trace costs nothing more."""

from __future__ import annotations

import json

import msgspec
import pytest

from headrace.submit.tracing import trace_submit
from headrace.wire.message import Job, encode_message
from headrace.wire.parsing import parse

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = {"traceparent": PARENT, "tracestate": "a=1", "sentry-trace": "x-1", "baggage": "sentry-release=1%22"}
JOB = Job(id="a", model="churn", instances=[{"age": 41}])


def traced(trace: dict[str, str] | None) -> bytes:
    return encode_message(msgspec.structs.replace(JOB, trace=trace))


def test_a_trace_survives_encoding_and_parsing():
    assert parse(traced(TRACE)).to_job().trace == TRACE
    assert json.loads(traced(TRACE))["headers"]["traceparent"] == PARENT


@pytest.mark.parametrize("trace", [None, {}])
def test_without_a_trace_a_message_is_not_a_byte_longer(trace: dict[str, str] | None):
    assert traced(trace) == encode_message(JOB)
    assert parse(traced(trace)).to_job().trace is None


def test_a_trace_is_not_carried_over_to_the_next_message():
    traced(TRACE)
    assert parse(encode_message(JOB)).to_job().trace is None


def test_headers_inside_of_an_instance_are_not_changed():
    job = msgspec.structs.replace(JOB, instances=[{'"headers":{': '"headers":{'}], trace=TRACE)
    assert parse(encode_message(job)).to_job().instances == job.instances


@pytest.mark.parametrize("value", [7, None, [], {"a": 1}, ""])
def test_a_trace_header_that_is_no_text_is_ignored(value: object):
    message = json.loads(encode_message(JOB))
    message["headers"]["traceparent"] = value
    assert parse(json.dumps(message).encode()).to_job().trace is None


def test_a_program_that_does_not_trace_has_no_headers(monkeypatch: pytest.MonkeyPatch):
    import sys

    for name in ("opentelemetry.trace", "sentry_sdk"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with trace_submit("churn", 1, "a") as trace:
        assert trace is None
    assert "opentelemetry.trace" not in sys.modules
    assert "sentry_sdk" not in sys.modules
