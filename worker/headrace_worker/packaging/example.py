"""Read an example: the instances a version is packaged with, from Parquet, CSV, JSON or JSON lines.

CSV has no types. A column has the first type that all its cells can be read as: booleans, numbers, or else texts.
If an encoder of the estimator knows the column's categories as texts, the cells stay texts, such as postcodes of
digits. An empty cell is a missing value.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from headrace.errors import ModelError
from headrace.json_errors import describe_json_error
from headrace_worker.packaging.table import Table, read_parquet
from headrace_worker.runtimes.estimator_tree import find_categories
from headrace_worker.store.folder import read_capped

#: The largest example file, in bytes. It is a sample, not the training data.
_MAX_BYTES = 64 * 1024 * 1024

_JSON = msgspec.json.Decoder()


def read_example(path: Path, estimator: Any) -> Table:
    """Read the instances in a file. Raises ModelError, which says where it cannot be read."""
    title = f"the example {path.name}"
    data = read_capped(path, title, _MAX_BYTES)
    suffix = path.suffix.lower()
    if suffix in {".parquet", ".pq"}:
        table = read_parquet(data, title)
        if not table.instances:
            raise ModelError(f"{title} holds no instances; give it one or more")
        return table
    if suffix not in {".csv", ".json", ".jsonl", ".ndjson"}:
        raise ModelError(f"{title} must be a .parquet, .csv, .json or .jsonl file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ModelError(f"{title} is not UTF-8 text; save it as UTF-8") from None
    if suffix == ".csv":
        instances = _from_csv(text, title, estimator)
    else:
        instances = _from_json(text, title, lines=suffix != ".json")
    if not instances:
        raise ModelError(f"{title} holds no instances; give it one or more")
    return Table(instances)


def _from_json(text: str, title: str, *, lines: bool) -> list[Any]:
    try:
        instances: object = _JSON.decode_lines(text) if lines else _JSON.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        described = describe_json_error(text, error) if not lines else _describe_line_error(text, error)
        raise ModelError(f"{title} is not JSON: {described}; a missing value is null, never NaN") from None
    if isinstance(instances, dict) and {"columns", "data"} <= instances.keys():
        instances = _from_split(instances["columns"], instances["data"], title)
    if not isinstance(instances, list):
        raise ModelError(f"{title} must be a list of instances, as [{{...}}, {{...}}]")
    return instances


def _describe_line_error(text: str, error: Exception) -> str:
    """Describe the error of the first line that is no JSON."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                _JSON.decode(line)
            except (msgspec.DecodeError, RecursionError) as of_line:
                return describe_json_error(line, of_line).replace("line 1,", f"line {number},", 1)
    return str(error)


def _from_split(columns: Any, data: Any, title: str) -> list[dict[str, Any]]:
    """Convert rows in the form of pandas' `orient="split"`, which MLflow writes."""
    try:
        return [dict(zip(map(str, columns), row, strict=True)) for row in data]
    except (TypeError, ValueError):
        raise ModelError(f"{title} has rows with another number of cells than it has columns") from None


def _from_csv(text: str, title: str, estimator: Any) -> list[Any]:
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise ModelError(f"{title} is not CSV: {error}") from None
    header, *rows = rows or [[]]
    rows = [row for row in rows if row]
    if not header or not all(header) or len(set(header)) != len(header):
        raise ModelError(f"{title} must begin with a row of column names, all different and none empty")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ModelError(f"{title}: row {number} has {len(row)} cells, the header has {len(header)}")
    if not rows:
        return []
    cells = list(zip(*rows, strict=True))
    if len(header) == 1 and _accepts_texts(estimator):
        return list(cells[0])
    categories = find_categories(estimator, list(getattr(estimator, "feature_names_in_", header)))
    columns = [_read_column(column, categories.get(name)) for name, column in zip(header, cells, strict=True)]
    return [dict(zip(header, row, strict=True)) for row in zip(*columns, strict=True)]


def _accepts_texts(estimator: Any) -> bool:
    return not hasattr(estimator, "feature_names_in_") and not hasattr(estimator, "n_features_in_")


def _read_column(cells: Sequence[str], categories: list[Any] | None) -> list[Any]:
    if categories is None or not any(isinstance(category, str) for category in categories):
        readers: tuple[Callable[[str], Any], ...] = (_read_boolean, int, _read_number)
        for read in readers:
            try:
                return [read(cell) if cell.strip() else None for cell in cells]
            except ValueError:
                continue
    return [cell or None for cell in cells]


_BOOLEANS = {"true": True, "false": False}


def _read_boolean(cell: str) -> bool:
    try:
        return _BOOLEANS[cell.strip().lower()]
    except KeyError:
        raise ValueError("neither true nor false") from None


def _read_number(cell: str) -> float | None:
    # pandas can write a missing number as NaN, and reads NaN as missing.
    number = float(cell)
    return None if math.isnan(number) else number
