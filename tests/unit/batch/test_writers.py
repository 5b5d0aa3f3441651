"""Tests of writing rows with their predictions, and of creating a file when it is complete."""

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
from headrace.batch.writers import CsvWriter, JsonWriter, check_target, open_target
from headrace.catalog.class_labels import name_prediction_columns
from headrace.catalog.contract import Output
from headrace.errors import InvalidInput


def predicted_row(prediction=None, *, error=None, instance=None, **values) -> PredictedRow:
    return PredictedRow(
        row=Row(line=2, values=values, instance=instance, error=error), prediction=prediction, error=error
    )


def as_csv(
    rows: list[PredictedRow], columns=("a",), predictions=("prediction",), delimiter=","
) -> list[list[str]]:
    file = io.BytesIO()
    writer = CsvWriter(file, columns, predictions, delimiter)
    for row in rows:
        writer.write(row)
    writer.flush()
    return list(csv.reader(io.StringIO(file.getvalue().decode(), newline=""), delimiter=delimiter))


def test_the_prediction_and_the_error_follow_the_columns_of_the_input():
    assert as_csv([predicted_row("gold", a="1"), predicted_row(error="no good", a="x")]) == [
        ["a", "prediction", "error"],
        ["1", "gold", ""],
        ["x", "", "line 2: no good"],
    ]


def test_values_are_written_as_valid_csv():
    awkward = 'a "quoted"\nline, with é'
    assert as_csv(
        [predicted_row(1.5, a=awkward), predicted_row(True, a=None), predicted_row([[1, 2]], a={"x": 1})]
    )[1:] == [
        [awkward, "1.5", ""],
        ["", "true", ""],
        ['{"x":1}', "[1,2]", ""],
    ]


def test_several_values_have_a_column_each():
    columns = name_prediction_columns(Output(shape=(2,), classes=("basic", "gold")))
    assert columns == ("prediction_basic", "prediction_gold")
    assert as_csv([predicted_row([0.25, 0.75], a="1"), predicted_row(error="no", a="2")], predictions=columns)[
        1:
    ] == [
        ["1", "0.25", "0.75", ""],
        ["2", "", "", "line 2: no"],
    ]


def test_columns_of_predictions_are_named_by_class_or_number():
    assert name_prediction_columns(Output(shape=())) == ("prediction",)
    assert name_prediction_columns(Output(shape=(), classes=("a", "b"))) == ("prediction",)
    assert name_prediction_columns(Output(shape=(2,))) == ("prediction_0", "prediction_1")
    assert name_prediction_columns(Output(shape=(2,), classes=(4, 9))) == ("prediction_4", "prediction_9")
    assert name_prediction_columns(Output(shape=(2,), classes=(False, True))) == (
        "prediction_false",
        "prediction_true",
    )
    assert name_prediction_columns(Output(shape=(2,), classes=(1, "1"))) == ("prediction_0", "prediction_1")
    assert name_prediction_columns(Output(shape=(2, 2))) == ("prediction",)


def test_json_lines_have_the_features_in_their_types():
    file = io.BytesIO()
    writer = JsonWriter(file, Output(shape=(2,)))
    writer.write(predicted_row([0.5, 0.5], instance={"a": 1.0}, a="1", id="x"))
    writer.write(predicted_row(error="no good", a="y", id="x"))
    assert [json.loads(line) for line in file.getvalue().splitlines()] == [
        {"a": 1.0, "id": "x", "prediction": [0.5, 0.5], "error": None},
        {"a": "y", "id": "x", "prediction": None, "error": "line 2: no good"},
    ]


def test_json_lines_have_the_value_of_each_class_under_its_label():
    file = io.BytesIO()
    for classes in ((False, True), (1, "1")):  # labels that JSON cannot tell apart have no keys
        JsonWriter(file, Output(shape=(2,), classes=classes)).write(predicted_row([0.25, 0.75]))
    assert [json.loads(line)["prediction"] for line in file.getvalue().splitlines()] == [
        {"false": 0.25, "true": 0.75},
        [0.25, 0.75],
    ]


def test_a_file_is_created_when_it_is_complete(tmp_path: Path):
    target = tmp_path / "out.csv"
    with open_target(str(target)) as part_file:
        part_file.file.write(b"complete")
        assert not target.exists()
    assert target.read_bytes() == b"complete"
    assert list(tmp_path.iterdir()) == [target]


def test_an_incomplete_file_is_removed(tmp_path: Path):
    target = tmp_path / "out.csv"
    target.write_text("former content")
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012, SIM117  # the block is what is interrupted
        with open_target(str(target)) as part_file:
            part_file.file.write(b"half")
            raise KeyboardInterrupt
    assert target.read_text() == "former content"
    assert list(tmp_path.iterdir()) == [target]


def test_a_symbolic_link_is_kept_and_its_file_replaced(tmp_path: Path):
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_text("old")
    link.symlink_to(real)
    with open_target(str(link)) as part_file:
        part_file.file.write(b"new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_a_pipe_is_written_directly(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with open_target(str(pipe)) as part_file:
        part_file.file.write(b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_the_input_is_never_overwritten_under_any_name(tmp_path: Path):
    source, link = tmp_path / "in.csv", tmp_path / "link.csv"
    source.write_text("x")
    link.hardlink_to(source)
    for target in (source, link, tmp_path / "." / "in.csv"):
        with pytest.raises(InvalidInput, match="is the input"):
            check_target(str(target), str(source), force=True)


def test_targets_that_cannot_be_written_are_refused(tmp_path: Path):
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
