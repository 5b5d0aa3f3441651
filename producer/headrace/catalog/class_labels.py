"""Values of classes by their labels, as JSON and the columns of a file name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.catalog.contract import Output
from headrace.wire.outcome import ClassLabel

#: The column or key of a prediction behind those of the input.
PREDICTION = "prediction"


def name_labels(classes: Sequence[ClassLabel] | None) -> list[str] | None:
    """Return the texts of labels; None without labels, or if two of them have the same text."""
    if classes is None:
        return None
    names = [str(label).lower() if isinstance(label, bool) else str(label) for label in classes]
    return names if len(set(names)) == len(names) else None


def by_label(names: Sequence[str] | None, prediction: Any) -> Any:
    """Return a prediction as an object of each class's value, or as it is if it has no value for each class."""
    is_labelled = names is not None and isinstance(prediction, list) and len(prediction) == len(names)
    return dict(zip(names, prediction, strict=True)) if names is not None and is_labelled else prediction


def name_prediction_columns(output: Output) -> tuple[str, ...]:
    """Return the columns of a prediction in a CSV: one for each value, named by its class if it has one."""
    if len(output.shape) != 1:
        return (PREDICTION,)  # a single value, or a nested list that is written as JSON
    names = name_labels(output.column_classes) or [str(number) for number in range(output.shape[0])]
    return tuple(f"{PREDICTION}_{name}" for name in names)
