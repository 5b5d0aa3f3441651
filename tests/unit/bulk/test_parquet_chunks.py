"""Parquet files are cut at row groups, read in slices and written as parts that never change."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from headrace.errors import InvalidInput, TransientError
from headrace_worker.bulk import encoders, errors_part, limits
from headrace_worker.bulk.chunks import Piece, cut, cut_groups
from headrace_worker.bulk.errors_part import name_errors_part
from headrace_worker.bulk.ownership import claim_output
from headrace_worker.bulk.part import open_part
from headrace_worker.bulk.read import read_piece
from headrace_worker.bulk.receipts import find_receipt, read_part_receipt
from headrace_worker.bulk.sources import list_sources
from tests.support.bulk_files import (
    SCHEMA,
    RowFailure,
    files_of,
    make_locations,
    make_table,
    plan,
    predict,
    read_parts,
    write_parquet,
)


def test_row_groups_are_joined_to_the_rows_of_a_chunk_and_large_ones_are_cut() -> None:
    assert list(cut_groups([(40, 1), (40, 1), (40, 1), (0, 0), (500, 1), (10, 1)], 100, 1000)) == [
        Piece(0, 2, 0, row_count=80),
        Piece(2, 4, 80, row_count=40),
        *(Piece(4, 5, 120, rows=(low, low + 100), row_count=100) for low in range(0, 500, 100)),
        Piece(5, 6, 620, row_count=10),
    ]


def test_a_row_group_is_cut_by_its_bytes_and_into_at_most_eight_pieces() -> None:
    pieces = list(cut_groups([(1_000_000, 10_000)], 100, 1000))
    assert len(pieces) == 8
    assert sum(piece.row_count or 0 for piece in pieces) == 1_000_000
    assert [piece.rows for piece in cut_groups([(100, 3000)], 1000, 1000)] == [(0, 33), (33, 66), (66, 100)]
    assert list(cut_groups([], 100, 1000)) == []


@pytest.mark.parametrize("rows_of_chunk", [100, 250, 30, 10_000])
@pytest.mark.parametrize("group_rows", [100, 70, 1000])
def test_the_parts_hold_every_row_once_and_in_order(tmp_path: Path, rows_of_chunk: int, group_rows: int) -> None:
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "in" / "a.parquet", 730, group_rows)
    steps = plan(locations, "in:a.parquet", "out:run", rows=rows_of_chunk)
    receipts = [predict(locations, step) for step in steps]
    output = read_parts(tmp_path / "out" / "run")
    assert output.column_names == ["a", "b", "id", "prediction", "error"]
    assert output.select(["a", "b", "id"]).equals(make_table(730))
    assert output["prediction"].to_pylist() == [number + 1.0 for number in range(730)]
    assert output["error"].null_count == 730
    assert sum(receipt.rows for receipt in receipts) == 730


def test_a_slice_has_ten_thousand_rows_or_fewer_and_their_numbers(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "in" / "a.parquet", 30_000, 30_000)
    [source] = list_sources(locations, "in:a.parquet")
    numbers: list[int] = []
    for step in plan(locations, source.reference, "out:run", rows=12_500):
        for piece in read_piece(locations, step, SCHEMA):
            assert piece.rows.num_rows <= limits.SLICE_ROWS
            assert [number - 1 for number in piece.numbers] == piece.rows.column("id").to_pylist()
            numbers += piece.numbers
    assert numbers == list(range(1, 30_001))


def test_a_chunk_that_is_split_further_reads_its_rows_only(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "in" / "a.parquet", 400, 100)
    [step] = plan(locations, "in:a.parquet", "out:run", rows=1000)
    split = msgspec.structs.replace(step, rows=(199, 203))
    pieces = list(read_piece(locations, split, SCHEMA))
    assert [row for piece in pieces for row in piece.rows.column("id").to_pylist()] == [199, 200, 201, 202]
    assert [number for piece in pieces for number in piece.numbers] == [200, 201, 202, 203]
    assert pieces[0].first == 199


def test_only_the_columns_of_the_model_and_the_output_are_read(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    parquet.write_table(make_table(5).append_column("other", pa.array([1] * 5)), tmp_path / "in" / "a.parquet")
    [step] = plan(locations, "in:a.parquet", "out:run", keep=(), key="id")
    [piece] = read_piece(locations, step, SCHEMA)
    assert piece.rows.schema.names == ["a", "b", "id"]
    predict(locations, step)
    assert read_parts(tmp_path / "out" / "run").column_names == ["id", "prediction", "error"]


def test_a_part_is_written_byte_for_byte_the_same(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "in" / "a.parquet", 300)
    steps = plan(locations, "in:a.parquet", "out:run")
    for step in steps:
        predict(locations, step, bad=frozenset([7.0, 150.0]))
    first = files_of(tmp_path / "out")
    for step in reversed(steps):
        predict(locations, step, bad=frozenset([7.0, 150.0]))
    assert files_of(tmp_path / "out") == first
    assert sorted(first) == [
        "run/_headrace/run.json",
        "run/errors/part-00000.parquet",
        "run/errors/part-00001.parquet",
        *(f"run/part-0000{number}.parquet" for number in range(3)),
    ]


def test_failed_rows_have_no_prediction_and_lie_in_the_errors_part(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "in" / "a.parquet", 300)
    steps = plan(locations, "in:a.parquet", "out:run", key="id")
    receipts = [predict(locations, step, bad=frozenset([107.0, 150.0])) for step in steps]
    assert [receipt.failed for receipt in receipts] == [0, 2, 0]
    assert receipts[1].reasons == {"bad input": 2}
    output = read_parts(tmp_path / "out" / "run")
    assert [index for index, value in enumerate(output["prediction"].to_pylist()) if value is None] == [107, 150]
    assert output["error"][107].as_py() == "a is bad"
    assert name_errors_part(steps[1].output) == "out:run/errors/part-00001.parquet"
    errors = parquet.read_table(tmp_path / "out" / "run" / "errors" / "part-00001.parquet").to_pylist()
    assert errors[0] == {
        "file": "in:a.parquet",
        "row": 108,
        "key": "107",
        "reason": "bad input",
        "message": "a is bad",
        "original": '{"a":107.0,"b":"text 107","id":107}',
    }
    assert [error["row"] for error in errors] == [108, 151]


def test_the_parts_alone_say_which_chunks_are_done(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "in" / "a.parquet", 300)
    steps = plan(locations, "in:a.parquet", "out:run")
    receipt = predict(locations, steps[1], bad=frozenset([150.0]))
    assert [find_receipt(locations, step) for step in steps] == [None, receipt, None]
    stored = read_part_receipt(locations, steps[1].output)
    assert stored is not None
    assert (stored.run, stored.chunk, stored.version, stored.rows, stored.failed) == ("run", 1, "3", 100, 1)
    for change in ({"version": "4"}, {"content": "1-2"}, {"rows": (0, 5)}, {"chunk": 2}, {"first": 0}):
        assert find_receipt(locations, msgspec.structs.replace(steps[1], **change)) is None


def test_a_part_that_is_torn_or_no_part_counts_as_not_done(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "in" / "a.parquet", 100)
    [step] = plan(locations, "in:a.parquet", "out:run")
    predict(locations, step)
    path = tmp_path / "out" / "run" / "part-00000.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert find_receipt(locations, step) is None
    write_parquet(path, 100)
    assert find_receipt(locations, step) is None


@pytest.mark.parametrize("group_rows", [10, 100_000])
def test_a_chunk_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_rows: int
) -> None:
    monkeypatch.setattr(encoders, "_GROUP_ROWS", group_rows)
    monkeypatch.setattr(errors_part, "_GROUP_ROWS", 1)
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "in" / "a.parquet", 100)
    [step] = plan(locations, "in:a.parquet", "out:run")
    before = files_of(tmp_path / "out")

    def fail_in_the_middle() -> None:
        with open_part(locations, step) as part_writer:
            for piece in read_piece(locations, step, SCHEMA):
                errors = {0: RowFailure("bad input", "bad"), 1: RowFailure("bad input", "bad")}
                part_writer.write(piece, piece.rows.column("a"), errors)
                raise RuntimeError("the model fails")

    with pytest.raises(RuntimeError, match="the model fails"):
        fail_in_the_middle()
    assert files_of(tmp_path / "out") == before


def test_a_full_disk_is_an_error_that_may_pass_and_leaves_nothing_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "in" / "a.parquet", 100)
    [step] = plan(locations, "in:a.parquet", "out:run")
    before = files_of(tmp_path / "out")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(TransientError, match=r"out:run/part-00000.parquet.*no space is left"):
            predict(locations, step)
    assert files_of(tmp_path / "out") == before
    assert predict(locations, step).rows == 100


def test_what_a_killed_process_was_writing_is_removed_by_the_next_try(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "in" / "a.parquet", 100)
    [step] = plan(locations, "in:a.parquet", "out:run")
    child = os.fork()
    if child == 0:
        with open_part(locations, step) as part_writer:
            for piece in read_piece(locations, step, SCHEMA):
                part_writer.write(piece, piece.rows.column("a"), {})
            os._exit(1)
    os.waitpid(child, 0)
    folder = tmp_path / "out" / "run"
    assert [path.name.startswith(".part-00000.parquet.") for path in folder.iterdir() if path.is_file()] == [True]
    predict(locations, step)
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["part-00000.parquet"]


def test_two_processes_that_write_one_part_leave_one_whole_part(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "in" / "a.parquet", 100)
    [step] = plan(locations, "in:a.parquet", "out:run")
    pieces = list(read_piece(locations, step, SCHEMA))
    with open_part(locations, step) as slow:
        slow.write(pieces[0], pieces[0].rows.column("a"), {})
        predict(locations, step)
    assert [path.name for path in (tmp_path / "out" / "run").iterdir() if path.is_file()] == ["part-00000.parquet"]
    assert find_receipt(locations, step) is not None


# --- a changed input


def test_a_file_that_changed_since_it_was_planned_is_refused(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    path = tmp_path / "in" / "a.parquet"
    write_parquet(path, 300)
    steps = plan(locations, "in:a.parquet", "out:run")
    predict(locations, steps[0])
    before = files_of(tmp_path / "out")
    facts = path.stat()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    with pytest.raises(InvalidInput, match=r"in:a.parquet has changed since the run was planned"):
        predict(locations, steps[1])
    with pytest.raises(InvalidInput, match="has changed"):
        list(
            cut(
                locations, msgspec.structs.replace(list_sources(locations, "in:")[0], content="1-2"), target_rows=9
            )
        )
    assert files_of(tmp_path / "out") == before


def test_a_file_that_changes_while_it_is_read_makes_no_part(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    path = tmp_path / "in" / "a.parquet"
    write_parquet(path, 100)
    [step] = plan(locations, "in:a.parquet", "out:run")

    def change_in_the_middle() -> None:
        with open_part(locations, step) as part_writer:
            for piece in read_piece(locations, step, SCHEMA):
                part_writer.write(piece, piece.rows.column("a"), {})
                os.utime(path)

    with pytest.raises(InvalidInput, match="has changed"):
        change_in_the_middle()
    assert "run/part-00000.parquet" not in files_of(tmp_path / "out")


# --- whose output it is


def test_a_folder_of_outputs_belongs_to_one_run(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    claim_output(locations, "out:scores/nightly", "nightly-29")
    claim_output(locations, "out:scores/nightly", "nightly-29")
    for reference in ("out:scores/nightly", "out:scores/nightly/", "out:scores/nightly/inner"):
        with pytest.raises(InvalidInput, match="the output of the run 'nightly-29'"):
            claim_output(locations, reference, "other")


def test_a_folder_that_holds_files_is_no_output(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "out" / "mine" / "a.parquet", 3)
    with pytest.raises(InvalidInput, match="out:mine holds files already"):
        claim_output(locations, "out:mine", "run")


def test_a_chunk_is_not_written_into_the_folder_of_another_run(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "in" / "a.parquet", 100)
    [step] = plan(locations, "in:a.parquet", "out:victim", run="victim")
    predict(locations, step)
    before = files_of(tmp_path / "out")
    for hostile in (
        msgspec.structs.replace(step, run="other"),
        msgspec.structs.replace(step, run=""),
        msgspec.structs.replace(step, run="", output="out:victim/errors/part-00000.parquet"),
        msgspec.structs.replace(step, run="", output="out:victim/new/part-00000.parquet"),
        msgspec.structs.replace(step, run="other", output="out:nobody/part-00000.parquet"),
    ):
        with pytest.raises(InvalidInput, match=r"is the output of the run 'victim'|was not claimed"):
            predict(locations, hostile)
    assert files_of(tmp_path / "out") == before


def test_a_chunk_without_a_run_writes_over_its_own_part_only(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "in" / "a.parquet", 200)
    [source] = list_sources(locations, "in:a.parquet")
    [step, _] = plan(locations, source.reference, "out:run")
    alone = msgspec.structs.replace(step, run="", output="out:x/part-00003.parquet")
    assert predict(locations, alone) == predict(locations, alone)
    with pytest.raises(InvalidInput, match="exists already, and is not the part of this chunk"):
        predict(locations, msgspec.structs.replace(alone, first=1, last=2))


# --- hostile files


def test_a_bomb_is_refused_by_its_footer(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    bomb = pa.table({"a": pa.array([0.0]).take(pa.array([0] * 20_000_000, pa.int32()))})
    parquet.write_table(
        bomb, tmp_path / "in" / "a.parquet", use_dictionary=False, compression="zstd", row_group_size=20_000_000
    )
    assert (tmp_path / "in" / "a.parquet").stat().st_size < 200_000
    [source] = list_sources(locations, "in:")
    with pytest.raises(InvalidInput, match=r"row group 0 expands \d+ times, and 200 times are allowed"):
        list(cut(locations, source, target_rows=1000))


def test_too_many_columns_are_refused_by_the_footer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_COLUMNS", 2)
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "in" / "a.parquet", 3)
    [source] = list_sources(locations, "in:")
    with pytest.raises(InvalidInput, match=r"in:a.parquet has 3 columns, and a table may have 2"):
        list(cut(locations, source, target_rows=1000))


def test_a_row_group_of_too_many_bytes_is_refused_by_the_footer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_GROUP_BYTES", 1000)
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "in" / "a.parquet", 1000, 1000)
    [source] = list_sources(locations, "in:")
    with pytest.raises(InvalidInput, match=r"row group 0 has [\d,]+ bytes, and 1,000 are allowed"):
        list(cut(locations, source, target_rows=1000))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no Parquet file"),
        (b"PAR1", "no Parquet file"),
        (b"a,b\n1,2\n" * 10, "no Parquet file"),
        (b"PAR1" + struct.pack("<I", 2**32 - 1) + b"PAR1", "a footer of 4,294,967,295 bytes"),
        (b"PAR1" + b"\xff" * 100 + struct.pack("<I", 100) + b"PAR1", "cannot be read as Parquet"),
        (b"PAR1" + struct.pack("<I", 1000) + b"PAR1", "cannot be read as Parquet"),
    ],
)
def test_bytes_that_are_no_parquet_file_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    locations = make_locations(tmp_path)
    (tmp_path / "in" / "a.parquet").write_bytes(data)
    [source] = list_sources(locations, "in:")
    with pytest.raises(InvalidInput, match=message):
        list(cut(locations, source, target_rows=1000))


def test_a_damaged_page_is_refused_while_it_is_read(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    path = tmp_path / "in" / "a.parquet"
    write_parquet(path, 1000, 1000)
    data = bytearray(path.read_bytes())
    data[4 : len(data) // 2] = b"\xff" * (len(data) // 2 - 4)
    path.write_bytes(data)
    [step] = plan(locations, "in:a.parquet", "out:run", rows=5000)
    with pytest.raises(InvalidInput, match=r"in:a.parquet cannot be read as Parquet, it is damaged"):
        predict(locations, step)


def test_a_column_that_the_output_keeps_is_named_if_the_file_lacks_it(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    parquet.write_table(pa.table({"x": [1.0]}), tmp_path / "in" / "a.parquet")
    [step] = plan(locations, "in:a.parquet", "out:run", keep=("x", "y"), key="id")
    with pytest.raises(InvalidInput, match=r"a.parquet lacks columns that the run keeps: 'id', 'y'; it has 'x'"):
        predict(locations, step)


@pytest.mark.parametrize("name", ["prediction", "error"])
def test_a_column_that_the_output_adds_is_refused_unless_it_is_left_out(tmp_path: Path, name: str) -> None:
    locations = make_locations(tmp_path)
    parquet.write_table(pa.table({"a": [1.0], "b": ["x"], name: ["y"]}), tmp_path / "in" / "a.parquet")
    [step] = plan(locations, "in:a.parquet", "out:run")
    with pytest.raises(InvalidInput, match=f"a column '{name}', which the output adds"):
        predict(locations, step)
    assert predict(locations, msgspec.structs.replace(step, keep=("a",))).rows == 1


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    table = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["a", "a"])
    parquet.write_table(table, tmp_path / "in" / "a.parquet")
    [step] = plan(locations, "in:a.parquet", "out:run")
    with pytest.raises(InvalidInput, match="two columns 'a'"):
        predict(locations, step)


@pytest.mark.parametrize(
    "change", [{"first": -1}, {"last": 9}, {"first": 1, "last": 0}, {"rows": (5, 2)}, {"rows": (-1, 2)}]
)
def test_a_piece_that_is_no_range_of_the_file_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "in" / "a.parquet", 100)
    [step] = plan(locations, "in:a.parquet", "out:run")
    with pytest.raises(InvalidInput, match=r"no range|row groups, not 9"):
        list(read_piece(locations, msgspec.structs.replace(step, **change), SCHEMA))


# --- hive partitions


def test_partitions_of_the_path_are_columns_with_the_types_of_the_contract(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    path = tmp_path / "in" / "a=7" / "day=2026-11-29" / "x.parquet"
    path.parent.mkdir(parents=True)
    parquet.write_table(pa.table({"b": ["x", "y"]}), path)
    [step] = plan(locations, "in:", "out:run")
    [piece] = read_piece(locations, step, SCHEMA)
    assert piece.rows.schema.field("a").type == pa.float64()
    predict(locations, step)
    assert read_parts(tmp_path / "out" / "run").to_pylist() == [
        {"b": text, "a": 7.0, "day": "2026-11-29", "prediction": 8.0, "error": None} for text in ("x", "y")
    ]


def test_a_partition_that_is_no_value_of_its_feature_is_refused(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    path = tmp_path / "in" / "a=seven" / "x.parquet"
    path.parent.mkdir()
    parquet.write_table(pa.table({"b": ["x"]}), path)
    [step] = plan(locations, "in:", "out:run")
    with pytest.raises(InvalidInput, match="the folder of 'a' has a value that is not a number"):
        predict(locations, step)
