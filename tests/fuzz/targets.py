"""The functions that read what others wrote, each with its inputs and the errors it may raise.

A target returns nothing if its promise holds. Any exception that it does not expect is a finding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from headrace.catalog.aliases import Alias, AliasChange, decode_aliases, decode_history, encode_alias
from headrace.catalog.contract import Contract
from headrace.catalog.validation import check_instances, check_method
from headrace.catalog.workers import WorkerStatus, decode_loaded
from headrace.errors import InvalidInput, ModelError, StoredDataError
from headrace.wire.attempts import decode_delayed, decode_queued_message
from headrace.wire.dead_letter import decode_exported, decode_letter, malformed_letter
from headrace.wire.outcome import (
    Cancelled,
    Expired,
    Failure,
    Prediction,
    Success,
    decode_lines,
    decode_or_malformed,
    encode_outcome,
)
from headrace.wire.parsing import MalformedMessage, parse
from headrace.wire.queues import FIRST_RETRIED_SOURCE, FIRST_SOURCE
from headrace.wire.record import DIGEST_BYTES, Record, decode_record
from headrace_worker import manifest as manifests
from headrace_worker.execution.opening import open_claim
from headrace_worker.manifest import Example, Limits, Manifest
from headrace_worker.rollout.version_stats import decode_stats
from headrace_worker.transport.claims import Claim, Lease, parse_lease
from tests.fuzz import corpus
from tests.fuzz.batch_files import batch_targets
from tests.fuzz.model_files import model_targets
from tests.fuzz.target import Target
from tests.fuzz.urls import url_targets

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def all_targets() -> list[Target]:
    """Return every target that needs no Redis."""
    return [
        Target(name="a message", inputs=corpus.messages(), run=_open_message, count=8_000),
        Target(name="a message with a history", inputs=corpus.queued_messages(), run=_open_retried, count=3_000),
        Target(name="a manifest", inputs=[_manifest()], run=_read_manifest, count=3_000),
        Target(name="stored data", inputs=list(_stored()), run=_read_stored, count=4_000),
        *batch_targets(),
        *model_targets(),
        *url_targets(),
    ]


@contextlib.contextmanager
def open_targets(folder: Path) -> Iterator[list[Target]]:
    """Return every target. Those that need a Redis have one, and a model in `folder`, until the block ends."""
    from tests.fuzz.claims import served_targets

    with served_targets(folder) as served:
        yield [*all_targets(), *served]


@contextlib.contextmanager
def open_target(name: str, folder: Path) -> Iterator[Target]:
    """Return the target of a name. A Redis is started only if it needs one."""
    for target in all_targets():
        if target.name == name:
            yield target
            return
    from tests.fuzz.claims import served_targets  # it takes a while

    with served_targets(folder) as served:
        yield next(target for target in served if target.name == name)


# --- messages ---------------------------------------------------------------------------------------------


def _open_message(data: bytes) -> None:
    _open(data, FIRST_SOURCE)


def _open_retried(data: bytes) -> None:
    decode_queued_message(data)
    decode_delayed(data)
    _open(data, FIRST_RETRIED_SOURCE)


def _open(data: bytes, source: int) -> None:
    """Open a claim of the message: it is in one place, and its job runs or fails with an error that says why."""
    queue = f"predict.{corpus.MODEL}"
    try:
        parse(data if source == FIRST_SOURCE else decode_queued_message(data)[1], queue=queue).to_job()
    except (MalformedMessage, InvalidInput) as error:
        str(error).encode()
    claim = Claim(lease=Lease(name="me/1", queue=queue, origins=((source, 1),)), queued_messages=[data])
    parsed = open_claim(claim, NOW, lambda _model, _version: Limits())
    places = (parsed.jobs, parsed.finished, parsed.malformed, parsed.not_due)
    if sum(map(len, places)) != 1:
        raise AssertionError(f"the message is in {sum(map(len, places))} places")
    for entry in parsed.malformed:
        malformed_letter(entry.message, entry.error, queue=queue, worker="me", attempts=entry.attempts).encode()
    for result in parsed.finished:
        if isinstance(result.value, Failure):
            encode_outcome(result.value, NOW)
    for claimed in parsed.jobs:
        try:
            check_method(corpus.ROW_CONTRACT, claimed.job.method)
            msgspec.json.encode(check_instances(corpus.ROW_CONTRACT, claimed.job.instances))
        except InvalidInput as error:
            str(error).encode()


# --- stored data and manifests ----------------------------------------------------------------------------


def _manifest() -> bytes:
    contract: Contract = corpus.TABLE_CONTRACT
    instance = {"age": 41, "visits": 3, "member": True, "city": "Bern", "plan": "gold"}
    return manifests.encode(
        Manifest(
            name="churn",
            version="3",
            created=NOW,
            estimator="Pipeline",
            format="skops",
            sha256="0" * 64,
            size=1,
            libraries={"python": "3.11"},
            contract=contract,
            limits=Limits(retry_on=("Busy",), soft_time_limit=1.0),
            example=Example(instances=[instance], expected={"predict": [1]}),
        )
    )


def _read_manifest(data: bytes) -> None:
    try:
        manifests.encode(manifests.decode(data, "churn@3"))
    except ModelError as error:
        str(error).encode()


def _stored() -> Iterator[bytes]:
    yield encode_alias(Alias(version="3", share=0.1))
    yield corpus.encode(WorkerStatus(versions=("1", "2"), at_ms=1_700_000_000_000))
    yield corpus.encode(AliasChange(alias="production", version="3", at_ms=1, by="me", reason="better"))
    yield b"d" * DIGEST_BYTES + corpus.encode(Record(model="churn", submitted_ms=1, metadata={"a": "b"}))
    for outcome in (
        Success(job="a", prediction=Prediction(model="churn", version="3", predictions=[0, [0.5, None]])),
        Failure(job="a", reason="crash", error="E", module="m", message="text", traceback="lines"),
        Cancelled(job="a"),
        Expired(job="a"),
    ):
        yield encode_outcome(outcome, NOW)
    yield malformed_letter(b"x", ValueError("text"), queue="predict.churn", worker="me").encode()
    yield b"host/1/a/7#1,64,2,3,blocking#predict.churn"
    yield b'{"m":"churn"}'


def _read_stored(data: bytes) -> None:
    """Read the data as each stored thing: a damaged one is skipped, replaced, or raises an error that names it."""
    decode_aliases("churn", {b"production": data, data[:20]: b'{"version":"1"}'})
    decode_history("churn", [data])
    decode_loaded("churn", {b"worker": data}, 0)
    decode_stats("churn@3", {b"failed": data, data[:20]: b"1"})
    decode_or_malformed("a", data)
    decode_lines(data + b"\n" + data)
    decode_letter("a", data, 0)
    parse_lease(data)
    for read in (lambda: decode_record("a", data), lambda: decode_exported(data)):
        try:
            read()
        except (StoredDataError, InvalidInput) as error:
            str(error).encode()
