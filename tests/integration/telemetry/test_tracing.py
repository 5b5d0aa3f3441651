"""The spans of a job are in its producer's trace, from the submission to the outcome."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_worker
from headrace_worker.store.store import Store
from headrace_worker.telemetry.tracing import is_enabled, listeners
from tests.support import hostile_models
from tests.support.otlp_endpoint import Collector

#: A value of an instance, which no span may contain.
WORD = "Rumpelstiltskin"

SERVICE = """
import sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from headrace import Client

url, do, count, secret = sys.argv[1:]
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
with Client(url) as client, trace.get_tracer("service").start_as_current_span("GET /predict") as span:
    jobs = client.submit_many("obedient", [{"do": do, "secret": secret, "size": 1.0}] * int(count))
    for job in jobs:
        job.outcome(timeout=20)
        print(job.id)
    print(format(span.get_span_context().trace_id, "032x"))
provider.shutdown()
"""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


@pytest.fixture(scope="module")
def url(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the Redis of a worker that traces."""
    folder: Path = tmp_path_factory.mktemp("traces")
    hostile_models.add(Store(folder / "models"))
    settings = {
        **hostile_models.SERVING,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with EmbeddedRedis("--appendfsync", "no") as redis:
        worker = start_worker(redis.url, folder / "models", folder, concurrency=1, **settings)
        try:
            yield redis.url
        finally:
            worker.stop()


def submit_as_a_service(
    url: str, collector: Collector, do: str, count: int, **environ: str
) -> tuple[list[str], str]:
    """Submit jobs from a program that traces, wait for them, and return their ids and the id of its trace."""
    environ = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, **environ}
    command = [sys.executable, "-c", SERVICE, url, do, str(count), WORD]
    done = subprocess.run(command, env=environ, capture_output=True, check=True, text=True, timeout=60)
    *jobs, trace = done.stdout.split()
    return jobs, trace


def attributes(span: Any) -> dict[str, Any]:
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}


def test_jobs_are_in_the_trace_of_their_service_and_linked_to_the_batch(url: str, collector: Collector):
    jobs, trace = submit_as_a_service(url, collector, "predict", 3)
    trace_id = bytes.fromhex(trace)
    processes = collector.wait(
        lambda span: span.name == "process predict.obedient" and span.trace_id == trace_id, 3
    )
    by_name = {span.name: span for span in collector.spans() if span.trace_id == trace_id}
    submit, request = by_name["submit predict.obedient"], by_name["GET /predict"]
    assert (submit.trace_id, submit.parent_span_id) == (trace_id, request.span_id)
    assert attributes(submit)["messaging.batch.message_count"] == 3
    assert {attributes(span)["messaging.message.id"] for span in processes} == set(jobs)
    waits = collector.wait(lambda span: span.name == "wait predict.obedient" and span.trace_id == trace_id, 3)
    batches = {span.span_id: span for span in collector.wait(lambda span: span.name == "predict obedient")}
    for span in [*processes, *waits]:
        assert span.parent_span_id == submit.span_id
        assert span.start_time_unix_nano <= span.end_time_unix_nano
    for span in processes:
        assert attributes(span)["headrace.outcome"] == "success"
        assert attributes(span)["headrace.attempt"] == 1
        batch = batches[span.links[0].span_id]
        assert span.span_id in {link.span_id for link in batch.links}
        assert batch.trace_id != trace_id
        assert attributes(batch)["headrace.version"] == "1"
        assert attributes(batch)["headrace.runtime"] == "sklearn"
        assert span.start_time_unix_nano <= batch.start_time_unix_nano <= batch.end_time_unix_nano
        assert batch.end_time_unix_nano <= span.end_time_unix_nano


def test_a_failure_is_an_error_span_without_a_payload(url: str, collector: Collector):
    _, trace = submit_as_a_service(url, collector, "raise", 1)
    trace_id = bytes.fromhex(trace)
    (span,) = collector.wait(lambda span: span.name == "process predict.obedient" and span.trace_id == trace_id)
    assert (span.status.code, span.status.message) == (2, "permanent")
    assert attributes(span)["error.type"] == "ValueError"
    assert all(WORD.encode() not in body for body in collector.bodies)


def test_a_trace_that_is_not_sampled_has_no_spans(url: str, collector: Collector):
    submit_as_a_service(url, collector, "predict", 1, OTEL_TRACES_SAMPLER="always_off")
    jobs, _ = submit_as_a_service(
        url, collector, "predict", 1
    )  # spans arrive in order, so all earlier ones have arrived
    collector.wait(lambda span: attributes(span).get("messaging.message.id") == jobs[0])
    submits = [span for span in collector.spans() if span.name == "submit predict.obedient"]
    traces = {span.trace_id for span in collector.spans() if span.name == "process predict.obedient"}
    assert traces <= {span.trace_id for span in submits}


@pytest.mark.parametrize(
    ("environ", "enabled"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_opentelemetry_s_own_variables_turn_tracing_on(environ: dict[str, str], enabled: bool):
    assert is_enabled(environ) is enabled
    assert enabled or listeners(environ) == []


def test_without_the_extra_a_warning_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    for name in [name for name in sys.modules if name.startswith("opentelemetry.exporter")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert listeners({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}) == []
    assert "pip install headrace-worker[otel]" in caplog.text
