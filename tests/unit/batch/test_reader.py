"""Tests of reading a file row by row: CSV, JSON lines, and files that are neither."""

from __future__ import annotations

import io
import json

import msgspec
import pytest

from headrace.batch.reader import Row, Table, choose_format, read_table
from headrace.catalog.contract import Array, Contract, Feature, Named, Output, Text, Tokens
from headrace.errors import InvalidInput

CHURN = Contract(
    model="churn",
    version="3",
    input=Named(
        features=(Feature(name="age", kind="number", nullable=True), Feature(name="plan", kind="string")),
    ),
    methods={"predict": Output(shape=())},
)
PAIR = Contract(model="pair", version="1", input=Array(shape=(2,)), methods={"predict": Output(shape=())})
SPAM = Contract(model="spam", version="1", input=Text(), methods={"predict": Output(shape=())})


def table(text: str | bytes, file_format="csv", contract=CHURN, **options) -> Table:
    data = text.encode() if isinstance(text, str) else text
    return read_table(io.BytesIO(data), file_format, contract, name="in", **options)


def rows(text: str | bytes, file_format="csv", contract=CHURN, **options) -> list[Row]:
    return list(table(text, file_format, contract, **options).rows)


def test_a_csv_row_has_its_cells_its_instance_and_its_position():
    (row,) = rows("id,age,plan\nx,41,gold\n")
    assert row == Row(
        line=2,
        values={"id": "x", "age": "41", "plan": "gold"},
        instance={"age": 41.0, "plan": "gold"},
        size=10,
        end=22,
    )


def test_a_byte_order_mark_and_windows_line_ends_are_removed():
    (row,) = rows(b"\xef\xbb\xbfage,plan\r\n41,gold\r\n")
    assert row.instance == {"age": 41.0, "plan": "gold"}


def test_a_quoted_newline_belongs_to_its_cell_and_is_counted_as_a_line():
    first, second = rows('age,plan\n1,"go\nld"\n2,x\n')
    assert first.instance == {"age": 1.0, "plan": "go\nld"}
    assert (first.line, second.line) == (2, 4)


@pytest.mark.parametrize(("line", "cells"), [("1", 1), ("1,gold,3", 3)])
def test_a_ragged_row_fails_alone(line, cells):
    ragged, good = rows(f"age,plan\n{line}\n2,x\n")
    assert ragged.error == f"the row has {cells} cells, and the file 2 columns"
    assert ragged.instance is None
    assert good.error is None


def test_a_row_with_broken_quotes_fails_alone():
    broken, good = rows('age,plan\n1,"go"ld\n2,x\n')
    assert "cannot be read as CSV" in broken.error
    assert good.instance == {"age": 2.0, "plan": "x"}


def test_the_error_of_a_row_that_does_not_fit_the_contract_contains_no_value():
    (row,) = rows("age,plan\nsecret,gold\n")
    assert row.error == "feature 'age' must be a number, got a string"
    assert row.values == {"age": "secret", "plan": "gold"}


def test_an_empty_cell_is_null_where_null_is_allowed():
    fine, bad = rows("age,plan\n,gold\n1,\n")
    assert fine.instance == {"age": None, "plan": "gold"}
    assert "feature 'plan' must be a string, got a missing value" in bad.error


@pytest.mark.parametrize("empty", ["", "\n", "   \n"])
def test_an_empty_csv_is_refused(empty):
    with pytest.raises(InvalidInput, match="in is empty"):
        table(empty)


def test_a_header_alone_is_a_file_without_rows():
    assert rows("age,plan\n") == []
    assert rows("age,plan") == []


def test_empty_lines_are_skipped():
    assert len(rows("age,plan\n1,x\n\n2,y\n\n")) == 2


@pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
def test_the_delimiter_is_detected_in_the_header(delimiter):
    detected = table(f"age{delimiter}plan\n1{delimiter}x\n")
    assert detected.delimiter == delimiter
    assert next(detected.rows).instance == {"age": 1.0, "plan": "x"}


def test_a_delimiter_that_is_passed_is_used():
    assert rows("age plan\n1 x\n", delimiter=" ")[0].instance == {"age": 1.0, "plan": "x"}


def test_a_file_in_another_encoding_is_refused_at_its_line_and_byte():
    remaining = table("age,plan\n1,x\n2,f\xfcnf\n".encode("latin1")).rows
    assert next(remaining).line == 2
    with pytest.raises(InvalidInput, match="line 3, byte 4 is 0xfc; save it as UTF-8"):
        next(remaining)


def test_utf_16_is_named():
    with pytest.raises(InvalidInput, match="iconv -f UTF-16"):
        table("age,plan\n1,x\n".encode("utf-16"))


def test_a_binary_file_is_refused():
    with pytest.raises(InvalidInput, match="in is no text file: line 1, byte 5"):
        table(b"PK\x03\x04\xff\x00\x08\x00xl/workbook.xml")


def test_a_cell_of_a_megabyte_is_read():
    (row,) = rows("age,plan\n1," + "x" * 1_000_000 + "\n")
    assert len(row.instance["plan"]) == 1_000_000


def test_a_nul_byte_in_a_cell_stays_in_it():
    number, text = rows("age,plan\n1\0,x\n2,y\0\n")
    assert "must be a number" in number.error
    assert text.instance == {"age": 2.0, "plan": "y\0"}


def test_a_quote_that_is_never_closed_is_refused():
    with pytest.raises(InvalidInput, match="a quote is opened and not closed before line 4"):
        rows('age,plan\n1,x\n2,"y\n3,z\n')


def test_a_line_that_is_too_long_is_refused():
    with pytest.raises(InvalidInput, match="line 2 is longer than 16 MB"):
        rows(b"age,plan\n" + b"x" * (17 * 1024 * 1024))


def test_a_line_of_json_is_a_row_and_only_features_are_sent():
    (row,) = rows('{"id": 7, "age": 41, "plan": "gold"}\n', "jsonl")
    assert row.values == {"id": 7, "age": 41, "plan": "gold"}
    assert row.instance == {"age": 41, "plan": "gold"}


@pytest.mark.parametrize("bad", ["{", "nonsense", '{"age": 1} 2', "[" * 100_000, '"\\ud800"', "\0"])
def test_a_line_that_is_not_json_fails_alone(bad):
    broken, good = rows(bad + '\n{"age": 1, "plan": "x"}\n', "jsonl")
    assert broken.error == "the line is not a JSON value"
    assert good.error is None
    assert good.line == 2


def test_nan_written_by_python_is_null():
    (row,) = rows(json.dumps({"age": float("nan"), "plan": "x"}), "jsonl")
    assert row.instance == {"age": None, "plan": "x"}
    assert row.values["age"] is None


def test_a_misspelt_key_gets_a_suggestion():
    (row,) = rows('{"agee": 1, "plan": "x"}', "jsonl")
    assert "did you mean 'age'?" in row.error


def test_lists_and_texts_are_values_or_under_a_key():
    assert [row.instance for row in rows('[1, 2]\n{"id": 1, "instance": [3, 4]}\n', "jsonl", PAIR)] == [
        [1, 2],
        [3, 4],
    ]
    assert [row.instance for row in rows('"hi"\n{"id": 1, "text": "ho"}\n', "jsonl", SPAM)] == ["hi", "ho"]
    (named,) = rows('{"a": "x", "b": "y"}', "jsonl", SPAM, column_names=["b"])
    assert named.instance == "y"
    (unclear,) = rows('{"a": "x", "b": "y"}', "jsonl", SPAM)
    assert "which key of the object holds the instance" in unclear.error


def test_an_empty_jsonl_is_a_file_without_rows():
    assert rows("", "jsonl") == []


def test_the_format_comes_from_the_file_ending_or_from_the_option():
    assert choose_format("a.CSV", None) == "csv"
    assert choose_format("a.ndjson", "csv") == "jsonl"
    assert choose_format("-", "jsonl") == "jsonl"
    with pytest.raises(InvalidInput, match="standard input and output have no file ending"):
        choose_format("-", None)
    with pytest.raises(InvalidInput, match=r"the ending of a\.parquet names none"):
        choose_format("a.parquet", None)


def test_an_object_may_lack_optional_features_and_loses_keys_that_are_not_misspelt():
    features = (Feature(name="age", kind="number"), Feature(name="plan", kind="string", optional=True))
    churn = msgspec.structs.replace(CHURN, input=Named(features=features))
    left_out, full, misspelt = rows(
        '{"id": 1, "age": 41}\n{"age": 41, "plan": "gold", "pla": 1}\n{"age": 41, "plam": "gold"}\n',
        "jsonl",
        churn,
    )
    assert (left_out.instance, full.instance) == ({"age": 41}, {"age": 41, "plan": "gold"})
    assert "no feature 'plam' in the contract; did you mean 'plan'?" in (misspelt.error or "")


def test_a_list_of_strings_is_a_line_of_its_own_or_the_instance_of_an_object():
    tokens = msgspec.structs.replace(SPAM, input=Tokens())
    read = rows('["rain", "wind"]\n{"id": 1, "instance": []}\n["rain", 1]\n', "jsonl", tokens)
    assert [row.instance for row in read] == [["rain", "wind"], [], None]
    assert "at [1]: must be a string, got a number" in (read[2].error or "")
