"""Writes rows with their predictions as CSV or JSON lines, to standard output or to a file.

A file is created under its name when it is complete.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import msgspec

from headrace.batch.blocks import Predicted, PredictedLines, PredictedRow
from headrace.batch.part_file import PartFile, open_part_file
from headrace.catalog.class_labels import PREDICTION, by_label, name_labels
from headrace.catalog.contract import Output
from headrace.errors import InvalidInput
from headrace.terminal import PlainBytes

#: The column or key that follows those of the prediction.
ERROR = "error"

#: Characters of CSV that are buffered before they are written.
_BUFFER_CHARACTERS = 64 * 1024


class Writer(Protocol):
    """Writes rows to a file."""

    def write(self, predicted: Predicted) -> None:
        """Write a row, or several lines."""

    def flush(self) -> None:
        """Write buffered rows to the file."""


class CsvWriter:
    """Writes rows as CSV: the columns of the input, the columns of the prediction, and `error`."""

    def __init__(
        self,
        file: BinaryIO,
        columns: Sequence[str],
        predictions: Sequence[str],
        delimiter: str = ",",
        *,
        header: bool = True,
    ) -> None:
        self._columns = columns
        self._prediction_count = len(predictions)
        self._file = file
        self._delimiter = delimiter
        self._buffer = io.StringIO(newline="")
        self._csv = csv.writer(self._buffer, delimiter=delimiter, lineterminator="\n")
        if header:
            self._csv.writerow([*columns, *predictions, ERROR])

    def write(self, predicted: Predicted) -> None:
        """Write a row, or several lines."""
        if isinstance(predicted, PredictedRow):
            self._write_row(predicted)
        elif predicted.block.table.delimiter == self._delimiter:
            self._write_lines(predicted)
        else:
            for row in predicted.rows():
                self._write_row(row)

    def _write_row(self, predicted: PredictedRow) -> None:
        cells = [_to_text(predicted.row.values.get(column)) for column in self._columns]
        cells += self._predicted_cells(predicted.prediction, predicted.error, predicted.row.line)
        self._csv.writerow(cells)
        if self._buffer.tell() > _BUFFER_CHARACTERS:
            self._write_buffer()

    def _predicted_cells(self, prediction: Any, error: str | None, line: int) -> list[str]:
        if error is not None:
            return [""] * self._prediction_count + [_format_error(line, error)]
        if self._prediction_count == 1:
            return [_to_text(_unwrap(prediction)), ""]
        return [*map(_to_text, prediction), ""]

    def _write_lines(self, predicted: PredictedLines) -> None:
        """Write lines as they are in the input, and append the cells of the prediction."""
        self._write_buffer()
        appended = io.StringIO(newline="")
        writer = csv.writer(appended, delimiter=self._delimiter, lineterminator="\n")
        texts, errors = predicted.block.texts, predicted.errors
        for index, prediction in enumerate(predicted.predictions):
            error = errors.get(index) if errors else None
            line = predicted.block.line_number(index) if error is not None else 0
            writer.writerow(["", *self._predicted_cells(prediction, error, line)])
        # Each begins with a delimiter. Only an error may hold a line feed, in quotes; then there are more of them.
        endings = appended.getvalue().split("\n")[:-1]
        if len(endings) != len(texts):
            for row in predicted.rows():
                self._write_row(row)
            return
        self._file.write(
            b"".join([b"%b%b\n" % pair for pair in zip(texts, map(str.encode, endings), strict=True)])
        )

    def flush(self) -> None:
        """Write buffered rows to the file."""
        self._write_buffer()
        self._file.flush()

    def _write_buffer(self) -> None:
        self._file.write(self._buffer.getvalue().encode())
        self._buffer.seek(0)
        self._buffer.truncate()


class JsonWriter:
    """Writes rows as JSON lines: the keys of the input, `prediction` and `error`. Features have contract types.

    A prediction that holds a value for each class is an object of them.
    """

    def __init__(self, file: BinaryIO, output: Output) -> None:
        self._file = file
        self._labels = name_labels(output.column_classes)

    def write(self, predicted: Predicted) -> None:
        """Write a row, or several lines."""
        if isinstance(predicted, PredictedRow):
            self._write_row(predicted)
        else:
            for row in predicted.rows():
                self._write_row(row)

    def _write_row(self, predicted: PredictedRow) -> None:
        line: dict[str, Any] = dict(predicted.row.values)
        if isinstance(predicted.row.instance, dict):
            line.update(predicted.row.instance)
        line[PREDICTION] = by_label(self._labels, predicted.prediction)
        line[ERROR] = None if predicted.error is None else _format_error(predicted.row.line, predicted.error)
        self._file.write(msgspec.json.encode(line) + b"\n")

    def flush(self) -> None:
        """Write buffered rows to the file."""
        self._file.flush()


def _format_error(line: int, error: str) -> str:
    return f"line {line}: {error}"


def _unwrap(prediction: Any) -> Any:
    """Return the value in a list of one value."""
    return prediction[0] if isinstance(prediction, list) and len(prediction) == 1 else prediction


def _to_text(value: Any) -> str:
    match value:
        case str():
            return value
        case None:
            return ""
        case bool() | dict() | list():
            return msgspec.json.encode(value).decode()
        case _:
            return str(value)


def check_target(target: str, source: str, *, force: bool) -> None:
    """Raise InvalidInput if the target exists, is the source, is a folder, or has no folder.

    `force` permits a target that exists.
    """
    path = Path(target)
    if target == "-":
        return
    if source != "-" and path.exists() and Path(source).exists() and path.samefile(source):
        raise InvalidInput(f"{target} is the input; write the predictions to another file")
    if path.is_dir():
        raise InvalidInput(f"{target} is a folder; name a file")
    if path.is_file() and not force:
        raise InvalidInput(f"{target} exists already; --force overwrites it")
    if not path.resolve().parent.is_dir():
        raise InvalidInput(f"{target} cannot be written: there is no folder {path.parent}")


@contextmanager
def open_target(target: str, *, run: str = "", resume: bool = False) -> Iterator[PartFile]:
    """Open the file to write; `-` is standard output.

    A file is written under another name beside it and renamed at the end of the `with` block
    (`headrace.batch.part_file`, also for `run` and `resume`). After an exception, no file is left. Devices and
    pipes are written directly. Raises InvalidInput if the file cannot be created, or if another run writes it.
    """
    path = Path(target).resolve()  # a symbolic link is kept, and its target replaced
    if target == "-":
        file = cast("BinaryIO", PlainBytes(sys.stdout)) if sys.stdout.isatty() else sys.stdout.buffer
        yield PartFile(file, None, None)
        file.flush()
        return
    if path.exists() and not path.is_file():
        with path.open("wb") as device:
            yield PartFile(device, None, None)
        return
    with open_part_file(path, run=run, resume=resume) as part_file:
        yield part_file
