"""The receipt of a part: which chunk it holds, and what became of its rows. It survives a loss of Redis.

A Parquet part holds it in its footer. A text part has it beside it, in `_headrace/part-00017.csv.json`, which is
written after the part and names the part's size.
"""

from __future__ import annotations

import msgspec
from pyarrow import ArrowException, parquet

from headrace.errors import InvalidInput
from headrace.wire.bulk import ChunkStep, Receipt
from headrace_worker.bulk.locations import File, Locations, parent_reference
from headrace_worker.bulk.sources import read_form

#: The key of the receipt in the metadata of a Parquet file.
METADATA_KEY = b"headrace"
#: The folder of Headrace's own files in a folder of outputs. Readers of tables skip it.
OWN_FOLDER = "_headrace"
_MAX_RECEIPT_BYTES = 1024**2


class PartReceipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The receipt of a part, as the part has it."""

    run: str
    chunk: int
    version: str | None = None
    #: The file, its content, and the piece of it that the part holds.
    input: str
    content: str | None = None
    first: int = 0
    last: int | None = None
    row_range: tuple[int, int] | None = None
    rows: int
    failed: int = 0
    #: Failed rows by reason.
    reasons: dict[str, int] = {}
    #: The size of a part whose receipt lies beside it.
    size: int | None = None

    def is_for(self, step: ChunkStep) -> bool:
        """Decide whether the part is that of a chunk."""
        return (
            (self.run, self.chunk, self.version, self.input) == (step.run, step.chunk, step.version, step.input)
            and (self.content, self.first, self.last) == (step.content, step.first, step.last)
            and self.row_range == step.rows
        )

    def to_receipt(self, size: int) -> Receipt:
        """Return the outcome of the chunk. `size` is that of the part, in bytes."""
        return Receipt(rows=self.rows, failed=self.failed, bytes=size, reasons=self.reasons)


def read_part_receipt(locations: Locations, reference: str) -> PartReceipt | None:
    """Return the receipt of a part. None: there is no such part, or it has none that is its own.

    Raises TransientError if the storage fails.
    """
    stored = _read_stored(locations, reference)
    return stored[0] if stored else None


def find_receipt(locations: Locations, step: ChunkStep) -> Receipt | None:
    """Return the outcome of a chunk whose part was written before; None if it was not."""
    stored = _read_stored(locations, step.output)
    return stored[0].to_receipt(stored[1]) if stored and stored[0].is_for(step) else None


def write_receipt(locations: Locations, reference: str, receipt: PartReceipt, size: int) -> None:
    """Write the receipt of a text part of `size` bytes beside it."""
    file = _side_file(locations, reference)
    with file.storage.write(file.path) as sink:
        sink.write(msgspec.json.encode(msgspec.structs.replace(receipt, size=size)))


def _read_stored(locations: Locations, reference: str) -> tuple[PartReceipt, int] | None:
    """Return the receipt and the size of a part."""
    file = locations.resolve(reference, for_writing=True)
    if file.storage.read(file.path, 0) is None:
        return None
    if read_form(reference).format == "parquet":
        with file.storage.open(file.path) as (opened, facts):
            try:
                metadata = parquet.read_metadata(opened).metadata or {}
            except (ArrowException, ValueError):
                return None
        data, size = metadata.get(METADATA_KEY), facts.size
    else:
        side_file, size = _side_file(locations, reference), file.storage.facts(file.path).size
        data = side_file.storage.read(side_file.path, _MAX_RECEIPT_BYTES)
    receipt = _decode(data)
    return None if receipt is None or receipt.size not in {None, size} else (receipt, size)


def _decode(data: bytes | None) -> PartReceipt | None:
    try:
        return msgspec.json.decode(data, type=PartReceipt) if data else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _side_file(locations: Locations, reference: str) -> File:
    folder = parent_reference(reference)
    name = reference.removeprefix(folder).lstrip("/")
    if not name:
        raise InvalidInput(f"{reference} names no file")
    return locations.own_file(folder, f"{OWN_FOLDER}/{name}.json")
