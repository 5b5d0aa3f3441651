"""The finish job of a run: check the parts against the receipts, write `_SUCCESS`, and forget the chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from headrace.errors import InvalidInput
from headrace.wire.bulk import ChunkStep, Receipt, Run, job_of_chunk, unit_of
from headrace.wire.outcome import Reason
from headrace_worker.bulk.chunk_job import Segment, rewrite_chunk
from headrace_worker.bulk.locations import Locations
from headrace_worker.bulk.plan_job import find_missing
from headrace_worker.bulk.run_manifest import RunManifest, read_manifest
from headrace_worker.bulk.run_state import JOBS_PER_CALL, RunStore
from headrace_worker.bulk.split import row_range, split
from headrace_worker.models.loader import LoadedModel
from headrace_worker.tables.result import RowError

#: The file that says that the output is complete.
SUCCESS_FILE = "_SUCCESS"


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `_SUCCESS`."""

    run: str
    model: str
    version: str
    chunks: int
    rows: int
    failed: int
    reasons: dict[str, int]
    bytes: int


def finish_run(run: Run, model: LoadedModel, store: RunStore, locations: Locations) -> Receipt:
    """Check and complete the output of a run whose chunks all have receipts. Return the sum of its receipts.

    Raises InvalidInput if a part is missing or is another than its receipt says, and TransientError if the storage
    fails.
    """
    plan = read_manifest(locations, run)
    if plan is None:
        raise InvalidInput(f"the output {run.output} of the run {run.name!r} has lost its manifest")
    receipts = store.read_receipts(run.name)
    missing = next(find_missing(plan.chunks, receipts), None)
    if missing is not None:
        raise InvalidInput(f"chunk {unit_of(missing)} of the run {run.name!r} has no receipt; resume the run")
    done = [_complete_chunk(step, receipts, model, locations) for step in plan.chunks]
    total = _add_receipts(done)
    _write_summary(plan, total, locations)
    _forget_jobs(plan, receipts, store)
    return total


def _complete_chunk(
    step: ChunkStep, receipts: Mapping[str, Receipt], model: LoadedModel, locations: Locations
) -> Receipt:
    """Return the receipt of a chunk, once its part is what the receipt says."""
    receipt = receipts[unit_of(step)]
    if receipt.chunks:
        return rewrite_chunk(model, step, locations, list(_segments(step, receipts)))
    file = locations.resolve(step.output, for_writing=True)
    size = file.storage.facts(file.path).size
    if size != receipt.bytes:
        raise InvalidInput(
            f"{step.output} has {size:,} bytes, and its receipt says {receipt.bytes:,}: somebody changed it; "
            "run the table again into another folder"
        )
    return receipt


def _segments(step: ChunkStep, receipts: Mapping[str, Receipt]) -> Iterator[Segment]:
    """Yield the pieces of a chunk that was split, in the order of their rows."""
    for piece in split(step):
        receipt = receipts[unit_of(piece)]
        if receipt.chunks:
            yield from _segments(piece, receipts)
            continue
        first, last = row_range(piece) or (0, 0)
        ended_by = next((reason for reason in ENDING_REASONS if reason in receipt.reasons), None)
        yield Segment(first, last, make_ending_error(ended_by) if ended_by and last - first == 1 else None)


#: The reasons of a row that ended its process.
ENDING_REASONS: tuple[Reason, ...] = ("crash", "timeout", "attempts exhausted")


def make_ending_error(reason: Reason) -> RowError:
    """Return the error of a row that ended its process each time it was predicted."""
    error = "TimeLimitExceeded" if reason == "timeout" else "WorkerLostError"
    message = "the process that predicted this row, alone, was lost each time"
    return RowError(reason=reason, error=error, message=message)


def _add_receipts(receipts: Sequence[Receipt]) -> Receipt:
    reasons = Counter[str]()
    for receipt in receipts:
        reasons.update(receipt.reasons)
    return Receipt(
        rows=sum(receipt.rows for receipt in receipts),
        failed=sum(receipt.failed for receipt in receipts),
        bytes=sum(receipt.bytes for receipt in receipts),
        milliseconds=sum(receipt.milliseconds for receipt in receipts),
        reasons=dict(sorted(reasons.items())),
        chunks=len(receipts),
    )


def _write_summary(plan: RunManifest, total: Receipt, locations: Locations) -> None:
    """Write `_SUCCESS`. It holds no times: an undisturbed run and one that was killed leave the same bytes."""
    summary = RunSummary(
        run=plan.run.name,
        model=plan.run.model,
        version=plan.version,
        chunks=total.chunks,
        rows=total.rows,
        failed=total.failed,
        reasons=total.reasons,
        bytes=total.bytes,
    )
    file = locations.own_file(plan.run.output, SUCCESS_FILE)
    with file.storage.write(file.path) as sink:
        sink.write(msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")


def _forget_jobs(plan: RunManifest, receipts: Mapping[str, Receipt], store: RunStore) -> None:
    """Delete what Redis holds of the jobs of the chunks. Their receipts stay."""
    jobs = [job_of_chunk(step) for step in plan.chunks]
    jobs += [f"{plan.run.name}:{unit}" for unit in receipts if "-" in unit]
    for first in range(0, len(jobs), JOBS_PER_CALL):
        store.forget_jobs(jobs[first : first + JOBS_PER_CALL])
