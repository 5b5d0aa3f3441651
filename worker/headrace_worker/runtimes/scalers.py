"""Scale plain numbers as scikit-learn's scalers do, to the bit, without its checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.preprocessing import MinMaxScaler, StandardScaler


def make_transform(transformer: Any) -> Callable[[Any], Any]:
    """Return the `transform` of a fitted transformer, or a faster equivalent if it is a scaler."""
    transform: Callable[[Any], Any] = transformer.transform
    if getattr(transformer, "_sklearn_output_config", None):  # it makes a frame
        return transform
    if type(transformer) is StandardScaler:
        mean, scale = (transformer.mean_ if transformer.with_mean else None), transformer.scale_
        return _skip_checks(transformer, lambda data: _standardize(data, mean, scale))
    if type(transformer) is MinMaxScaler and not transformer.clip:
        factor, shift = transformer.scale_, transformer.min_
        return _skip_checks(transformer, lambda data: data * factor + shift)
    return transform


def is_plain_numbers(data: Any, features: int) -> bool:
    """Decide whether data is a float64 array of shape (rows, features), with a row at least."""
    return (
        type(data) is np.ndarray
        and data.dtype == np.float64
        and data.ndim == 2
        and data.shape[1] == features
        and len(data) > 0
    )


def _skip_checks(scaler: Any, scale: Callable[[Any], Any]) -> Callable[[Any], Any]:
    features: int = scaler.n_features_in_
    checked: Callable[[Any], Any] = scaler.transform

    def transform(data: Any) -> Any:
        # A scaler takes NaN.
        return scale(data) if is_plain_numbers(data, features) and not np.isinf(data).any() else checked(data)

    return transform


def _standardize(data: Any, mean: Any, scale: Any) -> Any:
    scaled = data.copy(order="K") if mean is None else data - mean
    if scale is not None:
        scaled /= scale
    return scaled
