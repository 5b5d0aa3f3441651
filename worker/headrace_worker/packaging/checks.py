"""Check a version before it is stored: it predicts as the original does, and each row's answer is its own."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from headrace.errors import ModelError
from headrace.wire.message import Instance
from headrace_worker.manifest import Manifest, Proof
from headrace_worker.models.loader import LoadedModel, is_same_prediction
from headrace_worker.parity import compare_predictions, max_difference
from headrace_worker.runtimes.predictions import to_predictions

#: The most rows that are predicted one at a time, and the seconds this may take for a method. One row always is.
_SINGLE_ROWS, _SINGLE_SECONDS = 32, 3.0


def predict_with_original(
    estimator: Any,
    data: Any,
    methods: Sequence[str],
    rows: int,
    arguments: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, list[Any]]:
    """Return the predictions of the estimator itself for its own kind of table, by method.

    `arguments` are constant arguments of the first method. Raises ModelError.
    """
    expected = {}
    for method in methods:
        constant = arguments if method == methods[0] else {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected[method] = to_predictions(getattr(estimator, method)(data, **constant), rows)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"the model itself cannot {method} this table: {type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
    return expected


def check_against_original(
    loaded: LoadedModel, instances: Sequence[Instance], expected: Mapping[str, Sequence[Any]], source: str
) -> Proof:
    """Compare a version with the predictions that the original gave for the same rows, by method.

    `source` says where these come from. Raises ModelError where they differ.
    """
    largest = 0.0
    for method, predictions in expected.items():
        if len(predictions) != len(instances):
            raise ModelError(f"{source} has {len(predictions)} predictions for {len(instances)} instances")
        actual = loaded.predict(method, instances)
        if differing := _find_differing(loaded.manifest, predictions, actual):
            row = differing[0]
            raise ModelError(
                f"{method} differs from {source} for {len(differing)} of {len(instances)} rows; row {row}: "
                f"{_shorten(predictions[row])} became {_shorten(actual[row])}. The model was fitted on columns of "
                "other types than its instances have here: give the typed table itself, as a frame or as Parquet"
            )
        pairs = zip(predictions, actual, strict=True)
        largest = max(largest, *(max_difference(*pair) or 0.0 for pair in pairs), 0.0)
    return Proof(source=source, compared=len(instances), difference=largest)


def check_rows_are_independent(loaded: LoadedModel, instances: Sequence[Instance]) -> None:
    """Check that a row's predictions do not depend on the other rows: jobs of different callers share a batch.

    Raises ModelError where they do, unless the version is limited to batches of one row or of one job.
    """
    limits = loaded.manifest.limits
    if limits.alone or limits.max_batch_instances == 1 or len(instances) < 2:
        return
    for method in loaded.manifest.methods:
        together = loaded.predict(method, instances)
        backwards = loaded.predict(method, instances[::-1])[::-1]
        alone = list(_predict_one_by_one(loaded, method, instances))
        differing = {
            *_find_differing(loaded.manifest, together, backwards),
            *_find_differing(loaded.manifest, together, [*alone, *together[len(alone) :]]),
        }
        if differing:
            raise ModelError(
                f"{method} gives {len(differing)} of {len(instances)} rows another answer alone or in another "
                "order than together: the model computes with the other rows of a call, as `cat.codes`, "
                "`get_dummies` or a mean of the batch do. Jobs of different callers share batches. Move that step "
                "into a transformer that is fitted once; or predict each job in a call of its own (--alone), "
                "or each row (--max-batch-instances 1)"
            )


def _predict_one_by_one(loaded: LoadedModel, method: str, instances: Sequence[Instance]) -> Iterator[Any]:
    """Yield the prediction of each row alone, until enough rows or seconds have passed."""
    started = time.perf_counter()
    for row, instance in enumerate(instances[:_SINGLE_ROWS]):
        try:
            yield loaded.predict(method, [instance])[0]
        except Exception as error:
            raise ModelError(
                f"{method} predicts {len(instances)} rows together, but not row {row} alone: "
                f"{type(error).__name__}: {' '.join(str(error).split())[:200]}. Most jobs have one row. Put the "
                "model into a class whose method repeats a single row and returns the first answer"
            ) from error
        if time.perf_counter() - started > _SINGLE_SECONDS:
            return


def _find_differing(manifest: Manifest, expected: Sequence[Any], actual: Sequence[Any]) -> Sequence[int]:
    if manifest.runtime != "sklearn":  # it may compute with 32-bit floats
        return compare_predictions(expected, actual).mismatches
    pairs = zip(expected, actual, strict=True)
    return [row for row, pair in enumerate(pairs) if not is_same_prediction(*pair)]


def _shorten(prediction: Any) -> str:
    text = repr(prediction)
    return text if len(text) <= 80 else f"{text[:77]}..."
