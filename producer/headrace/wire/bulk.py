"""Bulk runs: jobs that carry a reference to rows of a table, not the rows.

A run is a *plan* job, a *chunk* job for each piece of the input, and a *finish* job. All are jobs of the queue
`bulk.<model>` and messages to the task `headrace.bulk`, with the arguments `[model, step]`. The outcome of a job
is its receipt. A reference is `location:path`: the settings of the workers say which folder or bucket that is.

Every field of a step has a limit, and unknown fields are refused: anybody who may push to the queue may write any.
`headrace.wire.bulk_checks` checks what a type cannot say.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

#: The Celery task that every job of a run is a message to.
BULK_TASK = "headrace.bulk"

#: The state of a run. The last three are final.
RunState = Literal["planning", "running", "finishing", "success", "failure", "cancelled"]
FINAL_STATES: tuple[RunState, ...] = ("success", "failure", "cancelled")

#: Priorities of the jobs of a run in their queue: its plan and its finish come before chunks, also of other runs.
PLAN_PRIORITY, CHUNK_PRIORITY = 6, 9
#: Seconds for which a run is remembered after it has changed.
RUN_SECONDS = 30 * 86_400

#: A version or an alias, a method, a column; a reference; a number of bytes, rows or chunks.
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Reference = Annotated[str, msgspec.Meta(min_length=3, max_length=1024)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
RunName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Columns = Annotated[tuple[Word, ...], msgspec.Meta(max_length=10_000)]


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The specification of a run. It never changes, except that the plan job sets the version."""

    #: The name of the run, chosen by the caller or made up. Submitting a name again resumes the run.
    name: RunName
    model: Word
    #: References: `in:2026-11/*.parquet`, a folder or a glob; and the folder of the parts.
    input: Reference
    output: Reference
    #: A number as text, or an alias until the plan job has resolved it. None: the version that serves.
    version: Word | None = None
    method: Word | None = None
    #: The column that identifies a row in the errors; it is kept in the output too.
    key: Word | None = None
    #: The columns of the input that the output keeps. None: all; empty: none.
    keep: Columns | None = None
    #: The failed rows at which the run is ended: a count, or a share of all rows if it is less than 1. None: no
    #: limit.
    max_failed: Annotated[float, msgspec.Meta(ge=0, le=2**53)] | None = None
    #: The caller of the gateway whose run this is. None for a run of another producer.
    owner: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] | None = None


class PlanStep(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="step",
    tag="plan",
):
    """List the files of a run, cut them into chunks, and enqueue these."""

    run: Run
    #: The number of times the run was planned or resumed, from 1.
    round: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1


class ChunkStep(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="step",
    tag="chunk",
):
    """Predict a piece of a file, and write it as a part."""

    #: The reference of the file, and of the part to write.
    input: Reference
    output: Reference
    #: The piece: for Parquet the numbers of the row groups `first` to `last`, exclusive, for text the bytes. None
    #: for `last`: to the end.
    first: Count = 0
    last: Count | None = None
    #: The number of the piece's first row in the file, from 0; for text, the line of its first record.
    first_row: Count = 0
    #: The rows of the piece to predict, from `rows[0]` to `rows[1]`, exclusive. None: all.
    rows: tuple[Count, Count] | None = None
    #: The number of rows to predict, if they were counted when the run was planned.
    count: Count | None = None
    #: True for some of the rows of a chunk that was split, as it had ended its process.
    is_split: bool = False
    #: Identifies the content of the file when it was planned: its size, and its etag or time. None: unchecked.
    content: Word | None = None
    #: The name of the run, and the number of the chunk in it. Empty for a chunk that belongs to no run.
    run: RunName | Literal[""] = ""
    chunk: Count = 0
    version: Word | None = None
    method: Word | None = None
    key: Word | None = None
    keep: Columns | None = None


class FinishStep(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="step",
    tag="finish",
):
    """Check the parts of a run against its receipts, and write `_SUCCESS`."""

    run: RunName


Step = PlanStep | ChunkStep | FinishStep


class Receipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The outcome of a job of a run."""

    #: Rows that were read, and those of them that failed.
    rows: int
    failed: int = 0
    #: The size of the part.
    bytes: int = 0
    milliseconds: int = 0
    #: Failed rows by reason.
    reasons: dict[str, int] = {}
    #: The chunks that a plan has cut, or into which a chunk was split that had ended its process.
    chunks: int = 0


class RunProgress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The progress of a run: the hash at `Keys.run`, decoded."""

    run: Run
    state: RunState
    #: Unix milliseconds by the server's clock. None: not yet.
    submitted_ms: int
    started_ms: int | None = None
    ended_ms: int | None = None
    #: The moment of the last receipt.
    receipt_ms: int | None = None
    #: Chunks and rows of the run; None before it is planned, or where rows are not counted beforehand.
    chunks: int | None = None
    rows: int | None = None
    #: Chunks that ended, rows that were read and rows that failed.
    chunks_done: int = 0
    rows_done: int = 0
    rows_failed: int = 0
    #: Chunks that failed, and are among the dead letters.
    chunks_failed: int = 0
    #: The time of all chunks in pool processes.
    milliseconds: int = 0
    #: Why the run failed. None otherwise.
    error: str | None = None
    #: The version that the plan job has chosen.
    version: str | None = None
    #: The number of times the run was planned or resumed.
    round: int = 1
    #: True if no further chunk is to run, as the run was cancelled or too many rows failed.
    is_stopped: bool = False


def run_of(step: Step) -> str:
    """Return the name of the run that a step belongs to; "" for a chunk of no run."""
    return step.run.name if isinstance(step, PlanStep) else step.run


def unit_of(step: ChunkStep) -> str:
    """Return the name of a chunk, or of a split piece of it, among the receipts of its run: `17`, `17-0-3125`."""
    if not step.is_split or step.rows is None:
        return str(step.chunk)
    return f"{step.chunk}-{step.rows[0]}-{step.rows[1]}"


def job_of_plan(run: str, round_: int) -> str:
    """Return the id of the job that plans a run."""
    return f"{run}:plan" if round_ == 1 else f"{run}:plan-{round_}"


def job_of_chunk(step: ChunkStep) -> str:
    """Return the id of the job of a chunk of a run."""
    return f"{step.run}:{unit_of(step)}"


def job_of_finish(run: str, round_: int) -> str:
    """Return the id of the job that finishes a run."""
    return f"{run}:finish" if round_ == 1 else f"{run}:finish-{round_}"


def describe_step(model: str, step: Step) -> str:
    """Return a short description of a bulk job: `churn, chunk 17 of nightly`. It names no file."""
    match step:
        case PlanStep():
            return f"{model}, plan of {step.run.name}"
        case FinishStep():
            return f"{model}, finish of {step.run}"
        case _:
            return f"{model}, chunk {unit_of(step)}{f' of {step.run}' if step.run else ''}"
