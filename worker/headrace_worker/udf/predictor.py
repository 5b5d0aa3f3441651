"""A version of a model as one callable over frames: columns in, the columns that are kept and the results out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import msgspec
import pyarrow as pa

from headrace.catalog.contract import Contract, Named
from headrace.catalog.validation import check_method
from headrace.errors import InvalidInput, ModelError
from headrace.settings import load_settings
from headrace.text import plural
from headrace_worker.manifest import Manifest
from headrace_worker.settings import WorkerSettings
from headrace_worker.tables.columns import select_columns
from headrace_worker.tables.predict import predict_table
from headrace_worker.tables.result import RowError, prediction_type
from headrace_worker.tables.schema import contract_schema
from headrace_worker.udf.frames import wrap
from headrace_worker.udf.pinned import PinnedVersion, locate_store, pin_version
from headrace_worker.udf.process import load_once, open_store
from headrace_worker.udf.schemas import column_names, columns_to_keep, output_schema, result_type, to_result


class Predictor:
    """The proven version of a model, called with a frame: it returns the same kind of frame with predictions.

    A frame is a Table or RecordBatch of pyarrow, or a frame of pandas or polars. The result has the columns of
    `keep`, then `prediction` and `error`: a row that fails has no prediction, and an error instead.

    `model` is `churn`, `churn@3` or `churn@production`. A name without a version is the version that serves: that
    of the alias `production` where the environment names a Redis, else the newest. The version is fixed here, once
    for all processes. `method` is a method of the contract; None is the default one. `keep` are the columns of the
    frame that the result has too, None for all of them. `key` is the column that identifies a row, always kept, as
    the first. `on_error="raise"` raises at the first frame with a row that fails. `store` replaces the setting
    HEADRACE_MODELS.

    It is pickled by reference: the store, the version and these options. Each process reads its own settings from
    its environment, and loads, verifies and proves the version once, at the first frame that has rows.

    Raises UnknownModel, InvalidInput, ModelError, SettingError and StoreUnavailable.
    """

    def __init__(
        self,
        model: str,
        *,
        method: str | None = None,
        keep: Sequence[str] | None = None,
        key: str | None = None,
        on_error: Literal["column", "raise"] = "column",
        store: str | os.PathLike[str] | None = None,
    ) -> None:
        if on_error not in {"column", "raise"}:
            raise InvalidInput(f'on_error is "column" or "raise"; got {on_error!r}')
        if isinstance(keep, str):
            raise InvalidInput(f"keep is a list of columns; write keep=[{keep!r}]")
        settings = load_settings(WorkerSettings)
        settings = msgspec.structs.replace(settings, models=locate_store(store or settings.models))
        self._pinned = pin_version(settings, model)
        self._keep = None if keep is None else tuple(keep)
        self._key, self._on_error = key, on_error
        self._method = check_method(self.contract, method)

    # --- what it is --------------------------------------------------------------------------------

    @property
    def model(self) -> str:
        """The name of the model."""
        return self._pinned.model

    @property
    def version(self) -> str:
        """The number of the version, as text."""
        return self._pinned.version

    @property
    def method(self) -> str:
        """The method of the model that is called."""
        return self._method

    @property
    def contract(self) -> Contract:
        """The input and the outputs of the version."""
        return self._manifest.contract

    @cached_property
    def _manifest(self) -> Manifest:
        store, _ = open_store(self._pinned)
        manifest = store.read_manifest(self._pinned.model, self._pinned.version)
        self._pinned.check(manifest)
        return manifest

    def __repr__(self) -> str:
        return f"<Predictor {self._pinned.title} {self._method}>"

    def __getstate__(self) -> tuple[Any, ...]:
        return (tuple(self._pinned), self._method, self._keep, self._key, self._on_error)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        pinned, self._method, self._keep, self._key, self._on_error = state
        self._pinned = PinnedVersion(*pinned)

    # --- the schema of results ---------------------------------------------------------------------

    @property
    def schema(self) -> Any:
        """The Arrow schema of the result for a frame with just the columns of the contract.

        Raises InvalidInput if a column to keep is none of these: see `schema_for`.
        """
        return self.schema_for(contract_schema(self.contract))

    def schema_for(self, source: Any) -> Any:
        """Return the schema of the result for a frame with the schema `source`, of Arrow or of Spark.

        Raises InvalidInput if such a frame cannot be predicted.
        """
        names = column_names(source)
        self._input_columns(names)
        return output_schema(source, columns_to_keep(self._keep, self._key, names), self._prediction_type)

    @property
    def meta(self) -> Any:
        """The result for a frame of pandas with just the columns of the contract and no rows, as Dask's `meta`.

        For other frames, call the predictor with a frame without rows: it then loads nothing.
        """
        return self(contract_schema(self.contract).empty_table().to_pandas())

    @cached_property
    def _prediction_type(self) -> Any:
        return result_type(prediction_type(self._manifest, self._method))

    # --- predictions -------------------------------------------------------------------------------

    def __call__(self, frame: Any) -> Any:
        """Return the same kind of frame: the columns to keep, `prediction` and `error`, row by row.

        Raises InvalidInput if the frame lacks a column of the contract, or with `on_error="raise"` if a row does
        not fit it; ModelError if the version must not serve, or with `on_error="raise"` if it fails on a row.
        """
        source = wrap(frame)
        columns = columns_to_keep(self._keep, self._key, source.columns)
        table = select_columns(self.contract, source.to_arrow(self._input_columns(source.columns)))
        predictions, errors = self._predict(table)
        return source.with_results(columns, predictions, errors)

    def frames(self, frames: Iterable[Any]) -> Iterator[Any]:
        """Yield the result for each frame, as Spark's `mapInArrow` and `mapInPandas` call it."""
        for frame in frames:
            yield self(frame)

    def _input_columns(self, columns: Sequence[str]) -> list[str]:
        """Return the columns of a frame that make its instances, or from which these are chosen.

        Raises InvalidInput if it lacks a feature.
        """
        if not isinstance(self.contract.input, Named):
            return [name for name in columns if name != self._key]
        names = pa.schema([(name, pa.null()) for name in columns])
        return list(select_columns(self.contract, names.empty_table()).column_names)

    def _predict(self, table: Any) -> tuple[Any, Any]:
        """Return the predictions and the errors of a table as Arrow arrays. A table without rows loads nothing."""
        if not table.num_rows:
            return pa.nulls(0, self._prediction_type), pa.nulls(0, pa.string())
        with load_once(self._pinned).use() as loaded:
            result = predict_table(loaded, self._method, table)
        if not result.errors:
            return to_result(result.predictions, self._prediction_type), pa.nulls(table.num_rows, pa.string())
        if self._on_error == "raise":
            raise self._first_error(result.errors, table.num_rows)
        texts: list[str | None] = [None] * table.num_rows
        for row, error in result.errors.items():
            texts[row] = _describe(error)
        return to_result(result.predictions, self._prediction_type), pa.array(texts, pa.string())

    def _first_error(self, errors: Mapping[int, RowError], rows: int) -> InvalidInput | ModelError:
        """Return the error to raise for the first row that failed."""
        row = min(errors)
        kind = InvalidInput if errors[row].reason == "bad input" else ModelError
        return kind(f"{self._pinned.title}: row {row} of {plural(rows, 'row')} failed: {_describe(errors[row])}")


def _describe(error: RowError) -> str:
    """Return an error of a row as text that begins with its reason."""
    if error.reason == "bad input":
        return f"{error.reason}: {error.message}"
    return f"{error.reason}: {error.error}: {error.message}"
