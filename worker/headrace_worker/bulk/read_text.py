"""Read the rows of a chunk from text: a range of bytes of a CSV or of JSON lines, or a compressed file.

Types are those of the contract. A row whose text is no value of its type is refused, alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from headrace.wire.bulk import ChunkStep
from headrace_worker.bulk import limits
from headrace_worker.bulk.columns import add_partitions, check_columns
from headrace_worker.bulk.locations import File
from headrace_worker.bulk.parse_csv import CsvParser
from headrace_worker.bulk.parse_json import JsonParser
from headrace_worker.bulk.records import Records, scan_records, to_texts
from headrace_worker.bulk.slices import Slice
from headrace_worker.bulk.sources import FileForm
from headrace_worker.bulk.text_file import Header, open_text, parse_header, read_blocks, read_header, skip_bom

#: Returns the columns of the records from one index to another, exclusive, and the rows that were refused.
Parser = Callable[[Records, int, int], tuple[Any, dict[int, str]]]


def read_text(file: File, form: FileForm, step: ChunkStep, schema: Any) -> Iterator[Slice]:
    """Read the rows of a chunk in slices."""
    low, high = step.rows or (0, None)
    with open_text(file, form, step.content) as opened:
        header: Header | None = None
        if form.format == "csv" and form.compression is None:
            header = read_header(opened, file, form)
            opened.seek(0)
        blocks = read_blocks(opened, file, first=step.first, last=step.last)
        line = step.first_row if step.first else 1
        if not step.first:
            blocks = skip_bom(blocks)
        delimiter = (header.delimiter if header else form.delimiter or ",") if form.format == "csv" else None
        parser: Any = None
        row = 0
        for records in scan_records(blocks, file.reference, delimiter=delimiter, line=line):
            index = 0
            if form.format == "csv" and parser is None:
                if not step.first and len(records.starts):
                    index = 1
                    if header is None:
                        text = records.data[records.starts[0] : records.ends[0]]
                        header = parse_header(text, form, file.reference)
                if header is None:
                    continue
            if parser is None:
                parser = _make_parser(file, step, schema, header)
            count = len(records.starts)
            rows_of_slice = _slice_rows(records)
            while index < count:
                # Slices begin anew at `low` and end at `high`, so that a row is read in no more than its chunk.
                if row < low:
                    skipped = min(low - row, count - index)
                    row, index = row + skipped, index + skipped
                    continue
                if high is not None and row >= high:
                    return
                end = min(count, index + rows_of_slice)
                end = end if high is None else min(end, index + high - row)
                rows, refused = parser.parse(records, index, end)
                yield Slice(
                    rows=add_partitions(rows, file.reference, schema, step),
                    first=row,
                    numbers=records.lines[index:end].tolist(),
                    refused=refused,
                    records=to_texts(records, index, end),
                    header=header,
                )
                row, index = row + end - index, end


def _make_parser(file: File, step: ChunkStep, schema: Any, header: Header | None) -> CsvParser | JsonParser:
    if header is None:
        return JsonParser(schema, step)
    check_columns(file.reference, header.names, step)
    return CsvParser(header, schema, step)


def _slice_rows(records: Records) -> int:
    """Return the rows of a slice: fewer if the records are long."""
    mean = max(1, len(records.data) // max(1, len(records.starts)))
    return max(1, min(limits.SLICE_ROWS, limits.SLICE_BYTES // mean))
