"""Rows are written with their predictions, and a file appears when it is whole."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from pathlib import Path

import pytest

from headrace.batch.blocks import PredictedRow
from headrace.batch.reader import Row
from headrace.batch.writers import CsvWriter, JsonWriter, check_target, open_target, prediction_columns
from headrace.catalog.contract import Output
from headrace.errors import InvalidInput


def done(prediction=None, *, error=None, instance=None, **given) -> PredictedRow:
    return PredictedRow(
        row=Row(line=2, values=given, instance=instance, error=error), prediction=prediction, error=error
    )


def as_csv(
    rows: list[PredictedRow], columns=("a",), predictions=("prediction",), delimiter=","
) -> list[list[str]]:
    file = io.BytesIO()
    writer = CsvWriter(file, columns, predictions, delimiter)
    for one in rows:
        writer.write(one)
    writer.flush()
    return list(csv.reader(io.StringIO(file.getvalue().decode(), newline=""), delimiter=delimiter))


def test_the_prediction_and_the_error_stand_behind_the_columns_of_the_input():
    assert as_csv([done("gold", a="1"), done(error="no good", a="x")]) == [
        ["a", "prediction", "error"],
        ["1", "gold", ""],
        ["x", "", "line 2: no good"],
    ]


def test_values_are_written_as_a_csv_reader_wants_them():
    awkward = 'a "quoted"\nline, with é'
    assert as_csv([done(1.5, a=awkward), done(True, a=None), done([[1, 2]], a={"x": 1})])[1:] == [
        [awkward, "1.5", ""],
        ["", "true", ""],
        ['{"x":1}', "[1,2]", ""],
    ]


def test_several_values_have_a_column_each():
    columns = prediction_columns("predict_proba", Output(shape=(2,), classes=("basic", "gold")))
    assert columns == ("prediction_basic", "prediction_gold")
    assert as_csv([done([0.25, 0.75], a="1"), done(error="no", a="2")], predictions=columns)[1:] == [
        ["1", "0.25", "0.75", ""],
        ["2", "", "", "line 2: no"],
    ]


def test_columns_of_predictions_are_named_by_class_or_number():
    assert prediction_columns("predict", Output(shape=())) == ("prediction",)
    assert prediction_columns("predict", Output(shape=(), classes=("a", "b"))) == ("prediction",)
    assert prediction_columns("predict", Output(shape=(2,))) == ("prediction_0", "prediction_1")
    assert prediction_columns("predict", Output(shape=(2,), classes=(0, 1))) == ("prediction_0", "prediction_1")
    assert prediction_columns("predict_proba", Output(shape=(2,), classes=(False, True))) == (
        "prediction_false",
        "prediction_true",
    )
    assert prediction_columns("predict_proba", Output(shape=(2,), classes=(1, "1"))) == (
        "prediction_0",
        "prediction_1",
    )
    assert prediction_columns("transform", Output(shape=(2, 2))) == ("prediction",)


def test_json_lines_have_the_features_in_their_types():
    file = io.BytesIO()
    writer = JsonWriter(file)
    writer.write(done([0.5, 0.5], instance={"a": 1.0}, a="1", id="x"))
    writer.write(done(error="no good", a="y", id="x"))
    assert [json.loads(line) for line in file.getvalue().splitlines()] == [
        {"a": 1.0, "id": "x", "prediction": [0.5, 0.5], "error": None},
        {"a": "y", "id": "x", "prediction": None, "error": "line 2: no good"},
    ]


def test_a_file_appears_when_it_is_whole(tmp_path: Path):
    target = tmp_path / "out.csv"
    with open_target(str(target)) as file:
        file.write(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [target]


def test_nothing_is_left_of_a_file_that_did_not_become_whole(tmp_path: Path):
    target = tmp_path / "out.csv"
    target.write_text("the former one")
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012, SIM117  # the block is what is interrupted
        with open_target(str(target)) as file:
            file.write(b"half")
            raise KeyboardInterrupt
    assert target.read_text() == "the former one"
    assert list(tmp_path.iterdir()) == [target]


def test_a_link_stays_a_link_and_its_file_is_replaced(tmp_path: Path):
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_text("old")
    link.symlink_to(real)
    with open_target(str(link)) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_a_pipe_is_written_as_it_is(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with open_target(str(pipe)) as file:
        file.write(b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_the_input_is_never_overwritten_by_whatever_name(tmp_path: Path):
    source, link = tmp_path / "in.csv", tmp_path / "link.csv"
    source.write_text("x")
    link.hardlink_to(source)
    for target in (source, link, tmp_path / "." / "in.csv"):
        with pytest.raises(InvalidInput, match="is the input"):
            check_target(str(target), str(source), force=True)


def test_places_that_cannot_be_written_are_refused(tmp_path: Path):
    existing = tmp_path / "out.csv"
    existing.write_text("x")
    with pytest.raises(InvalidInput, match="--force overwrites"):
        check_target(str(existing), "-", force=False)
    check_target(str(existing), "-", force=True)
    check_target("-", "-", force=False)
    with pytest.raises(InvalidInput, match="is a folder"):
        check_target(str(tmp_path), "-", force=True)
    with pytest.raises(InvalidInput, match="there is no folder"):
        check_target(str(tmp_path / "no" / "out.csv"), "-", force=True)
