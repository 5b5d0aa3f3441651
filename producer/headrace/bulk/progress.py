"""The hash of a run (`Keys.run`), decoded, and the chunks that failed."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.wire.bulk import Run, RunProgress
from headrace.wire.stored import DECODE_ERRORS, damaged, hash_items

#: The start of the fields of a run that count failed rows by reason; and of the fields among the receipts that say
#: why a chunk failed.
REASON_PREFIX, FAILURE_PREFIX = "reason:", "!"

_RUN = msgspec.json.Decoder(Run)
_FIELDS = frozenset(RunProgress.__struct_fields__) - {"run"}


class ChunkFailure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A chunk that failed, and is among the dead letters."""

    #: The chunk, as in the id of its job: `17`.
    chunk: str = ""
    #: The id of its job and of its dead letter.
    job: str
    reason: str
    message: str


class RunFailures(msgspec.Struct, frozen=True, kw_only=True):
    """The failures of a run."""

    #: Failed rows by reason. The rows themselves are in the errors part of each chunk.
    reasons: dict[str, int]
    #: The chunks that failed as a whole.
    chunks: tuple[ChunkFailure, ...]


_FAILURE = msgspec.json.Decoder(ChunkFailure)


def decode_progress(name: str, reply: Any) -> RunProgress | None:
    """Decode the reply to HGETALL of a run; None if there is no such run. Raises StoredDataError."""
    fields = _decode_fields(name, reply)
    if not fields:
        return None
    try:
        values: dict[str, Any] = {field: text for field, text in fields.items() if field in _FIELDS}
        return msgspec.convert({**values, "run": _RUN.decode(fields.get("run", ""))}, RunProgress, strict=False)
    except DECODE_ERRORS as error:
        raise damaged(f"the bulk run {name}", error) from None


def decode_reasons(name: str, reply: Any) -> dict[str, int]:
    """Return the failed rows of a run by reason, most first, from the reply to HGETALL of the run."""
    fields = _decode_fields(name, reply).items()
    reasons = {
        field.removeprefix(REASON_PREFIX): text for field, text in fields if field.startswith(REASON_PREFIX)
    }
    counts = {reason: int(text) for reason, text in reasons.items() if text.isdecimal()}
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def decode_failures(name: str, reply: Any) -> tuple[ChunkFailure, ...]:
    """Return the failed chunks of a run, in their order, from the reply to HGETALL of its receipts."""
    failures = []
    for field, text in _decode_fields(name, reply).items():
        if field.startswith(FAILURE_PREFIX):
            try:
                failure = _FAILURE.decode(text)
            except DECODE_ERRORS as error:
                raise damaged(f"the receipts of the bulk run {name}", error) from None
            failures.append(msgspec.structs.replace(failure, chunk=field.removeprefix(FAILURE_PREFIX)))
    return tuple(sorted(failures, key=lambda failure: _order(failure.chunk)))


def _order(chunk: str) -> tuple[int, ...]:
    return tuple(int(number) for number in chunk.split("-") if number.isdecimal())


def _decode_fields(name: str, reply: Any) -> dict[str, str]:
    items = hash_items(reply, f"the bulk run {name}")
    return {field.decode(errors="replace"): value.decode(errors="replace") for field, value in items}
