"""The runtime for scikit-learn: it calls the methods of a fitted estimator, or of a booster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction import DictVectorizer
from sklearn.preprocessing import FunctionTransformer

from headrace.catalog.contract import Named
from headrace.errors import ModelError
from headrace.wire.message import Instance
from headrace_worker.boosters import BoosterModel
from headrace_worker.runtimes import InputSchema, VerifiedVersion
from headrace_worker.runtimes.estimator_tree import is_prediction_method, iter_estimators
from headrace_worker.runtimes.forest import build_forest_methods
from headrace_worker.runtimes.input_arrays import describe_input, has_plain_numbers, make_stacker
from headrace_worker.runtimes.linear import build_linear_methods
from headrace_worker.runtimes.predictions import to_predictions


class SklearnRuntime:
    """A runtime around a fitted estimator.

    With `own`, the runtime may change the estimator and replace calls by faster ones with equal results. If an
    array can take the place of a frame, it removes the names of the estimator's features, so scikit-learn does
    not compare them in each call (measured with 30 features: 0.2 ms for one row instead of 0.9). A forest's
    trees are called directly, and plain numbers reach a linear model unchecked. `arguments` are constant arguments
    of calls, by method.
    """

    libraries: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        estimator: Any,
        input_schema: InputSchema,
        *,
        own: bool = False,
        arguments: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ) -> None:
        self._estimator, self._input_schema, self._arguments = estimator, input_schema, arguments
        if own and isinstance(input_schema, Named) and _accepts_array(estimator, input_schema):
            _remove_feature_names(estimator)
        self._stack = make_stacker(estimator, input_schema)
        self._fast_methods: dict[str, Callable[[Any], Any]] = {}
        if own:
            self._fast_methods = build_forest_methods(estimator) or build_linear_methods(estimator)

    @classmethod
    def explain_rejection(cls, estimator: Any, input_schema: InputSchema) -> str:  # noqa: ARG003  # see Runtime
        """Return the reason if there is no estimator; it executes every estimator."""
        return "" if estimator is not None else "it executes scikit-learn estimators"

    @classmethod
    def compile(cls, estimator: Any, input_schema: InputSchema) -> bytes:  # noqa: ARG003  # see Runtime
        """Return no bytes: it executes the artifact itself."""
        return b""

    @classmethod
    def load(cls, version: VerifiedVersion) -> Self:
        """Load the estimator of a version. Raises ModelError."""
        contract = version.manifest.contract
        for method in contract.methods:
            if not is_prediction_method(method):
                raise ModelError(
                    f"{version.manifest.title} names the method {method[:64]!r}, which predicts nothing"
                )
        arguments = {contract.method: version.manifest.arguments}
        return cls(version.estimator(), contract.input, own=True, arguments=arguments)

    def predict(self, method: str, instances: Sequence[Instance]) -> list[Any]:
        """Return a prediction for each instance. Raises the estimator's errors, and ModelError for a bad shape."""
        return to_predictions(self._run(method, self._stack(instances)), len(instances))

    def predict_table(self, method: str, batch: Any) -> Any:
        """Return an array of predictions for checked columns; None if the estimator takes instances only."""
        from headrace_worker.runtimes.prediction_column import to_prediction_column

        if self._stack_table is None:
            return None
        with np.errstate(all="ignore"):
            data = self._stack_table(batch)
        return to_prediction_column(self._run(method, data), batch.num_rows)

    @cached_property
    def _stack_table(self) -> Callable[[Any], Any] | None:
        # Only those who predict tables have pyarrow.
        from headrace_worker.runtimes.table_input import make_table_stacker

        return make_table_stacker(describe_input(self._estimator), self._input_schema)

    def _run(self, method: str, data: Any) -> Any:
        # Extreme input may overflow. The result is null, and no warning is logged for each batch.
        with np.errstate(all="ignore"):
            if arguments := self._arguments.get(method):
                return getattr(self._estimator, method)(data, **arguments)
            return (self._fast_methods.get(method) or getattr(self._estimator, method))(data)


def _accepts_array(estimator: Any, input_schema: Named) -> bool:
    """Decide whether predictions from an array are certain to equal those from a frame.

    They do if all features are numbers, and each inner estimator is scikit-learn's own and selects columns by
    position: such an estimator first converts a frame to an array.
    """
    if not has_plain_numbers(input_schema):
        return False
    if isinstance(estimator, BoosterModel):
        return estimator.takes_arrays and estimator.n_features_in_ == len(input_schema.features)
    if not hasattr(estimator, "n_features_in_") or estimator.n_features_in_ != len(input_schema.features):
        return False
    return all(
        type(inner).__module__.startswith("sklearn.")
        and not isinstance(inner, ColumnTransformer | FunctionTransformer | DictVectorizer)
        and not vars(inner).get("_sklearn_output_config")
        for inner in iter_estimators(estimator)
    )


def _remove_feature_names(estimator: Any) -> None:
    for inner in (estimator, *iter_estimators(estimator)):
        vars(inner).pop("feature_names_in_", None)
