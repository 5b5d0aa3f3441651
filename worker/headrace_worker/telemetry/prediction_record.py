"""The records of the prediction log: the jobs that are logged, and their fields."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from headrace.catalog.contract import Contract, Named
from headrace.errors import SettingError
from headrace.wire.message import Instance, submission_time
from headrace.wire.outcome import Failure, Outcome, Status, Success, outcome_status
from headrace.wire.queues import model_name

if TYPE_CHECKING:
    from headrace_worker.execution.claimed_job import Admitted
    from headrace_worker.execution.predict import BatchRun
    from headrace_worker.execution.report import ClaimReport

#: The version of the schema in docs/reference/prediction-log.md.
SCHEMA = 1
#: The replacement of a value that the contract excludes from the log.
REDACTED = "<redacted>"
#: The key of the models that the setting does not name.
_OTHER_MODELS = "*"

#: `full` is with inputs and outputs, `metadata` without.
Detail = Literal["full", "metadata"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One job and its outcome."""

    schema: int = SCHEMA
    #: The end of its claim: unix milliseconds, the server's clock.
    at_ms: int
    job: str
    model: str
    #: The version that ran, its runtime and method; None if the job did not run.
    version: str | None = None
    runtime: str | None = None
    method: str | None = None
    state: Status
    #: The reason and the name of the error of a failure; None otherwise.
    reason: str | None = None
    error: str | None = None
    worker: str
    claim: str
    #: 1 for a job without earlier attempts.
    attempt: int
    instance_count: int
    #: Milliseconds from the submission or `eta` to the claim; None if the job's id does not contain the first.
    wait_ms: int | None = None
    #: The batch it was in: milliseconds in the model, and instances; None if the job did not run.
    predict_ms: float | None = None
    batch_instances: int | None = None
    #: Inputs and outputs; None without full detail.
    instances: list[Any] | None = None
    predictions: list[Any] | None = None


class Levels(msgspec.Struct, frozen=True):
    """The log level of each model: the share of its jobs in full detail, or None for all jobs without payload."""

    by_model: Mapping[str, float | None]

    def is_logged(self, model: str) -> bool:
        """Return False if no job of the model is logged."""
        return self._share(model) != 0

    def detail(self, model: str, job: str) -> Detail | None:
        """Return the detail with which a job is logged; None if it is not.

        It depends on the job's id, so all workers decide alike.
        """
        share = self._share(model)
        if share is None:
            return "metadata"
        return "full" if share >= 1 or zlib.crc32(job.encode()) < share * 2**32 else None

    def _share(self, model: str) -> float | None:
        return self.by_model.get(model, self.by_model.get(_OTHER_MODELS, 0.0))


def parse_levels(setting: str) -> Levels:
    """Return the levels in HEADRACE_PREDICTION_LOG. Raises SettingError."""
    by_model: dict[str, float | None] = {}
    for entry in filter(None, (entry.strip() for entry in setting.split(","))):
        model, equals, level = entry.rpartition("=")
        model = model.strip() if equals else _OTHER_MODELS
        by_model[model] = _parse_level(level.strip())
        if not (model == _OTHER_MODELS or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", model)):
            raise SettingError(f"HEADRACE_PREDICTION_LOG cannot be used: {model[:80]!r} is no name of a model")
    return Levels(by_model)


def _parse_level(level: str) -> float | None:
    names: dict[str, float | None] = {"off": 0.0, "metadata": None, "full": 1.0}
    if level in names:
        return names[level]
    if re.fullmatch(r"[01]?\.?\d+", level) and 0 <= (share := float(level)) <= 1:
        return share
    raise SettingError(
        f"HEADRACE_PREDICTION_LOG cannot be used: {level[:80]!r} is not off, metadata, full, "
        "or a share from 0 to 1, such as 0.01"
    )


def make_records(report: ClaimReport, levels: Levels) -> Iterator[Record]:
    """Yield the records of a claim: one for each logged job that has its outcome now."""
    queue_model = model_name(report.claim.lease.queue) or ""
    outcomes = {outcome.job: outcome for outcome in report.published or ()}
    batch_instances = {id(run): run.batch.instance_count for run in report.batch_runs}
    at_ms = int(report.server_time(report.published_at).timestamp() * 1000)
    claimed_at = report.server_time(report.claim.claimed_monotonic)
    for result in (*report.results, *report.parsed.finished):
        job, run, admitted = result.claimed.job, result.batch_run, result.admitted
        outcome = outcomes.pop(job.id, None)
        if outcome is None:
            continue
        model = run.batch.model.manifest.name if run else queue_model
        detail = levels.detail(model, job.id)
        if detail is None:
            continue
        due = submission_time(job.id)
        if due is not None and job.eta is not None:
            due = max(due, job.eta)
        yield Record(
            at_ms=at_ms,
            job=job.id,
            model=model,
            state=outcome_status(outcome),
            worker=report.worker,
            claim=report.claim.lease.name,
            attempt=1 + len(result.claimed.attempts),
            instance_count=len(job.instances),
            wait_ms=None if due is None else max(0, round((claimed_at - due).total_seconds() * 1000)),
            **_failure_fields(outcome),
            **(_run_fields(run, batch_instances[id(run)]) if run else {}),
            **(_payload(admitted, outcome) if admitted and detail == "full" else {}),
        )


def _failure_fields(outcome: Outcome) -> dict[str, Any]:
    return {"reason": outcome.reason, "error": outcome.error} if isinstance(outcome, Failure) else {}


def _run_fields(run: BatchRun, batch_instances: int) -> dict[str, Any]:
    manifest = run.batch.model.manifest
    return {
        "version": manifest.version,
        "runtime": manifest.runtime,
        "method": run.batch.method,
        "predict_ms": round(run.duration * 1000, 3),
        "batch_instances": batch_instances,
    }


def _payload(admitted: Admitted, outcome: Outcome) -> dict[str, Any]:
    predictions = outcome.prediction.predictions if isinstance(outcome, Success) else None
    return {"instances": redact(admitted.model.contract, admitted.instances), "predictions": predictions}


def redact(contract: Contract, instances: Sequence[Instance]) -> list[Any]:
    """Return instances that fit a contract, with `REDACTED` for each value that the contract says to redact."""
    signature = contract.input
    if not isinstance(signature, Named):
        return [REDACTED] * len(instances) if signature.redact else list(instances)
    replacements = {feature.name: REDACTED for feature in signature.features if feature.redact}
    if not replacements:
        return list(instances)
    return [{**instance, **replacements} if isinstance(instance, dict) else REDACTED for instance in instances]
