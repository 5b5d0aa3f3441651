"""Write rows with their predictions as CSV or JSON lines, to standard output or a file that appears when whole."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import msgspec

from headrace.batch.blocks import PredictedRow
from headrace.catalog.contract import Output
from headrace.errors import InvalidInput
from headrace.wire.message import new_id

#: Names of what a row gets behind its own columns.
PREDICTION, ERROR = "prediction", "error"


class Writer(Protocol):
    """Something rows are written to."""

    def write(self, done: PredictedRow) -> None:
        """Write a row."""

    def flush(self) -> None:
        """Hand what is buffered on to the file."""


def prediction_columns(method: str, output: Output) -> tuple[str, ...]:
    """The columns a prediction takes in a CSV: one, or one for each value, named by class where it has classes."""
    if len(output.shape) != 1:
        return (PREDICTION,)  # a single value, or a table in itself, written as JSON
    names: list[Any] = list(range(output.shape[0]))
    # The classes name the columns of predict_proba and its like; `predict` of several outputs has none.
    if output.classes is not None and method != "predict" and len(set(map(_text, output.classes))) == len(names):
        names = list(output.classes)
    return tuple(f"{PREDICTION}_{_text(name)}" for name in names)


class CsvWriter:
    """Rows as CSV: the columns of the input, the prediction's, and `error`."""

    def __init__(
        self, file: BinaryIO, columns: Sequence[str], predictions: Sequence[str], delimiter: str = ","
    ) -> None:
        self._columns = columns
        self._predictions = len(predictions)
        self._file = file
        self._text = io.StringIO(newline="")
        self._csv = csv.writer(self._text, delimiter=delimiter, lineterminator="\n")
        self._csv.writerow([*columns, *predictions, ERROR])

    def write(self, done: PredictedRow) -> None:
        """Write a row."""
        cells = [_text(done.row.values.get(column)) for column in self._columns]
        if done.error is not None:
            cells += [""] * self._predictions + [_placed(done)]
        elif self._predictions == 1:
            cells += [_text(_only(done.prediction)), ""]
        else:
            cells += [*map(_text, done.prediction), ""]
        self._csv.writerow(cells)
        if self._text.tell() > 64 * 1024:
            self._drain()

    def flush(self) -> None:
        """Hand what is buffered on to the file."""
        self._drain()
        self._file.flush()

    def _drain(self) -> None:
        self._file.write(self._text.getvalue().encode())
        self._text.seek(0)
        self._text.truncate()


class JsonWriter:
    """Rows as JSON lines: the keys of the input, `prediction` and `error`. Features have the contract's types."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, done: PredictedRow) -> None:
        """Write a row."""
        row: dict[str, Any] = dict(done.row.values)
        if isinstance(done.row.instance, dict):
            row.update(done.row.instance)
        row[PREDICTION] = done.prediction
        row[ERROR] = None if done.error is None else _placed(done)
        self._file.write(msgspec.json.encode(row) + b"\n")

    def flush(self) -> None:
        """Hand what is buffered on to the file."""
        self._file.flush()


def _placed(done: PredictedRow) -> str:
    return f"line {done.row.line}: {done.error}"


def _only(prediction: Any) -> Any:
    return prediction[0] if isinstance(prediction, list) and len(prediction) == 1 else prediction


def _text(value: Any) -> str:
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
    """Raise InvalidInput if the output must not be written there: it exists, is the input, or has no folder."""
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
def open_target(target: str) -> Iterator[BinaryIO]:
    """The file to write to, `-` for standard output.

    A file is written under another name beside it and renamed at the end of the `with` block; if that ends
    with an exception nothing is left. Devices and pipes are written as they are.
    """
    path = Path(target).resolve()  # a link stays a link
    if target == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if path.exists() and not path.is_file():
        with path.open("wb") as device:
            yield device
        return
    part = path.with_name(f".{path.name[:100]}.{new_id()[:8]}.part")
    try:
        file = part.open("xb")
    except OSError as error:
        raise InvalidInput(f"{target} cannot be written: {error.strerror}") from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
