"""Jobs in the OpenTelemetry traces of those who submitted them, where OTEL_EXPORTER_OTLP_ENDPOINT is set.

    submit ──> wait        from the submission to the claim       in the trace of the job's producer
          └──> process     from the claim to the outcome
                  ┆ link
               predict     one call of the model, for a batch     in a trace of its own

A job whose producer does not trace, or did not sample its trace, has no spans; a batch without such a job neither.
Everything comes in headrace-worker[otel]; without it, or without an endpoint, nothing is imported or done.
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
    """Who tells OpenTelemetry of claims, in this process; nobody where it is off."""
    if not is_enabled(environ):
        return []
    try:
        provider = _provider(environ)
    except ModuleNotFoundError:
        log.warning(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, and no traces are sent: pip install headrace-worker[otel]"
        )
        return []
    # A pool process ends without Python's own farewell, in which spans are sent otherwise.
    signals.worker_process_shutdown.connect(lambda **_: provider.shutdown(), weak=False)
    return [Traces(provider)]


def is_enabled(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables ask for traces."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return bool(environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))


def _provider(environ: Mapping[str, str]) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    about = {"service.version": __version__} | ({} if named else {"service.name": "headrace-worker"})
    provider = TracerProvider(resource=Resource.create(about))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Traces:
    """Makes the spans of a claim when it has ended, with the moments at which things happened."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import context, propagate, trace

        self._api, self._extract, self._root = trace, propagate.extract, context.Context()
        self._tracer: Tracer = provider.get_tracer("headrace", __version__)

    def on_claim_finished(self, report: ClaimReport) -> None:
        """A claim has ended."""
        traced = {
            claimed.job.id: context
            for claimed in report.parsed.jobs
            if (context := self._context(claimed.job)) is not None
        }
        if not traced or report.published is None:
            return
        batches: dict[str, Span] = {}
        for run in report.batch_runs:
            if any(admitted.claimed.job.id in traced for admitted in run.batch.jobs):
                span = self._batch(run, report)
                batches.update((admitted.claimed.job.id, span) for admitted in run.batch.jobs)
        ends: dict[str, Outcome] = {outcome.job: outcome for outcome in report.published}
        again = {failed.admitted.claimed.job.id: failed.error for failed in report.decisions.retried}
        for claimed in report.parsed.jobs:
            job = claimed.job
            if job.id in traced:
                self._wait(job, traced[job.id], report)
                process = self._process(claimed, traced[job.id], batches.get(job.id), report)
                self._end(process, ends.get(job.id), again.get(job.id), report)
        for run in report.batch_runs:
            if (predicted := batches.get(run.batch.jobs[0].claimed.job.id)) is not None:
                predicted.end(_ns(report.server_time(run.finished_at)))

    def _context(self, job: Job) -> Any:
        """The context of a job's submit; None where it is not traced."""
        if not job.trace or "traceparent" not in job.trace:
            return None
        context = self._extract(job.trace)
        given = self._api.get_current_span(context).get_span_context()
        return context if given.is_valid and given.trace_flags.sampled else None

    def _batch(self, run: BatchRun, report: ClaimReport) -> Span:
        manifest = run.batch.model.manifest
        return self._tracer.start_span(
            f"predict {manifest.name}",
            context=self._root,
            start_time=_ns(report.server_time(run.started_at)),
            attributes={
                "headrace.model": manifest.name,
                "headrace.version": manifest.version,
                "headrace.runtime": manifest.runtime,
                "headrace.claim": report.claim.lease.name,
                "headrace.jobs": len(run.batch.jobs),
                "headrace.rows": run.batch.instance_count,
            },
        )

    def _wait(self, job: Job, context: Any, report: ClaimReport) -> None:
        claimed = report.server_time(report.claim.claimed_monotonic)
        # Who submits has a clock of its own.
        began = min(submission_time(job.id) or claimed, claimed)
        queue = report.claim.lease.queue
        span = self._tracer.start_span(
            f"wait {queue}",
            context=context,
            start_time=_ns(began),
            attributes={"messaging.destination.name": queue},
        )
        span.end(_ns(claimed))

    def _process(self, claimed: ClaimedJob, context: Any, batch: Span | None, report: ClaimReport) -> Span:
        queue, job = report.claim.lease.queue, claimed.job
        span = self._tracer.start_span(
            f"process {queue}",
            context=context,
            kind=self._api.SpanKind.CONSUMER,
            start_time=_ns(report.server_time(report.claim.claimed_monotonic)),
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

    def _end(self, span: Span, outcome: Outcome | None, again: BaseException | None, report: ClaimReport) -> None:
        error = self._api.StatusCode.ERROR
        if again is not None:
            span.set_attribute("headrace.outcome", "runs again")
            span.set_status(error, type(again).__name__)
        elif outcome is not None:
            span.set_attribute("headrace.outcome", outcome_status(outcome))
            if isinstance(outcome, Failure):
                # Not its message: it may be long, and the log and the dead letter have it.
                span.set_attribute("error.type", outcome.error)
                span.set_status(error, outcome.reason)
        span.end(_ns(report.server_time(report.published_at)))


def _ns(moment: datetime) -> int:
    """Unix nanoseconds, as OpenTelemetry counts."""
    return int(moment.timestamp() * 1e9)
