"""Records of text end where the csv module ends them, whatever the quotes, and at no other byte."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from headrace.errors import InvalidInput
from headrace_worker.bulk import limits
from headrace_worker.bulk.records import scan_records, to_texts


def scan(data: bytes, *, block: int = 7, delimiter: str | None = ",") -> list[tuple[int, int, bytes]]:
    """Return the line, the offset and the bytes of each record."""
    blocks = (data[start : start + block] for start in range(0, len(data), block))
    return [
        (int(line), records.offset + int(start), text)
        for records in scan_records(blocks, "in:a.csv", delimiter=delimiter)
        for line, start, text in zip(
            records.lines, records.starts, to_texts(records, 0, len(records.starts)), strict=True
        )
    ]


@pytest.mark.parametrize(
    ("data", "texts", "lines"),
    [
        (b"a,b\n1,2\n", [b"a,b", b"1,2"], [1, 2]),
        (b"a,b\r\n1,2", [b"a,b", b"1,2"], [1, 2]),
        (b'1,"x\ny"\n2,z\n', [b'1,"x\ny"', b"2,z"], [1, 3]),
        (b'1,"say ""x""\n"\n2,""\n', [b'1,"say ""x""\n"', b'2,""'], [1, 3]),
        (b'1,5" pipe\n2,6" pipe\n', [b'1,5" pipe', b'2,6" pipe'], [1, 2]),
        (b'1,5" pipe\n2,"a\nb"\n3,x\n', [b'1,5" pipe', b'2,"a\nb"', b"3,x"], [1, 2, 4]),
        (b'1,"ab"c\n2,x\n', [b'1,"ab"c', b"2,x"], [1, 2]),
        (b"\n\na\n\n\nb\n", [b"a", b"b"], [3, 6]),
        (b'"\n\n\n"\nx\n', [b'"\n\n\n"', b"x"], [1, 5]),
        (b"", [], []),
    ],
)
@pytest.mark.parametrize("block", [1, 3, 1000])
def test_newlines_in_quotes_end_no_record(data: bytes, texts: list[bytes], lines: list[int], block: int) -> None:
    records = scan(data, block=block)
    assert [text for _, _, text in records] == texts
    assert [line for line, _, _ in records] == lines
    assert all(data[offset : offset + len(text)] == text for _, offset, text in records)


@for_all(
    rows=st.lists(st.lists(st.text('a",\n;"', max_size=6), min_size=2, max_size=3), max_size=8),
    block=st.integers(1, 20),
)
def test_every_table_that_python_writes_is_scanned_as_python_reads_it(rows: list[list[str]], block: int) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    records = [record.decode() for _, _, record in scan(text.getvalue().encode(), block=block)]
    scanned = [next(csv.reader(io.StringIO(record, newline=""))) for record in records]
    assert scanned == rows


def test_in_json_lines_a_quote_is_no_quote() -> None:
    data = b'{"a":1}\n{"a":"\n{"a":2}\n'
    assert [text for _, _, text in scan(data, delimiter=None)] == [b'{"a":1}', b'{"a":"', b'{"a":2}']


@pytest.mark.parametrize("data", [b'a,b\n1,2\n3,"never closed\n4,5\n', b'a,b\n1,2\n3,"'])
def test_a_record_whose_quote_is_never_closed_is_refused_with_its_line(data: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"in:a.csv: the record that begins in line 3 has no end"):
        scan(data)


@pytest.mark.parametrize("delimiter", [",", None])
def test_a_record_without_end_is_refused_before_it_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch, delimiter: str | None
) -> None:
    monkeypatch.setattr(limits, "MAX_RECORD_BYTES", 1000)
    read: list[int] = []

    def endless():  # type: ignore[no-untyped-def]
        yield b'1,2\n"'
        while True:
            read.append(100)
            yield b"x" * 100

    with pytest.raises(InvalidInput, match=r"line 2.* 0 MB"):
        list(scan_records(endless(), "in:a.csv", delimiter=delimiter))
    assert sum(read) <= 1100
