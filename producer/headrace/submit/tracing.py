"""A submit in the traces of the program that submits: a span, and the headers that carry it with its jobs.

Where the program does not trace, with OpenTelemetry or with Sentry, nothing is imported and nothing is done. A
trace that is not sampled is not carried: to the worker it is none.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from headrace.wire.keys import queue_name

#: Ends a span; is told the name of the error there was.
_End = Callable[[str | None], None]
_Begun = tuple[dict[str, str], _End]


@contextlib.contextmanager
def submitting(model: str, jobs: int, job: str | None = None) -> Iterator[dict[str, str] | None]:
    """Spans around a submit of so many jobs, the job of that id if it is one; yields `Job.trace` for them."""
    begun = [found for begin in _in_use() if (found := begin(queue_name(model), jobs, job)) is not None]
    if not begun:
        yield None
        return
    failed: str | None = None
    try:
        yield {name: text for headers, _ in begun for name, text in headers.items()} or None
    except BaseException as error:
        failed = type(error).__name__
        raise
    finally:
        for _, end in begun:
            end(failed)


def _in_use() -> Iterator[Callable[[str, int, str | None], _Begun | None]]:
    api = sys.modules.get("opentelemetry.trace")
    # redis-py imports it where it is installed; the program traces when it has set a provider.
    if api is not None and not isinstance(api.get_tracer_provider(), api.ProxyTracerProvider):
        yield _opentelemetry
    if "sentry_sdk" in sys.modules:
        yield _sentry


def _opentelemetry(queue: str, jobs: int, job: str | None) -> _Begun | None:
    from opentelemetry import propagate, trace

    span = trace.get_tracer("headrace").start_span(
        f"submit {queue}", kind=trace.SpanKind.PRODUCER, attributes=_attributes(queue, jobs, job)
    )
    if not span.is_recording():
        return None

    def end(failed: str | None) -> None:
        if failed is not None:
            span.set_status(trace.StatusCode.ERROR, failed)
        span.end()

    headers: dict[str, str] = {}
    # It is not the current one: a plan that waits for Redis is left, and other code of the program runs.
    propagate.inject(headers, trace.set_span_in_context(span))
    return headers if span.get_span_context().trace_flags.sampled else {}, end


def _sentry(queue: str, jobs: int, job: str | None) -> _Begun | None:
    import sentry_sdk

    parent = sentry_sdk.get_current_span()
    if parent is None or not parent.sampled:
        return None
    span = parent.start_child(op="queue.publish", name=queue)
    for name, value in _attributes(queue, jobs, job).items():
        span.set_data(name, value)

    def end(failed: str | None) -> None:
        span.set_status("ok" if failed is None else "internal_error")
        span.finish()

    baggage = span.to_baggage()
    return {"sentry-trace": span.to_traceparent(), **({"baggage": baggage.serialize()} if baggage else {})}, end


def _attributes(queue: str, jobs: int, job: str | None) -> dict[str, Any]:
    """What both call it, by OpenTelemetry's conventions for messaging."""
    found: dict[str, Any] = {
        "messaging.system": "redis",
        "messaging.destination.name": queue,
        "messaging.operation.name": "submit",
        "messaging.operation.type": "send",
        "messaging.batch.message_count": jobs,
    }
    return found if job is None else {**found, "messaging.message.id": job}
