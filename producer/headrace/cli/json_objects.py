"""The JSON objects that commands print about jobs, bulk runs and queues. Each is a line of `--json`.

Commands that are not here print a type of the client, or have their type in their own module. `docs/cli_json.py`
lists the type of each command, and writes its JSON Schema. Names and types are a promise: see
docs/reference/cli-json.md before you change one.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import msgspec

from headrace.catalog.pauses import Pause
from headrace.errors import Reason
from headrace.inspection.queues import QueueDepth
from headrace.wire.bulk import RunProgress, RunState
from headrace.wire.outcome import ClassLabel, Prediction, Status


class SubmittedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that Redis has accepted."""

    id: str
    model: str


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of a job."""

    id: str
    #: `waiting` until a worker claims it; `lost` if it is in no place; `unknown` if Redis has no such job.
    status: Status


class JobCancellation(msgspec.Struct, frozen=True, kw_only=True):
    """The result of cancelling a job."""

    id: str
    #: False if the job has another outcome, or is unknown.
    cancelled: bool
    #: The status afterwards.
    status: Status


class JobPrediction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The predictions of a job."""

    id: str
    model: str
    version: str
    #: The prediction of each instance, in the order of the instances.
    predictions: list[Any]
    #: The classes whose values each prediction holds, in their order, as `predict_proba` does.
    classes: tuple[ClassLabel, ...] | None = None
    #: The errors of those instances that failed, by their index; their predictions are null.
    errors: dict[int, str] | None = None

    @classmethod
    def from_prediction(cls, job: str, prediction: Prediction) -> Self:
        """Return the object of a job's prediction."""
        return cls(id=job, **{name: getattr(prediction, name) for name in prediction.__struct_fields__})


class JobFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A job without a prediction: it failed, was cancelled, or expired."""

    id: str
    reason: Reason | Literal["cancelled", "expired"]
    #: The name of the exception.
    error: str


class BulkRun(msgspec.Struct, frozen=True, kw_only=True):
    """A bulk run: what was submitted, and how far it is."""

    name: str
    model: str
    #: The references of the input, and of the folder of the parts.
    input: str
    output: str
    #: The version that predicts; as it was submitted until the run is planned. Null: the version that serves.
    version: str | None
    method: str | None
    #: The column that identifies a row in the errors.
    key: str | None
    #: The columns of the input that the output keeps. Null: all.
    keep: tuple[str, ...] | None
    #: The failed rows at which the run is ended: a count, or a share of all rows if it is less than 1.
    max_failed: float | None
    #: The caller of the HTTP API whose run this is.
    owner: str | None
    state: RunState
    #: Moments in unix milliseconds: submitted, planned, ended, and the last chunk that ended.
    submitted_ms: int
    started_ms: int | None
    ended_ms: int | None
    receipt_ms: int | None
    #: Chunks and rows of the run. Null: not counted yet.
    chunks: int | None
    rows: int | None
    #: Chunks that ended, rows that were read, and rows that failed.
    chunks_done: int
    rows_done: int
    rows_failed: int
    #: Chunks that failed as a whole, and are among the dead letters.
    chunks_failed: int
    #: The time of all chunks in pool processes.
    milliseconds: int
    #: The reason why the run failed.
    error: str | None
    #: The number of times the run was planned or resumed, from 1.
    round: int
    #: True if no further chunk is to run, as the run was cancelled or too many rows failed.
    is_stopped: bool

    @classmethod
    def from_progress(cls, progress: RunProgress, **more: Any) -> Self:
        """Return the object of a run. `more` is the fields of a subclass."""
        run = progress.run
        fields = {name: getattr(run, name) for name in run.__struct_fields__}
        fields |= {name: getattr(progress, name) for name in progress.__struct_fields__ if name != "run"}
        return cls(**{**fields, "version": progress.version or run.version, **more})


class ExplainedRun(BulkRun, frozen=True, kw_only=True):
    """A bulk run, and what it waits for."""

    #: Sentences for people.
    notes: tuple[str, ...]


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of one queue."""

    model: str
    queue: str
    #: Waiting jobs by priority, 0 first: `{"0": 12, "3": 0, "6": 0, "9": 40000}`.
    by_priority: dict[int, int]
    #: Jobs whose process or worker was lost; they run before all others, each alone.
    isolated: int
    #: Jobs that are not due yet: submitted with a delay, or to be retried.
    delayed: int
    #: Delayed jobs whose time has come.
    due: int
    #: Jobs that a worker has claimed.
    leased: int
    #: The pause of the model. Null: not paused.
    paused: Pause | None
    #: Jobs that a worker could claim now, isolated ones included.
    waiting: int
    #: Jobs that want a worker: waiting, due and leased; of a paused model leased alone.
    backlog: int

    @classmethod
    def from_depth(cls, depth: QueueDepth) -> Self:
        """Return the object of a queue."""
        return cls(**{name: getattr(depth, name) for name in cls.__struct_fields__})
