"""CSV and JSON lines are cut between records, typed by the contract, and written with their own bytes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from headrace.catalog.contract import Output
from headrace.errors import InvalidInput
from headrace.wire.bulk import ChunkStep
from headrace_worker.bulk import encoders, limits, text_file
from headrace_worker.bulk.part import open_part
from headrace_worker.bulk.read import read_piece
from headrace_worker.bulk.receipts import find_receipt
from tests.support.bulk_files import SCHEMA, files_of, make_locations, plan, predict, read_parts, write_parquet


def write(folder: Path, name: str, text: str | bytes) -> None:
    data = text.encode() if isinstance(text, str) else text
    if name.endswith(".gz"):
        data = gzip.compress(data)
    elif name.endswith(".zst"):
        data = pa.Codec("zstd").compress(data, asbytes=True)
    (folder / "in" / name).write_bytes(data)


def read_rows(tmp_path: Path, step: ChunkStep) -> tuple[list[Any], dict[int, str]]:
    """Return the rows of a chunk, and the refused rows by their number in the file."""
    rows: list[Any] = []
    refused: dict[int, str] = {}
    for piece in read_piece(make_locations(tmp_path), step, SCHEMA):
        rows += piece.rows.to_pylist()
        refused.update({piece.numbers[index]: message for index, message in piece.refused.items()})
    return rows, refused


def make_csv(rows: int) -> str:
    return "a,b,id\n" + "".join(f'{number}.50,"text\n""{number}""",{number:03}\n' for number in range(rows))


def make_lines(rows: int) -> str:
    return "".join(f'{{"a": {number}.50, "b":"text {number}", "id": [1,  2]}}\n' for number in range(rows))


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zst", "a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("rows_of_chunk", [1, 7, 1000])
def test_the_parts_hold_every_record_once_in_order_and_as_it_was_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, rows_of_chunk: int
) -> None:
    monkeypatch.setattr(text_file, "BLOCK_BYTES", 100)
    locations = make_locations(tmp_path)
    is_csv = ".csv" in name
    write(tmp_path, name, make_csv(50) if is_csv else make_lines(50))
    steps = plan(locations, f"in:{name}", "out:run", rows=rows_of_chunk)
    assert len(steps) == (1 if name.endswith(("gz", "zst")) else -(-50 // rows_of_chunk))
    assert sum(predict(locations, step).rows for step in steps) == 50
    first = files_of(tmp_path / "out")
    for step in steps:
        predict(locations, step)
    assert files_of(tmp_path / "out") == first
    assert all(find_receipt(locations, step) is not None for step in steps)
    parts = [(tmp_path / "out" / step.output.removeprefix("out:")).read_bytes() for step in steps]
    if name.endswith(".gz"):
        parts = [gzip.decompress(data) for data in parts]
    elif name.endswith(".zst"):
        parts = [pa.CompressedInputStream(pa.BufferReader(data), "zstd").read() for data in parts]
    text = b"".join(parts).decode()
    if is_csv:
        header = "a,b,id,prediction,error\n"
        assert all(data.startswith(header.encode()) for data in parts)
        expected = "".join(
            f'{number}.50,"text\n""{number}""",{number:03},{number + 1}.5,\n' for number in range(50)
        )
        assert text.replace(header, "") == expected
    else:
        assert text == "".join(
            f'{{"a": {number}.50, "b":"text {number}", "id": [1,  2],"prediction":{number + 1}.5,"error":null}}\n'
            for number in range(50)
        )


def test_pieces_and_errors_know_the_lines_of_their_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_file, "BLOCK_BYTES", 100)
    locations = make_locations(tmp_path)
    write(tmp_path, "a.csv", make_csv(50))
    steps = plan(locations, "in:a.csv", "out:run", rows=7, key="id")
    assert [step.first_row for step in steps] == [1, *(2 + 14 * number for number in range(1, 8))]
    predict(locations, steps[2], bad=frozenset([15.5]))
    [error] = parquet.read_table(tmp_path / "out" / "run" / "errors" / "part-00002.parquet").to_pylist()
    assert (error["row"], error["key"]) == (32, "015")
    assert json.loads(error["original"]) == {"a": "15.50", "b": 'text\n"15"', "id": "015"}


def test_types_are_those_of_the_contract_wherever_the_values_begin(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    lines = ["a,b", *("1,0017" for _ in range(20_000)), "2.5,text", "1e3,NA", "NaN,", " 7 ,x"]
    write(tmp_path, "a.csv", "\n".join(lines))
    [step] = plan(locations, "in:a.csv", "out:run", rows=100_000)
    rows, refused = read_rows(tmp_path, step)
    assert refused == {}
    assert rows[0] == {"a": 1.0, "b": "0017"}
    assert rows[-4:] == [
        {"a": 2.5, "b": "text"},
        {"a": 1000.0, "b": None},
        {"a": None, "b": None},
        {"a": 7.0, "b": "x"},
    ]


def test_a_bad_row_of_a_csv_is_refused_alone_and_the_part_stays_a_table(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    data = b'a,b,id\n1,x,1\ntwelve,x,2\n3,x\n4,x,4,5\n5,\xff,6\n6,"y",7\n'
    write(tmp_path, "a.csv", data)
    [step] = plan(locations, "in:a.csv", "out:run", key="id")
    rows, refused = read_rows(tmp_path, step)
    assert refused == {
        3: "'a' must be a number",
        4: "the row has 2 cells, and the header has 3",
        5: "the row has 4 cells, and the header has 3",
        6: "'b' is not UTF-8",
    }
    assert [row["a"] for row in rows] == [1.0, None, None, None, 5.0, 6.0]
    receipt = predict(locations, step)
    assert (receipt.rows, receipt.failed, receipt.reasons) == (6, 4, {"bad input": 4})
    assert (tmp_path / "out" / "run" / "part-00000.csv").read_text().splitlines() == [
        "a,b,id,prediction,error",
        "1,x,1,2,",
        "twelve,x,2,,'a' must be a number",
        '3,x,,,"the row has 2 cells, and the header has 3"',
        '4,x,4,,"the row has 4 cells, and the header has 3"',
        "5,�,6,,'b' is not UTF-8",
        '6,"y",7,7,',
    ]
    errors = parquet.read_table(tmp_path / "out" / "run" / "errors" / "part-00000.parquet").to_pylist()
    assert [(error["row"], error["key"]) for error in errors] == [(3, "2"), (4, None), (5, None), (6, "6")]
    assert errors[1]["original"] == "3,x"


def test_a_bad_line_of_json_is_refused_alone(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    lines = [
        '{"a":1,"b":"x","id":7}',
        '{"a":"1"}',
        "nonsense",
        '{"a":2}{"a":3}',
        '{"a":',
        "4}",
        "[1]",
        '{"a":true}',
        '{"a":5,"prediction":1}',
        "{}",
        '{"a":6,"b":null}',
    ]
    write(tmp_path, "a.jsonl", "\n".join(lines))
    [step] = plan(locations, "in:a.jsonl", "out:run", key="id")
    rows, refused = read_rows(tmp_path, step)
    assert [row["a"] for row in rows] == [1.0, None, None, None, None, None, None, None, 5.0, None, 6.0]
    assert {number: message for number, message in refused.items() if number not in {2, 8}} == {
        3: "the line is not a JSON value",
        4: "the line is not a JSON value",
        5: "the line is not a JSON value",
        6: "the line is not a JSON value",
        7: "the line is not an object",
        9: "the row has a key that the output adds: rename `prediction` and `error`",
    }
    assert refused[2] == refused[8] == "'a' must be a number"
    assert predict(locations, step).rows == 11
    written = [
        json.loads(line) for line in (tmp_path / "out" / "run" / "part-00000.jsonl").read_text().splitlines()
    ]
    assert written[0] == {"a": 1, "b": "x", "id": 7, "prediction": 2.0, "error": None}
    assert [row["prediction"] for row in written] == [2.0, *[None] * 9, 7.0]


@pytest.mark.parametrize("rows", [b"1,x,1,2\n", b"1,\xff,1,2\n", b"1,x,1,2\n\xff\n"])
def test_a_csv_of_rows_that_all_have_another_number_of_cells_is_read(tmp_path: Path, rows: bytes) -> None:
    make_locations(tmp_path)
    write(tmp_path, "a.csv", b"a,b,id\n" + rows)
    read, refused = read_rows(tmp_path, ChunkStep(input="in:a.csv", output="out:a.csv"))
    assert len(read) == len(refused) == rows.count(b"\n")
    assert refused[2] == "the row has 4 cells, and the header has 3"


def test_a_row_with_other_cells_is_refused_alone_though_its_text_is_not_utf8(tmp_path: Path) -> None:
    make_locations(tmp_path)
    write(tmp_path, "a.csv", b"a,b,id\n1,x,001\n2,\xff\n3,z,003\n")
    read, refused = read_rows(tmp_path, ChunkStep(input="in:a.csv", output="out:a.csv"))
    assert refused == {3: "the row has 2 cells, and the header has 3"}
    assert [read[0]["a"], read[2]["a"]] == [1, 3]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pyarrow prints its own error
def test_a_csv_that_is_not_utf8_is_refused_if_a_carriage_return_ends_a_record(tmp_path: Path) -> None:
    make_locations(tmp_path)
    write(tmp_path, "a.csv", b"a,b,id\n1,x,3\r\xff\n")
    with pytest.raises(InvalidInput, match="do not end with a newline"):
        read_rows(tmp_path, ChunkStep(input="in:a.csv", output="out:a.jsonl"))


def test_a_line_of_json_that_is_not_utf8_is_refused_alone(tmp_path: Path) -> None:
    make_locations(tmp_path)
    write(tmp_path, "a.jsonl", b'{"a": 1, "b": "x"}\n{"a": 2, "b": "\xff"}\n')
    read, refused = read_rows(tmp_path, ChunkStep(input="in:a.jsonl", output="out:a.jsonl"))
    assert refused == {2: "the line is not a JSON value"}
    assert [row["a"] for row in read] == [1, None]


def test_lines_that_hold_two_objects_shift_no_row(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    write(tmp_path, "a.jsonl", '{"a":1}{"a":2}\n{"a":\n3}\n{"a":4}\n')
    [step] = plan(locations, "in:a.jsonl", "out:run")
    rows, refused = read_rows(tmp_path, step)
    assert [row["a"] for row in rows] == [None, None, None, 4.0]
    assert sorted(refused) == [1, 2, 3]


@pytest.mark.parametrize(("header", "delimiter"), [("a;b;id", ";"), ("a|b|id", "|"), ("a\tb\tid", "\t")])
def test_the_delimiter_is_that_of_the_header(tmp_path: Path, header: str, delimiter: str) -> None:
    locations = make_locations(tmp_path)
    write(tmp_path, "a.csv", f'\ufeff{header}\n1{delimiter}"x{delimiter},y"{delimiter}3\n')
    [step] = plan(locations, "in:a.csv", "out:run")
    rows, refused = read_rows(tmp_path, step)
    assert (rows, refused) == ([{"a": 1.0, "b": f"x{delimiter},y"}], {})
    predict(locations, step)
    assert (tmp_path / "out" / "run" / "part-00000.csv").read_text().splitlines() == [
        delimiter.join([header, "prediction", "error"]),
        f'1{delimiter}"x{delimiter},y"{delimiter}3{delimiter}2{delimiter}',
    ]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_the_output_keeps_the_columns_that_are_named(tmp_path: Path, name: str) -> None:
    locations = make_locations(tmp_path)
    write(tmp_path, name, make_csv(2) if name == "a.csv" else make_lines(2))
    [step] = plan(locations, f"in:{name}", "out:run", keep=("b",), key="id")
    predict(locations, step)
    lines = (tmp_path / "out" / "run" / f"part-00000{name[1:]}").read_text()
    if name == "a.csv":
        assert lines == 'b,id,prediction,error\n"text\n""0""",000,1.5,\n"text\n""1""",001,2.5,\n'
    else:
        assert lines.splitlines()[1] == '{"b":"text 1","id":[1,  2],"prediction":2.5,"error":null}'


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_prediction_of_several_values_is_written_as_batches_write_it(tmp_path: Path, name: str) -> None:
    locations = make_locations(tmp_path)
    write(tmp_path, name, "a,b\n1,x\n2,y\n" if name == "a.csv" else '{"a":1,"b":"x"}\n{"a":2,"b":"y"}\n')
    [step] = plan(locations, f"in:{name}", "out:run")
    output = Output(shape=(2,), classes=("basic", "gold"))
    with open_part(locations, step, output) as writer:
        for piece in read_piece(locations, step, SCHEMA):
            writer.write(piece, pa.array([[0.25, 0.75], None]), {})
    text = (tmp_path / "out" / "run" / f"part-00000{name[1:]}").read_text()
    if name == "a.csv":
        assert text == "a,b,prediction_basic,prediction_gold,error\n1,x,0.25,0.75,\n2,y,,,\n"
    else:
        assert text.splitlines() == [
            '{"a":1,"b":"x","prediction":{"basic":0.25,"gold":0.75},"error":null}',
            '{"a":2,"b":"y","prediction":null,"error":null}',
        ]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_partitions_of_the_path_are_columns_of_text_too(tmp_path: Path, name: str) -> None:
    locations = make_locations(tmp_path)
    (tmp_path / "in" / "day=1").mkdir()
    write(tmp_path, f"day=1/{name}", "a,b\n1,x\n" if name == "a.csv" else '{"a":1,"b":"x"}\n')
    [step] = plan(locations, "in:", "out:run")
    predict(locations, step)
    text = (tmp_path / "out" / "run" / f"part-00000{name[1:]}").read_text()
    if name == "a.csv":
        assert text == "a,b,day,prediction,error\n1,x,1,2,\n"
    else:
        assert json.loads(text) == {"a": 1, "b": "x", "day": "1", "prediction": 2.0, "error": None}


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_the_name_of_a_part_says_its_format(tmp_path: Path, name: str, ending: str) -> None:
    locations = make_locations(tmp_path)
    if name == "a.parquet":
        parquet.write_table(pa.table({"a": [1.0, 2.0], "b": ["x", 'y,"z"']}), tmp_path / "in" / name)
    else:
        write(
            tmp_path,
            name,
            'a,b\n1,x\n2,"y,""z"""\n' if name == "a.csv" else '{"a":1,"b":"x"}\n{"a":2,"b":"y,\\"z\\""}\n',
        )
    [step] = plan(locations, f"in:{name}", "out:run", ending=ending)
    assert predict(locations, step).rows == 2
    folder = tmp_path / "out" / "run"
    if ending == ".parquet":
        rows = read_parts(folder).to_pylist()
    elif ending == ".csv":
        assert (folder / "part-00000.csv").read_text() == 'a,b,prediction,error\n1,x,2,\n2,"y,""z""",3,\n'
        return
    else:
        rows = [json.loads(line) for line in (folder / "part-00000.jsonl").read_text().splitlines()]
    assert rows == [
        {"a": 1.0, "b": "x", "prediction": 2.0, "error": None},
        {"a": 2.0, "b": 'y,"z"', "prediction": 3.0, "error": None},
    ]


def test_a_chunk_of_text_that_is_split_further_reads_its_rows_only(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    write(tmp_path, "a.csv", make_csv(50))
    steps = plan(locations, "in:a.csv", "out:run", rows=20)
    rows, _ = read_rows(tmp_path, msgspec.structs.replace(steps[1], rows=(3, 5)))
    assert [row["a"] for row in rows] == [23.5, 24.5]


# --- hostile text


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.zst", "a.jsonl.gz"])
def test_a_bomb_is_refused_while_it_is_decompressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(limits, "SLICE_BYTES", 1024**2)
    locations = make_locations(tmp_path)
    header = "a,b\n" if ".csv" in name else ""
    line = "0,0\n" if ".csv" in name else '{"a":0}\n'
    write(tmp_path, name, header + line * 4_000_000)
    [step] = plan(locations, f"in:{name}", "out:run")
    with pytest.raises(InvalidInput, match=f"in:{name} expands more than 200 times"):
        predict(locations, step)
    assert not list((tmp_path / "out" / "run").glob("part*"))


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.zst"])
@pytest.mark.parametrize("damage", ["cut", "no magic"])
def test_a_damaged_compressed_file_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    locations = make_locations(tmp_path)
    write(tmp_path, name, make_csv(1000))
    path = tmp_path / "in" / name
    path.write_bytes(path.read_bytes()[:-20] if damage == "cut" else b"a,b\n1,x\n")
    [step] = plan(locations, f"in:{name}", "out:run")
    with pytest.raises(InvalidInput, match=f"in:{name} cannot be decompressed, it is damaged"):
        predict(locations, step)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"a,a\n1,2\n", "two columns 'a'"),
        (b"a,\xff\n1,2\n", "not UTF-8"),
        (b"a,prediction\n1,2\n", "a column 'prediction', which the output adds"),
        (b'a,b\n1,2\n3,"x\n', "begins in line 3 has no end"),
        (b"a,b\r1,2\r3,4\r", "do not end with a newline"),
        (b"a,b\n1,2\r3,4\n", "do not end with a newline"),
    ],
)
def test_a_file_that_is_no_csv_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    locations = make_locations(tmp_path)
    write(tmp_path, "a.csv", data)

    def plan_and_predict() -> None:
        for step in plan(locations, "in:a.csv", "out:run"):
            predict(locations, step)

    with pytest.raises(InvalidInput, match=message):
        plan_and_predict()


def test_text_that_changed_since_it_was_planned_is_refused(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    write(tmp_path, "a.csv", make_csv(50))
    steps = plan(locations, "in:a.csv", "out:run", rows=20)
    write(tmp_path, "a.csv", make_csv(51))
    with pytest.raises(InvalidInput, match=r"in:a.csv has changed"):
        predict(locations, steps[0])


def test_a_part_of_text_that_was_cut_or_has_no_receipt_counts_as_not_done(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    write(tmp_path, "a.csv", make_csv(5))
    [step] = plan(locations, "in:a.csv", "out:run")
    receipt = predict(locations, step)
    assert find_receipt(locations, step) == receipt
    path = tmp_path / "out" / "run" / "part-00000.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert find_receipt(locations, step) is None
    path.write_bytes(whole)
    assert find_receipt(locations, step) == receipt
    (tmp_path / "out" / "run" / "_headrace" / "part-00000.csv.json").unlink()
    assert find_receipt(locations, step) is None


def test_datetimes_that_arrow_does_not_read_stay_texts_for_the_check_of_the_contract(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    schema = pa.schema([("at", pa.timestamp("us", tz="UTC"))])
    for name, texts in (("plain", ("2026-01-01T00:00:00Z", "")), ("odd", ("2026-01-01T00:00:00+01:00", "soon"))):
        write(tmp_path, f"{name}.csv", "at,a\n" + "".join(f"{text},1\n" for text in texts))
        write(tmp_path, f"{name}.jsonl", "".join(f'{{"at":"{text}"}}\n' for text in texts if text))
    for ending in ("csv", "jsonl"):
        [step] = plan(locations, f"in:plain.{ending}", f"out:{ending}")
        [piece] = read_piece(locations, step, schema)
        assert piece.rows.schema.field("at").type == schema.field("at").type
        [step] = plan(locations, f"in:odd.{ending}", f"out:odd-{ending}")
        [piece] = read_piece(locations, step, schema)
        assert piece.rows.column("at").to_pylist()[1] == "soon"
        assert piece.refused == {}


def test_whole_numbers_and_booleans_are_read_as_pandas_writes_them(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    schema = pa.schema([("count", pa.int64()), ("is_new", pa.bool_())])
    write(tmp_path, "a.csv", "count,is_new\n1.0,True\n2,yes\n,FALSE\n1.5,0\n3,maybe\n1e400,1.0\n")
    [step] = plan(locations, "in:a.csv", "out:run")
    [piece] = read_piece(locations, step, schema)
    assert piece.rows.column("count").to_pylist() == [1, 2, None, None, 3, None]
    assert piece.rows.column("is_new").to_pylist() == [True, True, False, False, None, True]
    assert piece.refused == {
        3: "'count' must be an integer",
        4: "'is_new' must be a boolean",
        5: "'count' must be an integer",
    }


def test_a_model_that_takes_lists_reads_them_from_columns_and_from_lines(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    schema = pa.schema([("instance", pa.list_(pa.float64()))])
    write(tmp_path, "a.csv", "0,1\n1,2\n3,x\n")
    write(tmp_path, "a.jsonl", '[1,2]\n{"instance":[3,4]}\n[5,"x"]\n')
    [step] = plan(locations, "in:a.csv", "out:csv")
    [piece] = read_piece(locations, step, schema)
    assert piece.rows.to_pylist() == [{"0": 1.0, "1": 2.0}, {"0": 3.0, "1": None}]
    assert piece.refused == {1: "'1' must be a number"}
    [step] = plan(locations, "in:a.jsonl", "out:json")
    [piece] = read_piece(locations, step, schema)
    assert piece.rows.column("instance").to_pylist() == [[1.0, 2.0], [3.0, 4.0], None]
    assert piece.refused == {2: "'instance' must be a list"}


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_the_memory_of_a_chunk_does_not_grow_with_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(text_file, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(limits, "SLICE_ROWS", 500)
    monkeypatch.setattr(encoders, "_GROUP_ROWS", 1000)
    locations = make_locations(tmp_path)
    peaks: list[int] = []
    for rows in (5_000, 50_000):
        if name == "a.parquet":
            write_parquet(tmp_path / "in" / name, rows, 1000)
        else:
            write(tmp_path, name, make_csv(rows) if name == "a.csv" else make_lines(rows))
        [step] = plan(locations, f"in:{name}", f"out:{rows}", rows=10**6)
        before = pa.total_allocated_bytes()
        peak = 0
        with open_part(locations, step) as writer:
            for piece in read_piece(locations, step, SCHEMA):
                writer.write(piece, piece.rows.column("a"), {})
                peak = max(peak, pa.total_allocated_bytes() - before)
        peaks.append(peak)
    assert peaks[1] < 2 * peaks[0]
