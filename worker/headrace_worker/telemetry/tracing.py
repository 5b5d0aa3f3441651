"""OpenTelemetry spans of jobs, in the traces of their producers, if OTEL_EXPORTER_OTLP_ENDPOINT is set.

    submit ──> wait        from the submission to the claim       in the trace of the job's producer
          └──> process     from the claim to the outcome
                  ┆ link
               predict     one call of the model, for a batch     in a trace of its own

A job has spans only if its producer's trace is sampled, and a batch only if it has such a job.
OpenTelemetry is installed with headrace-worker[otel]; without an endpoint it is not imported.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from celery import signals

from headrace.version import __version__
from headrace.wire.message import submission_time
from headrace.wire.outcome import Failure, outcome_status

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

    from headrace.wire.message import Job
    from headrace.wire.outcome import Outcome
    from headrace_worker.execution.claimed_job import ClaimedJob
    from headrace_worker.execution.predict import BatchRun
    from headrace_worker.execution.report import ClaimReport, Listener

log = logging.getLogger("headrace.worker")


def listeners(environ: Mapping[str, str] = os.environ) -> list[Listener]:
    """Return the listeners that send the spans of this process; none if tracing is off."""
    if not is_enabled(environ):
        return []
    try:
        provider = _provider(environ)
    except ModuleNotFoundError:
        log.warning(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed and no traces are sent: "
            "pip install headrace-worker[otel]"
        )
        return []
    # A pool process ends without the exit handlers of Python, which would send the last spans.
    signals.worker_process_shutdown.connect(lambda **_: provider.shutdown(), weak=False)
    return [ClaimTracer(provider)]


def is_enabled(environ: Mapping[str, str]) -> bool:
    """Return True if OpenTelemetry's own variables turn tracing on."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return bool(environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))


def _provider(environ: Mapping[str, str]) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    has_name = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    attributes = {"service.version": __version__} | ({} if has_name else {"service.name": "headrace-worker"})
    provider = TracerProvider(resource=Resource.create(attributes))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class ClaimTracer:
    """A listener that makes the spans of a claim after its end, with the times of its report."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import context, propagate, trace

        self._api, self._extract, self._root = trace, propagate.extract, context.Context()
        self._tracer: Tracer = provider.get_tracer("headrace", __version__)

    def on_claim_finished(self, report: ClaimReport) -> None:
        """Make the spans of the claim's sampled jobs and their batches."""
        contexts = {
            claimed.job.id: context
            for claimed in report.parsed.jobs
            if (context := self._parent_context(claimed.job)) is not None
        }
        if not contexts or report.published is None:
            return
        batches: dict[str, Span] = {}
        for run in report.batch_runs:
            if any(admitted.claimed.job.id in contexts for admitted in run.batch.jobs):
                span = self._start_batch_span(run, report)
                batches.update((admitted.claimed.job.id, span) for admitted in run.batch.jobs)
        outcomes: dict[str, Outcome] = {outcome.job: outcome for outcome in report.published}
        retry_errors = {failed.admitted.claimed.job.id: failed.error for failed in report.decisions.retried}
        for claimed in report.parsed.jobs:
            job = claimed.job
            if job.id in contexts:
                self._make_wait_span(job, contexts[job.id], report)
                process = self._start_process_span(claimed, contexts[job.id], batches.get(job.id), report)
                self._end_process_span(process, outcomes.get(job.id), retry_errors.get(job.id), report)
        for run in report.batch_runs:
            if (batch_span := batches.get(run.batch.jobs[0].claimed.job.id)) is not None:
                batch_span.end(_nanoseconds(report.server_time(run.finished_at)))

    def _parent_context(self, job: Job) -> Any:
        """Return the context of the job's submission; None if it is not sampled."""
        if not job.trace or "traceparent" not in job.trace:
            return None
        context = self._extract(job.trace)
        parent = self._api.get_current_span(context).get_span_context()
        return context if parent.is_valid and parent.trace_flags.sampled else None

    def _start_batch_span(self, run: BatchRun, report: ClaimReport) -> Span:
        manifest = run.batch.model.manifest
        return self._tracer.start_span(
            f"predict {manifest.name}",
            context=self._root,
            start_time=_nanoseconds(report.server_time(run.started_at)),
            attributes={
                "headrace.model": manifest.name,
                "headrace.version": manifest.version,
                "headrace.runtime": manifest.runtime,
                "headrace.claim": report.claim.lease.name,
                "headrace.jobs": len(run.batch.jobs),
                "headrace.instances": run.batch.instance_count,
            },
        )

    def _make_wait_span(self, job: Job, context: Any, report: ClaimReport) -> None:
        claimed_at = report.server_time(report.claim.claimed_monotonic)
        # The producer's clock may be ahead.
        submitted_at = min(submission_time(job.id) or claimed_at, claimed_at)
        queue = report.claim.lease.queue
        span = self._tracer.start_span(
            f"wait {queue}",
            context=context,
            start_time=_nanoseconds(submitted_at),
            attributes={"messaging.destination.name": queue},
        )
        span.end(_nanoseconds(claimed_at))

    def _start_process_span(
        self, claimed: ClaimedJob, context: Any, batch: Span | None, report: ClaimReport
    ) -> Span:
        queue, job = report.claim.lease.queue, claimed.job
        span = self._tracer.start_span(
            f"process {queue}",
            context=context,
            kind=self._api.SpanKind.CONSUMER,
            start_time=_nanoseconds(report.server_time(report.claim.claimed_monotonic)),
            links=[] if batch is None else [self._api.Link(batch.get_span_context())],
            attributes={
                "messaging.system": "redis",
                "messaging.destination.name": queue,
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.message.id": job.id,
                "messaging.message.body.size": len(claimed.message),
                "headrace.model": job.model,
                "headrace.attempt": len(claimed.attempts) + 1,
                "headrace.worker": report.worker,
            },
        )
        if batch is not None:
            batch.add_link(span.get_span_context())
        return span

    def _end_process_span(
        self, span: Span, outcome: Outcome | None, retry_error: BaseException | None, report: ClaimReport
    ) -> None:
        error = self._api.StatusCode.ERROR
        if retry_error is not None:
            span.set_attribute("headrace.outcome", "retry")
            span.set_status(error, type(retry_error).__name__)
        elif outcome is not None:
            span.set_attribute("headrace.outcome", outcome_status(outcome))
            if isinstance(outcome, Failure):
                # Without the message, which may be long; the dead letter has it.
                span.set_attribute("error.type", outcome.error)
                span.set_status(error, outcome.reason)
        span.end(_nanoseconds(report.server_time(report.published_at)))


def _nanoseconds(moment: datetime) -> int:
    """Return a time as unix nanoseconds, OpenTelemetry's unit."""
    return int(moment.timestamp() * 1e9)
