"""Instances in columns: what is sent is what is read, and a hostile message is bad input."""

from __future__ import annotations

import base64
import random
import re
import struct
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from headrace.errors import InvalidInput
from headrace.wire.arrow import ArrowColumns, decode_columns
from headrace.wire.columns import EncodedColumns, JsonColumns, read_columns
from headrace.wire.limits import JobLimits
from headrace.wire.message import Job, encode_message
from headrace.wire.parsing import parse

LIMITS = JobLimits(max_bytes=100_000, max_values=10_000)
BATCH = pa.RecordBatch.from_pydict({"age": [1.5, None, 3.0], "plan": ["gold", "", None], "n": [1, 2, 3]})
ROWS = [
    {"age": 1.5, "plan": "gold", "n": 1},
    {"age": None, "plan": "", "n": 2},
    {"age": 3.0, "plan": None, "n": 3},
]


def decode(stream: bytes, rows: int = 3, limits: JobLimits = LIMITS) -> list[Any]:
    return list(decode_columns(EncodedColumns(rows, base64.b64encode(stream).decode()), limits))


def write(*batches: pa.RecordBatch, compression: str | None = "zstd", **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(
        sink, batches[0].schema, options=pa.ipc.IpcWriteOptions(compression=compression, **options)
    ) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    "columns",
    [ArrowColumns(BATCH), JsonColumns({name: [row[name] for row in ROWS] for name in ROWS[0]}, 3)],
)
def test_instances_in_columns_are_a_sequence_of_instances_before_and_after_they_are_sent(columns):
    message = encode_message(Job(id="j", model="churn", instances=columns))
    received = parse(message).to_job().instances
    assert b"3 instances" in message
    assert len(received) == 3
    decoded = decode_columns(received, LIMITS) if isinstance(received, EncodedColumns) else received
    for instances in (columns, decoded):
        assert list(instances) == ROWS
        assert (instances[1], instances[-1], instances[:2]) == (ROWS[1], ROWS[2], ROWS[:2])
        with pytest.raises(IndexError):
            instances[3]
    assert list(ArrowColumns(BATCH.select([0, 2]), named=False)) == [[1.5, 1], [None, 2], [3.0, 3]]
    assert list(JsonColumns({"0": [1, 2], "1": [3, 4]}, 2, named=False)) == [[1, 3], [2, 4]]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"rows": 1},
        {"rows": 0, "columns": {"a": []}},
        {"rows": True, "columns": {"a": [1]}},
        {"rows": "1", "columns": {"a": [1]}},
        {"rows": 2, "columns": {"a": [1, 2], "b": [1]}},
        {"rows": 2, "columns": {"a": "xy"}},
        {"rows": 1, "columns": {}},
        {"rows": 1, "arrow": 5},
        {"rows": 1, "arrow": "", "columns": {"a": [1]}},
        {"rows": 1, "columns": {"a": [1]}, "more": 1},
    ],
)
def test_an_object_that_is_no_columns_is_refused_in_words(arguments):
    with pytest.raises(InvalidInput, match="instances in columns are"):
        read_columns(arguments)


def claiming_size(size: int) -> bytes:
    """Return a stream of 3,000 rows whose values claim to take this size; they take 24,000 bytes."""
    stream = write(pa.RecordBatch.from_pydict({"a": [0.0] * 3_000}))
    return stream.replace(struct.pack("<q", 24_000), struct.pack("<q", size))


GOOD = write(BATCH)
#: By name: a stream, the rows that the job says, and the reason why it is refused.
HOSTILE = {
    "nothing": (b"", 3, "cannot be read"),
    "no stream": (b"x" * 1000, 3, "cannot be read"),
    "a schema only": (GOOD[: GOOD.index(b"\xff\xff\xff\xff", 8)], 3, "cannot be read"),
    "cut in the header": (GOOD[:30], 3, "cannot be read"),
    "cut in the batch": (GOOD[:-60], 3, "cannot be read"),
    "a bomb by its header": (claiming_size(1 << 40), 3_000, "decompresses to 1,099,511,"),
    "a bomb": (
        write(pa.RecordBatch.from_pydict({"a": ["x" * 200] * 4_500})),
        4_500,
        "decompresses to 918,004 bytes, more than 8 times HEADRACE_MAX_JOB_BYTES",
    ),
    "a negative size": (claiming_size(-5), 3_000, "negative size"),
    "a size that is not its own": (claiming_size(24_008), 3_000, "cannot be read"),
    "a dictionary": (
        write(pa.RecordBatch.from_arrays([pa.array(["a", "b", "a"]).dictionary_encode()], names=["plan"])),
        3,
        "dictionaries are refused",
    ),
    "a nested column": (write(pa.RecordBatch.from_pydict({"a": [[1], [2], [3]]})), 3, "is of type list<"),
    "two batches": (write(BATCH, BATCH), 3, "more than one record batch"),
    "two columns of a name": (
        write(pa.RecordBatch.from_arrays([[1, 2, 3]] * 2, names=["a", "a"])),
        3,
        "each another one",
    ),
    "no columns": (write(pa.RecordBatch.from_arrays([], schema=pa.schema([]))), 3, "need names"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_arrow_stream_is_bad_input(name):
    stream, rows, message = HOSTILE[name]
    with pytest.raises(InvalidInput, match=re.escape(message)):
        decode(stream, rows)


@pytest.mark.parametrize("compression", ["zstd", "lz4", None])
def test_the_rows_of_a_stream_are_those_that_the_job_says(compression):
    stream = write(BATCH, compression=compression)
    assert decode(stream) == ROWS
    for rows in (1, 2, 4, 10_000):
        with pytest.raises(InvalidInput, match=r"3 rows, and the job says|more than the 10,000 of"):
            decode(stream, rows)


def test_values_are_counted_before_anything_is_decoded():
    stream = write(pa.RecordBatch.from_pydict({str(number): [1] * 200 for number in range(60)}))
    with pytest.raises(InvalidInput, match="200 rows of 60 values, more than the 10,000 of HEADRACE"):
        decode(stream, 200)
    assert len(decode(stream, 200, JobLimits(max_values=12_000))) == 200


@pytest.mark.parametrize("offsets", [(0, 2, 4, 2_000_000_000), (0, 4, 2, 6), (-5, 2, 4, 6)])
def test_an_offset_that_leads_outside_of_its_buffer_is_found(offsets):
    stream = write(pa.RecordBatch.from_pydict({"a": ["aa", "bb", "cc"]}), compression=None)
    assert [row["a"] for row in decode(stream)] == ["aa", "bb", "cc"]
    with pytest.raises(InvalidInput, match="cannot be read"):
        decode(stream.replace(struct.pack("<4i", 0, 2, 4, 6), struct.pack("<4i", *offsets)))


def test_no_damaged_stream_does_more_than_raise_invalid_input():
    chance = random.Random(7)
    streams = [write(BATCH, compression=name) for name in ("zstd", None)]
    outcomes = set()
    for _ in range(3_000):
        stream = bytearray(chance.choice(streams))
        for _ in range(chance.choice([1, 1, 2, 8])):
            position = chance.randrange(len(stream))
            stream[position] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        try:
            msgspec.json.encode(decode(bytes(stream)))
        except (InvalidInput, UnicodeDecodeError):
            outcomes.add("refused")
        else:
            outcomes.add("read")
    assert outcomes == {"refused", "read"}
