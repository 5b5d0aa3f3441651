"""treelite: an ensemble of trees walked in C++, many times quicker for few rows, with the bits of scikit-learn.

What scikit-learn does around the trees is done here as it does it: rows are rounded to float32 before a forest
or gradient boosting compares them, and classes are found from the same sums. In a pipeline, the steps before
the ensemble stay scikit-learn's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
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

from headrace.catalog.contract import Array, Named, Text
from headrace.errors import ModelError
from headrace.wire.message import Instance
from headrace_worker.runtimes import VerifiedVersion
from headrace_worker.runtimes.estimator_tree import split_pipeline
from headrace_worker.runtimes.input_arrays import make_number_stacker, make_stacker, to_float32
from headrace_worker.runtimes.predictions import to_predictions

_FORESTS = (RandomForestClassifier, ExtraTreesClassifier)
_CLASSIFIERS = (*_FORESTS, GradientBoostingClassifier, HistGradientBoostingClassifier)
_REGRESSORS = (
    RandomForestRegressor,
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
)
_HISTOGRAM = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)

#: A thread more would be one that a fork leaves behind.
_THREADS = 1


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """What must be known of an ensemble besides its trees; the first line of what is compiled, as JSON."""

    #: Rows are rounded to float32 first.
    singles: bool
    #: How predictions come of the trees' sums: the mean of probabilities, boosting with a score for each class,
    #: with one score that is the second class above zero, the same at zero too; or numbers.
    kind: Literal["forest", "scores", "score", "score or zero", "numbers"]
    classes: tuple[Any, ...] = ()
    #: What a score is multiplied by before it becomes a probability.
    scale: float = 1.0
    features: int
    #: There are steps before the ensemble.
    steps: bool


class TreeliteRuntime:
    """Runs a compiled ensemble, and the steps before it."""

    libraries: ClassVar[tuple[str, ...]] = ("treelite",)

    def __init__(self, head: _Head, trees: treelite.Model, stack: Callable[[Sequence[Any]], Any]) -> None:
        self._head, self._trees, self._stack = head, trees, stack
        self._classes = np.array(head.classes) if head.classes else None

    @classmethod
    def explain_rejection(cls, estimator: Any, given: Named | Array | Text) -> str:
        """It executes forests and boosted trees of one output, also as the last step of a pipeline."""
        _, last = split_pipeline(estimator)
        if type(last) not in {*_CLASSIFIERS, *_REGRESSORS}:
            return f"it executes ensembles of trees; {type(last).__name__} is none it knows"
        if getattr(last, "n_outputs_", 1) != 1:
            return "it executes ensembles of one output"
        if (categorical := getattr(last, "is_categorical_", None)) is not None and categorical.any():
            # treelite sends categories that were never seen elsewhere than scikit-learn does.
            return "it does not execute histogram gradient boosting with categorical features"
        if last is estimator and make_number_stacker(given) is None:
            return "it takes numbers only; encode texts in a pipeline before the trees"
        return ""

    @classmethod
    def compile(cls, estimator: Any, given: Named | Array | Text) -> bytes:  # noqa: ARG003  # a runtime's signature
        """The trees as treelite stores them, after a line that says what to do with them."""
        _, last = split_pipeline(estimator)
        head = _Head(
            singles=not isinstance(last, _HISTOGRAM),
            kind=_kind(last),
            classes=tuple(last.classes_.tolist()) if isinstance(last, _CLASSIFIERS) else (),
            scale=2.0 if getattr(last, "loss", "") == "exponential" else 1.0,
            features=last.n_features_in_,
            steps=last is not estimator,
        )
        if not isinstance(last, _HISTOGRAM):
            # treelite reads as many trees as the parameter says; early stopping leaves fewer.
            last = copy.copy(last)
            last.n_estimators = len(last.estimators_)
        trees: bytes = treelite.sklearn.import_model(last).serialize_bytes()
        return msgspec.json.encode(head) + b"\n" + trees

    @classmethod
    def load(cls, version: VerifiedVersion) -> Self:
        """The compiled ensemble of a version; the estimator too, where steps come before. Raises ModelError."""
        title, given = version.manifest.title, version.manifest.contract.input
        line, _, trees = version.compiled.partition(b"\n")
        try:
            head = msgspec.json.decode(line, type=_Head)
            model = treelite.Model.deserialize_bytes(trees)
        except (msgspec.DecodeError, treelite.TreeliteError) as error:
            said = " ".join(str(error).split())[:200]
            raise ModelError(f"{title} cannot be loaded by treelite: {said}") from None
        _check_trees(model, head, title)
        if head.steps:
            estimator = version.estimator()
            stack, (before, _) = make_stacker(estimator, given), split_pipeline(estimator)
            return cls(head, model, lambda instances: _dense(before(stack(instances))))
        numbers = make_number_stacker(given)
        if numbers is None:
            raise ModelError(f"{title} cannot be run by treelite: its contract takes more than numbers")
        return cls(head, model, numbers)

    def predict(self, method: str, instances: Sequence[Instance]) -> list[Any]:
        """One prediction for each instance. Raises InvalidInput, and ModelError for a method trees do not have."""
        with np.errstate(all="ignore"):
            taken = self._stack(instances)
            rows = (
                to_float32(taken).astype(np.float64)
                if self._head.singles
                else np.asarray(taken, np.float64, order="C")
            )
            if rows.ndim != 2 or rows.shape[1] != self._head.features:
                raise ModelError(
                    f"the trees take {self._head.features} features, and were given rows of another size"
                )
            return to_predictions(self._run(method, rows), len(instances))

    def _run(self, method: str, rows: Any) -> Any:
        kind = self._head.kind
        match method:
            case "predict" if kind == "numbers":
                return self._sums(rows)[:, 0]
            case "predict" if self._classes is not None:
                return self._classes[self._places(rows)]
            case "predict_proba" if kind != "numbers":
                return self._probabilities(rows)
            case "predict_log_proba" if kind != "numbers":
                return np.log(self._probabilities(rows))
            case "decision_function" if kind in {"scores", "score", "score or zero"}:
                scores = self._sums(rows, raw=True)
                return scores if kind == "scores" else scores[:, 0]
            case _:
                raise ModelError(f"treelite has no {method} for this model")

    def _places(self, rows: Any) -> Any:
        """The place of each row's class among the classes."""
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
                # Not treelite's own, which computes in float32 and does not know every loss.
                second = expit(self._head.scale * self._sums(rows, raw=True)[:, 0])
                return np.column_stack([1 - second, second])

    def _sums(self, rows: Any, *, raw: bool = False) -> Any:
        return treelite.gtil.predict(self._trees, rows, nthread=_THREADS, pred_margin=raw)[:, 0, :]


def _check_trees(model: treelite.Model, head: _Head, title: str) -> None:
    """Refuse trees whose nodes point outside of them, or at features that rows do not have.

    treelite follows them without a look. A child's number is larger than its parent's in all it stores.
    """
    header = model.get_header_accessor()
    good = model.num_feature == head.features
    columns = int(np.prod(np.asarray(header.get_field("leaf_vector_shape"), dtype=int)))
    for number in range(model.num_tree):
        field = model.get_tree_accessor(number).get_field
        left, right, feature = field("cleft"), field("cright"), field("split_index")
        inner = left != -1
        own = np.arange(len(left))[inner]
        good = good and len(left) > 0 and not field("has_categorical_split").any()
        good = good and bool(((feature[inner] >= 0) & (feature[inner] < head.features)).all())
        for child in (left[inner], right[inner]):
            good = good and bool(((child > own) & (child < len(left))).all())
        if columns > 1:
            begin, end = field("leaf_vector_begin")[~inner], field("leaf_vector_end")[~inner]
            good = good and bool((end - begin == columns).all() and (end <= len(field("leaf_vector"))).all())
    if not good:
        raise ModelError(f"{title} holds a tree whose nodes point outside of it; the file is damaged or forged")


def _kind(last: Any) -> Any:
    if isinstance(last, _FORESTS):
        return "forest"
    if not isinstance(last, _CLASSIFIERS):
        return "numbers"
    if len(last.classes_) > 2:
        return "scores"
    return "score" if isinstance(last, _HISTOGRAM) else "score or zero"


def _dense(taken: Any) -> Any:
    return taken.toarray() if sparse.issparse(taken) else taken
