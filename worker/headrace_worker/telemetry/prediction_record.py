"""What the prediction log keeps of a job: which jobs, and how much of them. Pure; the writing is elsewhere."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.catalog.contract import Contract, Named
from headrace.errors import SettingError
from headrace.wire.keys import model_name
from headrace.wire.message import Instance, submission_time
from headrace.wire.outcome import Failure, Outcome, Status, Success, outcome_status

if TYPE_CHECKING:
    from headrace_worker.execution.predict import BatchRun
    from headrace_worker.execution.report import ClaimReport

#: The version of the schema: docs/reference/prediction-log.md.
SCHEMA = 1
#: What stands where a value stood that the contract says is not to be kept.
REDACTED = "<redacted>"
#: In place of a model's name: all that are not named.
_OTHERS = "*"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One job and its outcome."""

    schema: int = SCHEMA
    #: When its claim ended: unix milliseconds, the server's clock.
    at_ms: int
    job: str
    model: str
    #: None where none ran.
    version: str | None = None
    runtime: str | None = None
    method: str | None = None
    state: Status
    #: Why a failure failed, and the name of its error.
    reason: str | None = None
    error: str | None = None
    worker: str
    claim: str
    attempt: int
    rows: int
    #: Milliseconds from submission, or the moment it was due, to the claim; None where its id does not tell.
    wait_ms: int | None = None
    #: Milliseconds of the batch it was in, and the rows of that.
    predict_ms: float | None = None
    batch_rows: int | None = None
    #: Its inputs and outputs, where all is kept.
    instances: list[Any] | None = None
    predictions: list[Any] | None = None


class Levels(msgspec.Struct, frozen=True):
    """How much is kept, by model: the share of the jobs that are kept whole, None for metadata of all."""

    by_model: Mapping[str, float | None]

    def keeps(self, model: str) -> bool:
        """Whether anything is kept of a model's jobs."""
        return self._share(model) != 0

    def whole(self, model: str, job: str) -> bool | None:
        """Whether a job is kept with inputs and outputs (True), without (False), or not at all (None)."""
        share = self._share(model)
        if share is None:
            return False
        # By its id, so that a job is kept by all workers or by none.
        return True if share >= 1 or zlib.crc32(job.encode()) < share * 2**32 else None

    def _share(self, model: str) -> float | None:
        return self.by_model.get(model, self.by_model.get(_OTHERS, 0.0))


def parse_levels(setting: str) -> Levels:
    """The levels in HEADRACE_PREDICTION_LOG. Raises SettingError."""
    found: dict[str, float | None] = {}
    for part in filter(None, (part.strip() for part in setting.split(","))):
        model, given, level = part.rpartition("=")
        model = model.strip() if given else _OTHERS
        found[model] = _level(level.strip())
        if not (model == _OTHERS or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", model)):
            raise SettingError(f"HEADRACE_PREDICTION_LOG cannot be used: {model[:80]!r} is no name of a model")
    return Levels(found)


def _level(word: str) -> float | None:
    named: dict[str, float | None] = {"off": 0.0, "metadata": None, "full": 1.0}
    if word in named:
        return named[word]
    if re.fullmatch(r"[01]?\.?\d+", word) and 0 <= (share := float(word)) <= 1:
        return share
    raise SettingError(
        f"HEADRACE_PREDICTION_LOG cannot be used: {word[:80]!r} is none of off, metadata, full "
        "and a share from 0 to 1, such as 0.01"
    )


def make_records(report: ClaimReport, wanted: Levels) -> Iterator[Record]:
    """The records of a claim: one for each job that has its outcome now."""
    queue_model = model_name(report.claim.lease.queue) or ""
    outcomes = {outcome.job: outcome for outcome in report.published or ()}
    rows = {id(run): run.batch.instance_count for run in report.batch_runs}
    at_ms = int(report.server_time(report.published_at).timestamp() * 1000)
    claimed = report.server_time(report.claim.claimed_monotonic)
    for result in (*report.results, *report.parsed.finished):
        job, run, admitted = result.claimed.job, result.batch_run, result.admitted
        outcome = outcomes.pop(job.id, None)
        if outcome is None:
            continue
        model = run.batch.model.manifest.name if run else queue_model
        whole = wanted.whole(model, job.id)
        if whole is None:
            continue
        since = submission_time(job.id)
        if since is not None and job.eta is not None:
            since = max(since, job.eta)
        yield Record(
            at_ms=at_ms,
            job=job.id,
            model=model,
            state=outcome_status(outcome),
            worker=report.worker,
            claim=report.claim.lease.name,
            attempt=1 + len(result.claimed.attempts),
            rows=len(job.instances),
            wait_ms=None if since is None else max(0, round((claimed - since).total_seconds() * 1000)),
            **_ended(outcome),
            **(_ran(run, rows[id(run)]) if run else {}),
            **(_payload(admitted.model.contract, admitted.instances, outcome) if whole and admitted else {}),
        )


def _ended(outcome: Outcome) -> dict[str, Any]:
    return {"reason": outcome.reason, "error": outcome.error} if isinstance(outcome, Failure) else {}


def _ran(run: BatchRun, rows: int) -> dict[str, Any]:
    manifest = run.batch.model.manifest
    return {
        "version": manifest.version,
        "runtime": manifest.runtime,
        "method": run.batch.method,
        "predict_ms": round(run.duration * 1000, 3),
        "batch_rows": rows,
    }


def _payload(contract: Contract, instances: Any, outcome: Outcome) -> dict[str, Any]:
    made = outcome.prediction.predictions if isinstance(outcome, Success) else None
    return {"instances": redact(contract, instances), "predictions": made}


def redact(contract: Contract, instances: list[Instance]) -> list[Any]:
    """Instances that fit a contract, without the values of what it says is not to be kept."""
    takes = contract.input
    if not isinstance(takes, Named):
        return [REDACTED] * len(instances) if takes.redact else instances
    struck = {feature.name: REDACTED for feature in takes.features if feature.redact}
    if not struck:
        return instances
    return [{**one, **struck} if isinstance(one, dict) else REDACTED for one in instances]
