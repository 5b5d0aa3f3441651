"""The runtime for treelite: it walks an ensemble's trees in C++, many times faster for few rows.

The results are equal to scikit-learn's to the bit, because everything around the trees is done in the same way:
rows are rounded to float32 before a forest or gradient boosting compares them, and classes are derived from the
same sums. In a pipeline, the steps before the ensemble are run by scikit-learn.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import msgspec
import numpy as np
import treelite
from scipy import sparse
from scipy.special import expit, softmax
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

from headrace.errors import ModelError
from headrace.wire.message import Instance
from headrace.wire.stored import DECODE_ERRORS
from headrace_worker.boosters import BoosterModel
from headrace_worker.runtimes import InputSchema, VerifiedVersion
from headrace_worker.runtimes.estimator_tree import split_pipeline
from headrace_worker.runtimes.input_arrays import describe_input, make_number_stacker, make_stacker, to_float32
from headrace_worker.runtimes.predictions import to_predictions

_FORESTS = (RandomForestClassifier, ExtraTreesClassifier)
_CLASSIFIERS = (*_FORESTS, GradientBoostingClassifier, HistGradientBoostingClassifier)
_REGRESSORS = (
    RandomForestRegressor,
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
)
_HISTOGRAM_BOOSTING = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)

#: Threads to predict with. Further threads would not survive a fork.
_THREADS = 1


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """The facts about an ensemble that its trees do not contain. Stored as JSON in the first compiled line."""

    #: Whether rows are rounded to float32 first.
    float32: bool
    #: The meaning of the trees' sums: the mean of probabilities ("forest"), a score for each class ("scores"), one
    #: score that means the second class if above zero ("score") or if not below it ("score or zero"), or the
    #: predicted numbers.
    kind: Literal["forest", "scores", "score", "score or zero", "numbers"]
    classes: tuple[Any, ...] = ()
    #: The factor of a score before it is converted to a probability.
    scale: float = 1.0
    #: The number of features.
    features: int
    #: Whether a pipeline has steps before the ensemble.
    steps: bool


class TreeliteRuntime:
    """A runtime around a compiled ensemble, and the pipeline steps before it."""

    libraries: ClassVar[tuple[str, ...]] = ("treelite",)

    def __init__(
        self, head: _Head, trees: treelite.Model, input_schema: InputSchema, estimator: Any = None
    ) -> None:
        # `estimator` is a pipeline that ends in the trees. It is not kept: its own trees take much memory.
        self._head, self._trees, self._input_schema = head, trees, input_schema
        self._transform, _ = split_pipeline(estimator)
        self._estimator_input = None if estimator is None else describe_input(estimator)
        stack = make_number_stacker(input_schema) if estimator is None else make_stacker(estimator, input_schema)
        self._stack: Callable[[Sequence[Any]], Any] = stack or list
        self._classes = np.array(head.classes) if head.classes else None

    @classmethod
    def explain_rejection(cls, estimator: Any, input_schema: InputSchema) -> str:
        """Return the reason unless it is a forest, or boosted trees, of one output; a pipeline may end in one."""
        if isinstance(estimator, BoosterModel):
            return "a booster is executed by its own library"
        _, last = split_pipeline(estimator)
        if type(last) not in {*_CLASSIFIERS, *_REGRESSORS}:
            return f"it executes ensembles of trees, and does not support {type(last).__name__}"
        if getattr(last, "n_outputs_", 1) != 1:
            return "it executes ensembles of one output"
        if (categorical := getattr(last, "is_categorical_", None)) is not None and categorical.any():
            # For an unseen category treelite takes another branch than scikit-learn.
            return "it does not execute histogram gradient boosting with categorical features"
        if last is estimator and make_number_stacker(input_schema) is None:
            return "it takes numbers only; encode texts in a pipeline before the trees"
        return ""

    @classmethod
    def compile(cls, estimator: Any, input_schema: InputSchema) -> bytes:  # noqa: ARG003  # see Runtime
        """Return a line with the facts about the ensemble, followed by its trees in treelite's format."""
        _, last = split_pipeline(estimator)
        head = _Head(
            float32=not isinstance(last, _HISTOGRAM_BOOSTING),
            kind=_kind(last),
            classes=tuple(last.classes_.tolist()) if isinstance(last, _CLASSIFIERS) else (),
            scale=2.0 if getattr(last, "loss", "") == "exponential" else 1.0,
            features=last.n_features_in_,
            steps=last is not estimator,
        )
        if not isinstance(last, _HISTOGRAM_BOOSTING):
            # treelite reads the number of trees from the parameter, but early stopping leaves fewer.
            last = copy.copy(last)
            last.n_estimators = len(last.estimators_)
        trees: bytes = treelite.sklearn.import_model(last).serialize_bytes()
        return msgspec.json.encode(head) + b"\n" + trees

    @classmethod
    def load(cls, version: VerifiedVersion) -> Self:
        """Load the compiled ensemble of a version, and its estimator if a pipeline has steps before it.

        Raises ModelError.
        """
        title, input_schema = version.manifest.title, version.manifest.contract.input
        line, _, trees = version.compiled.partition(b"\n")
        try:
            head = msgspec.json.decode(line, type=_Head)
            model = treelite.Model.deserialize_bytes(trees)
        except (*DECODE_ERRORS, treelite.TreeliteError) as error:
            message = " ".join(str(error).split())[:200]
            raise ModelError(f"{title} cannot be loaded by treelite: {message}") from None
        _check_trees(model, head, title)
        if head.steps:
            return cls(head, model, input_schema, version.estimator())
        if make_number_stacker(input_schema) is None:
            raise ModelError(f"{title} cannot be run by treelite: its contract has values that are not numbers")
        return cls(head, model, input_schema)

    def predict(self, method: str, instances: Sequence[Instance]) -> list[Any]:
        """Return a prediction for each instance. Raises InvalidInput, and ModelError for an unsupported method."""
        with np.errstate(all="ignore"):
            return to_predictions(self._predict(method, self._stack(instances)), len(instances))

    def predict_table(self, method: str, batch: Any) -> Any:
        """Return an array of predictions for checked columns; None if a step before the trees takes instances."""
        from headrace_worker.runtimes.prediction_column import to_prediction_column

        if self._stack_table is None:
            return None
        with np.errstate(all="ignore"):
            return to_prediction_column(self._predict(method, self._stack_table(batch)), batch.num_rows)

    @cached_property
    def _stack_table(self) -> Callable[[Any], Any] | None:
        # Only those who predict tables have pyarrow.
        from headrace_worker.runtimes.table_input import make_number_table_stacker, make_table_stacker

        if self._estimator_input is None:
            return make_number_table_stacker(self._input_schema)
        return make_table_stacker(self._estimator_input, self._input_schema)

    def _predict(self, method: str, data: Any) -> Any:
        """Predict from what the estimator takes, or from numbers. Raises InvalidInput and ModelError."""
        data = _to_dense(self._transform(data))
        rows = (
            to_float32(data).astype(np.float64) if self._head.float32 else np.asarray(data, np.float64, order="C")
        )
        if rows.ndim != 2 or rows.shape[1] != self._head.features:
            raise ModelError(f"the trees take {self._head.features} features, and the rows have another number")
        return self._run(method, rows)

    def _run(self, method: str, rows: Any) -> Any:
        kind = self._head.kind
        match method:
            case "predict" if kind == "numbers":
                return self._sums(rows)[:, 0]
            case "predict" if self._classes is not None:
                return self._classes[self._class_indexes(rows)]
            case "predict_proba" if kind != "numbers":
                return self._probabilities(rows)
            case "predict_log_proba" if kind != "numbers":
                return np.log(self._probabilities(rows))
            case "decision_function" if kind in {"scores", "score", "score or zero"}:
                scores = self._sums(rows, raw=True)
                return scores if kind == "scores" else scores[:, 0]
            case _:
                raise ModelError(f"treelite has no {method} for this model")

    def _class_indexes(self, rows: Any) -> Any:
        """Return the index of each row's predicted class."""
        match self._head.kind:
            case "forest":
                return np.argmax(self._sums(rows), axis=1)
            case "scores":
                return np.argmax(self._sums(rows, raw=True), axis=1)
            case "score":
                return (self._sums(rows, raw=True)[:, 0] > 0).astype(int)
            case _:
                return (self._sums(rows, raw=True)[:, 0] >= 0).astype(int)

    def _probabilities(self, rows: Any) -> Any:
        match self._head.kind:
            case "forest":
                return self._sums(rows)
            case "scores":
                return softmax(self._sums(rows, raw=True), axis=1)
            case _:
                # treelite's own conversion computes in float32 and does not support every loss.
                second_class = expit(self._head.scale * self._sums(rows, raw=True)[:, 0])
                return np.column_stack([1 - second_class, second_class])

    def _sums(self, rows: Any, *, raw: bool = False) -> Any:
        return treelite.gtil.predict(self._trees, rows, nthread=_THREADS, pred_margin=raw)[:, 0, :]


def _check_trees(model: treelite.Model, head: _Head, title: str) -> None:
    """Raise ModelError for trees whose nodes point outside of them, or at features that rows do not have.

    treelite does not check them. A child's number must be larger than its parent's, as in all trees treelite
    stores.
    """
    header = model.get_header_accessor()
    is_valid = model.num_feature == head.features
    columns = int(np.prod(np.asarray(header.get_field("leaf_vector_shape"), dtype=int)))
    for number in range(model.num_tree):
        field = model.get_tree_accessor(number).get_field
        left, right, feature = field("cleft"), field("cright"), field("split_index")
        inner = left != -1
        parents = np.arange(len(left))[inner]
        is_valid = is_valid and len(left) > 0 and not field("has_categorical_split").any()
        is_valid = is_valid and bool(((feature[inner] >= 0) & (feature[inner] < head.features)).all())
        for child in (left[inner], right[inner]):
            is_valid = is_valid and bool(((child > parents) & (child < len(left))).all())
        if columns > 1:
            begin, end = field("leaf_vector_begin")[~inner], field("leaf_vector_end")[~inner]
            is_valid = is_valid and bool(
                (end - begin == columns).all() and (end <= len(field("leaf_vector"))).all()
            )
    if not is_valid:
        raise ModelError(f"{title} holds a tree whose nodes point outside of it; the file is damaged or forged")


def _kind(last: Any) -> Any:
    if isinstance(last, _FORESTS):
        return "forest"
    if not isinstance(last, _CLASSIFIERS):
        return "numbers"
    if len(last.classes_) > 2:
        return "scores"
    return "score" if isinstance(last, _HISTOGRAM_BOOSTING) else "score or zero"


def _to_dense(data: Any) -> Any:
    return data.toarray() if sparse.issparse(data) else data
