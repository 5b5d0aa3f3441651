"""The plan job of a run: choose its version, list its files, cut them into chunks, and enqueue all of them.

    claim the output ─> list and cut, or read the manifest ─> write the manifest ─> enqueue the chunks without
    receipt

Planning twice is harmless: the chunks are those of the manifest, and their jobs have the same ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

from headrace.catalog.contract import Named
from headrace.connection.commands import execute, run
from headrace.errors import InvalidInput
from headrace.inspection.lost import find_lost_if_permitted
from headrace.wire.bulk import ChunkStep, PlanStep, Receipt, Run, unit_of
from headrace.wire.signing import JobKeys
from headrace_worker.bulk.chunk_rows import choose_chunk_rows, estimate_row_ms
from headrace_worker.bulk.chunks import cut
from headrace_worker.bulk.jobs import make_chunk_job
from headrace_worker.bulk.locations import Locations
from headrace_worker.bulk.ownership import claim_output
from headrace_worker.bulk.receipts import find_receipt
from headrace_worker.bulk.run_manifest import (
    MAX_CHUNKS,
    RunManifest,
    digest_version,
    read_manifest,
    write_manifest,
)
from headrace_worker.bulk.run_state import JOBS_PER_CALL, RunStore
from headrace_worker.bulk.sources import list_sources, name_chunk
from headrace_worker.bulk.split import split
from headrace_worker.manifest import Manifest


def plan_run(
    step: PlanStep,
    manifest: Manifest,
    store: RunStore,
    locations: Locations,
    job_keys: JobKeys | None,
    *,
    now_ms: int,
) -> Receipt | None:
    """Plan a run on the version of this manifest. Return None if the run was cancelled, or is planned anew.

    Raises InvalidInput for an input or output that cannot be used, and TransientError if a storage fails.
    """
    plan = _read_plan(step.run, manifest, store, locations)
    name, round_ = step.run.name, step.round
    if not store.begin(
        name,
        round_=round_,
        version=plan.version,
        chunks=len(plan.chunks),
        rows=plan.rows,
        now_ms=now_ms,
    ):
        return None
    receipts = store.read_receipts(name)
    if not receipts:
        receipts = _restore_receipts(plan, store, locations)
    for steps in _pages(find_missing(plan.chunks, receipts)):
        jobs = [make_chunk_job(step.run.model, chunk, job_keys, now_ms=now_ms) for chunk in steps]
        waiting = store.enqueue(step.run, round_, jobs)
        if waiting and round_ > 1:
            lost = run(
                partial(execute, store.client),
                find_lost_if_permitted(store.keys, [job.id for job in waiting], set()),
            )
            store.forget_jobs(list(lost))
            waiting = store.enqueue(step.run, round_, [job for job in waiting if job.id in lost])
        if waiting is None:
            return None
    return Receipt(rows=0, chunks=len(plan.chunks))


def find_missing(chunks: Iterable[ChunkStep], receipts: Mapping[str, Receipt]) -> Iterator[ChunkStep]:
    """Yield the chunks without a receipt; of chunks that were split, their pieces without one."""
    for step in chunks:
        receipt = receipts.get(unit_of(step))
        if receipt is None:
            yield step
        elif receipt.chunks:
            yield from find_missing(split(step), receipts)


def _read_plan(run_: Run, manifest: Manifest, store: RunStore, locations: Locations) -> RunManifest:
    """Return the plan of a run: the one in its output, or a new one, which is written there."""
    claim_output(locations, run_.output, run_.name)
    digest = digest_version(manifest)
    plan = read_manifest(locations, run_)
    if plan is None:
        plan = make_plan(run_, manifest, locations, row_ms=store.read_row_ms(run_, manifest.version))
        write_manifest(locations, plan)
    elif (plan.version, plan.digest) != (manifest.version, digest):
        raise InvalidInput(
            f"the run {run_.name!r} was planned on version {plan.version} of {run_.model}, and the worker has "
            f"version {manifest.version} with other content; rows of two versions are not mixed"
        )
    return plan


def make_plan(run_: Run, manifest: Manifest, locations: Locations, *, row_ms: float | None) -> RunManifest:
    """List the files of a run and cut them into chunks. `row_ms` are the milliseconds of a row, if known."""
    features = manifest.contract.input
    columns = len(features.features) if isinstance(features, Named) else 1
    if row_ms is None:
        row_ms = estimate_row_ms(manifest, columns)
    rows = choose_chunk_rows(row_ms, manifest.limits)
    sources = list_sources(locations, run_.input)
    chunks: list[ChunkStep] = []
    for source in sources:
        for piece in cut(locations, source, target_rows=rows):
            number = len(chunks)
            if number >= MAX_CHUNKS:
                raise InvalidInput(
                    f"{run_.input} makes more than {MAX_CHUNKS:,} chunks; name fewer files in a run"
                )
            chunks.append(
                ChunkStep(
                    input=source.reference,
                    output=name_chunk(run_.output, number, source.reference),
                    first=piece.first,
                    last=piece.last,
                    first_row=piece.first_row,
                    rows=piece.rows,
                    count=piece.row_count,
                    content=source.content,
                    run=run_.name,
                    chunk=number,
                    version=manifest.version,
                    method=run_.method,
                    key=run_.key,
                    keep=run_.keep,
                )
            )
    return RunManifest(
        run=run_,
        version=manifest.version,
        digest=digest_version(manifest),
        sources=tuple(sources),
        chunks=tuple(chunks),
    )


def _restore_receipts(plan: RunManifest, store: RunStore, locations: Locations) -> dict[str, Receipt]:
    """Return the receipts of parts that an earlier Redis knew of, and store them."""
    restored: dict[str, Receipt] = {}
    if not _has_parts(plan, locations):
        return restored
    for steps in _pages(iter(plan.chunks)):
        receipts = {unit_of(step): receipt for step in steps if (receipt := find_receipt(locations, step))}
        if receipts:
            store.restore_receipts(plan.run.name, receipts)
            restored |= receipts
    return restored


def _has_parts(plan: RunManifest, locations: Locations) -> bool:
    """Return whether the output holds a part. Most runs are planned once, and then it does not."""
    output = locations.resolve(plan.run.output, for_writing=True)
    return any("/part-" in f"/{facts.path}" for facts in output.storage.walk(output.path))


def _pages(steps: Iterator[ChunkStep]) -> Iterator[Sequence[ChunkStep]]:
    while page := list(islice(steps, JOBS_PER_CALL)):
        yield page
