"""Trace a submit in the program that submits: a span, and the message headers that carry the trace to the worker.

If the program does not trace, with OpenTelemetry or with Sentry, nothing is imported and nothing is done. A trace
that is not sampled is not carried to the worker.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from headrace.wire.queues import queue_name

#: Whether the environment names a provider. OpenTelemetry reads the variable with each look at its provider, which
#: takes longer than all else here.
_NAMES_PROVIDER = "OTEL_PYTHON_TRACER_PROVIDER" in os.environ
#: Ends a span, with the name of the error that was raised, or None.
_EndSpan = Callable[[str | None], None]
#: The message headers of a started span, and the function that ends it.
_StartedSpan = tuple[dict[str, str], _EndSpan]


#: Starts a span of a queue, a number of jobs, and the id of a single job. None if the trace is not recorded.
_StartSpan = Callable[[str, int, str | None], _StartedSpan | None]
_NO_TRACE = contextlib.nullcontext(None)


def trace_submit(
    model: str, jobs: int, job: str | None = None
) -> contextlib.AbstractContextManager[dict[str, str] | None]:
    """Trace a submit of `jobs` jobs with a span of each tracer in use. The block gets their `Job.trace`.

    `job` is the id of a single job.
    """
    starts = _tracers_in_use()
    return _trace_submit(starts, model, jobs, job) if starts else _NO_TRACE


@contextlib.contextmanager
def _trace_submit(
    starts: Iterable[_StartSpan], model: str, jobs: int, job: str | None
) -> Iterator[dict[str, str] | None]:
    spans = [span for start in starts if (span := start(queue_name(model), jobs, job)) is not None]
    if not spans:
        yield None
        return
    error_name: str | None = None
    try:
        yield {name: text for headers, _ in spans for name, text in headers.items()} or None
    except BaseException as error:
        error_name = type(error).__name__
        raise
    finally:
        for _, end in spans:
            end(error_name)


def _tracers_in_use() -> list[_StartSpan]:
    starts: list[_StartSpan] = []
    api = sys.modules.get("opentelemetry.trace")
    # redis-py imports it if it is installed; a program that traces has set a provider, or named one.
    if (
        api is not None
        and (_NAMES_PROVIDER or getattr(api, "_TRACER_PROVIDER", api) is not None)
        and not isinstance(api.get_tracer_provider(), api.ProxyTracerProvider)
    ):
        starts.append(_start_opentelemetry_span)
    if "sentry_sdk" in sys.modules:
        starts.append(_start_sentry_span)
    return starts


def _start_opentelemetry_span(queue: str, jobs: int, job: str | None) -> _StartedSpan | None:
    from opentelemetry import propagate, trace

    span = trace.get_tracer("headrace").start_span(
        f"submit {queue}", kind=trace.SpanKind.PRODUCER, attributes=_attributes(queue, jobs, job)
    )
    if not span.is_recording():
        return None

    def end(error_name: str | None) -> None:
        if error_name is not None:
            span.set_status(trace.StatusCode.ERROR, error_name)
        span.end()

    headers: dict[str, str] = {}
    # Not the current span: while the operation waits for Redis, other code of the program runs.
    propagate.inject(headers, trace.set_span_in_context(span))
    return headers if span.get_span_context().trace_flags.sampled else {}, end


def _start_sentry_span(queue: str, jobs: int, job: str | None) -> _StartedSpan | None:
    import sentry_sdk

    parent = sentry_sdk.get_current_span()
    if parent is None or not parent.sampled:
        return None
    span = parent.start_child(op="queue.publish", name=queue)
    for name, value in _attributes(queue, jobs, job).items():
        span.set_data(name, value)

    def end(error_name: str | None) -> None:
        span.set_status("ok" if error_name is None else "internal_error")
        span.finish()

    baggage = span.to_baggage()
    return {"sentry-trace": span.to_traceparent(), **({"baggage": baggage.serialize()} if baggage else {})}, end


def _attributes(queue: str, jobs: int, job: str | None) -> dict[str, Any]:
    """Return the attributes of a span, named by OpenTelemetry's conventions for messaging."""
    attributes: dict[str, Any] = {
        "messaging.system": "redis",
        "messaging.destination.name": queue,
        "messaging.operation.name": "submit",
        "messaging.operation.type": "send",
        "messaging.batch.message_count": jobs,
    }
    return attributes if job is None else {**attributes, "messaging.message.id": job}
