from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from headrace.errors import ModelError
from headrace_worker.packaging.example import read_example


def _read(folder: Path, name: str, content: str | bytes, estimator: Any = None) -> list[Any]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_example(path, estimator or DummyClassifier().fit([[0], [1]], [0, 1])).instances


def test_csv_cells_get_the_type_of_their_column(tmp_path: Path) -> None:
    text = "n,f,b,s,m\n1,1,true,x,1\n2,2.5,False,,\n-3,,,y z,x\n"
    assert _read(tmp_path, "e.csv", text) == [
        {"n": 1, "f": 1.0, "b": True, "s": "x", "m": "1"},
        {"n": 2, "f": 2.5, "b": False, "s": None, "m": None},
        {"n": -3, "f": None, "b": None, "s": "y z", "m": "x"},
    ]


def test_nan_in_csv_is_a_missing_value(tmp_path: Path) -> None:
    assert _read(tmp_path, "e.csv", "a,b\n1.5,2\nNaN,3\n")[1] == {"a": None, "b": 3}


def test_a_column_stays_texts_if_an_encoder_knows_it_as_texts(tmp_path: Path) -> None:
    table = pd.DataFrame({"zip": ["01234", "99999"], "count": [1, 2]})
    estimator = make_pipeline(OneHotEncoder(handle_unknown="ignore"), DummyClassifier()).fit(table, [0, 1])
    assert _read(tmp_path, "e.csv", "zip,count\n01234,1\n99999,2\n", estimator)[0] == {"zip": "01234", "count": 1}


def test_csv_with_byte_order_mark_quotes_and_newlines(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf"a, or b",c\r\n"one\nline, and ""two""",2\r\n\r\n'
    assert _read(tmp_path, "e.csv", content) == [{"a, or b": 'one\nline, and "two"', "c": 2}]


def test_one_column_of_csv_is_texts_for_a_model_of_texts(tmp_path: Path) -> None:
    estimator = TfidfVectorizer().fit(["a b", "c d"] * 2 + ["word"])
    assert _read(tmp_path, "e.csv", "text\nsome words\n42\n", estimator) == ["some words", "42"]


def test_json_and_json_lines_are_read_unchanged(tmp_path: Path) -> None:
    assert _read(tmp_path, "e.json", '[{"a": 1.0}, {"a": null}]') == [{"a": 1.0}, {"a": None}]
    assert _read(tmp_path, "e.jsonl", "[1, 2]\n[3, 4]\n") == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.csv", "", "must begin with a row of column names"),
        ("e.csv", "a,a\n1,2\n", "must begin with a row of column names, all different"),
        ("e.csv", "a,\n1,2\n", "must begin with a row of column names, all different and none empty"),
        ("e.csv", "a,b\n", "holds no instances"),
        ("e.csv", "a,b\n1,2\n1,2,3\n", "row 2 has 3 cells, the header has 2"),
        ("e.csv", 'a,b\n"1,2\n', "is not CSV"),
        ("e.csv", b"a\n\xff\xfe\n", "is not UTF-8 text"),
        ("e.json", "", "is not JSON"),
        ("e.json", "[NaN]", "is not JSON.*a missing value is null, never NaN"),
        ("e.json", "[" * 100_000, "is not JSON"),
        ("e.json", '{"a": 1}', "must be a list of instances"),
        ("e.json", "[]", "holds no instances"),
        ("e.json", '[{"a": 1},\n {"a" 2}]', "is not JSON: line 2, column 7: expected ':'; "),
        ("e.jsonl", "{}\n{", "is not JSON: line 2, column 2: it ends too early; "),
        ("e.jsonl", '{"a": 1}\n\n{"a": NaN}\n', "is not JSON: line 3, column 7: invalid character; "),
        ("e.parquet", "PAR1", "is not a Parquet file that can be read"),
    ],
)
def test_a_malformed_example_is_refused(tmp_path: Path, name: str, content: Any, message: str) -> None:
    with pytest.raises(ModelError, match=f"the example {name}.*{message}"):
        _read(tmp_path, name, content)


def test_a_csv_cell_over_the_field_limit_is_refused(tmp_path: Path) -> None:
    former = csv.field_size_limit(100_000)  # the limit is global, and batches raise it
    try:
        with pytest.raises(ModelError, match=r"the example e\.csv.*is not CSV: field larger than field limit"):
            _read(tmp_path, "e.csv", "a\n" + "x" * 200_000)
    finally:
        csv.field_size_limit(former)


def test_a_missing_example_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the example none.csv cannot be read: .*: No such file"):
        read_example(tmp_path / "none.csv", None)
