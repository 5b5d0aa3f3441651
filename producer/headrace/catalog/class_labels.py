"""Values of classes by their labels, as JSON and the columns of a file name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.wire.outcome import ClassLabel


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
