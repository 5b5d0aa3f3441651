"""Check the arrays of a loaded estimator that native code of scikit-learn and scipy indexes without a check.

An index that points outside of an array ends the process, or reads what is beside it. So an estimator from a file
that nobody trusts is searched for these arrays. Every check computes with numpy on values in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from scipy import sparse
from scipy.interpolate import BSpline
from sklearn.ensemble import BaseEnsemble
from sklearn.ensemble._forest import BaseForest
from sklearn.ensemble._gb import BaseGradientBoosting
from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.neighbors import BallTree, KDTree
from sklearn.neighbors._ball_tree import BallTree32
from sklearn.neighbors._base import NeighborsBase
from sklearn.neighbors._kd_tree import KDTree32
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm._base import BaseLibSVM, BaseSVC
from sklearn.tree import BaseDecisionTree
from sklearn.tree._tree import Tree

from headrace.errors import ModelError

#: Words of 32 bits in a set of categories.
_BITSET_WORDS = 8


def check_native_arrays(estimator: Any, title: str) -> None:
    """Raise ModelError if an array within the estimator points outside of another one."""
    objects = list(_iter_objects(estimator))
    for kinds, is_valid, defect in _CHECKS:
        for value in objects:
            if isinstance(value, kinds):
                _require(is_valid, value, title, defect)


def _require(is_valid: Callable[[Any], bool], value: Any, title: str, defect: str) -> None:
    try:
        passes = bool(is_valid(value))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError):
        passes = False  # an attribute is missing, or has another type or shape than every fitted one
    if not passes:
        raise ModelError(f"{title} holds {defect}; the file is damaged or forged")


def _iter_objects(root: Any) -> Iterator[Any]:
    """Yield every object that the root refers to, once."""
    visited: set[int] = set()
    pending = [root]
    while pending:
        value = pending.pop()
        if id(value) in visited or isinstance(value, str | bytes | int | float | type | None):
            continue
        visited.add(id(value))
        if isinstance(value, Mapping):
            pending.extend(value.keys())
            pending.extend(value.values())
        elif isinstance(value, list | tuple | set) or (isinstance(value, np.ndarray) and value.dtype == object):
            pending.extend(value.ravel() if isinstance(value, np.ndarray) else value)
        elif not isinstance(value, np.ndarray):
            yield value
            pending.extend(getattr(value, "__dict__", {}).values())


def _is_within(numbers: Any, size: int) -> bool:
    numbers = np.asarray(numbers)
    return not numbers.size or bool((numbers >= 0).all() and (numbers < size).all())


def _has_valid_nodes(tree: Tree) -> bool:
    """Check that children lie in the tree, and behind their parent, as in every tree that grew: so a walk ends."""
    left, right = tree.children_left, tree.children_right
    inner = left != -1
    return (
        bool((right[~inner] == -1).all())
        and _has_later_children(inner, left, right)
        and _is_within(tree.feature[inner], tree.n_features)
    )


def _has_later_children(inner: Any, left: Any, right: Any) -> bool:
    parents = np.arange(len(left))[inner]
    return bool(len(left)) and all(
        bool(((child[inner] > parents) & (child[inner] < len(left))).all()) for child in (left, right)
    )


def _has_trees_of_its_features(tree: BaseDecisionTree) -> bool:
    return not hasattr(tree, "tree_") or bool(_used_features(tree) < tree.n_features_in_)


def _used_features(tree: BaseDecisionTree) -> int:
    """Return the highest number of a feature that a fitted tree compares; -1 for a template or a single leaf."""
    nodes = getattr(tree, "tree_", None)
    return -1 if nodes is None else int(max(nodes.feature.max(initial=-1), -1))


def _has_members_of_its_features(ensemble: BaseEnsemble) -> bool:
    """Check the trees of an ensemble, which runs them without their own check of the number of features."""
    members = getattr(ensemble, "estimators_", None)
    if members is None:
        return True
    trees = list(np.asarray(members, dtype=object).ravel())
    subsets = getattr(ensemble, "estimators_features_", None) or [range(ensemble.n_features_in_)] * len(trees)
    return len(subsets) == len(trees) and all(
        _used_features(tree) < min(len(subset), ensemble.n_features_in_)
        for tree, subset in zip(trees, subsets, strict=True)
        if isinstance(tree, BaseDecisionTree)
    )


def _has_stages_of_its_classes(model: BaseGradientBoosting) -> bool:
    """Check that each stage has a tree for each column that the first prediction has."""
    if getattr(model, "estimators_", None) is None:
        return True
    if model.estimators_.ndim != 2 or not all(
        isinstance(tree, BaseDecisionTree) for tree in model.estimators_.flat
    ):
        return False
    start = model._raw_predict_init(  # noqa: SLF001  # the array that the stages are added to
        np.zeros((1, model.n_features_in_), dtype=np.float32)
    )
    return bool(start.shape == (1, model.estimators_.shape[1]))


def _has_valid_predictors(model: BaseHistGradientBoosting) -> bool:
    predictors = getattr(model, "_predictors", None)
    if predictors is None:
        return True
    mapper = vars(model)["_bin_mapper"]
    is_categorical = np.asarray(mapper.is_categorical_).astype(bool)
    return (
        is_categorical.shape == (model.n_features_in_,)
        and len(mapper.bin_thresholds_) == model.n_features_in_
        and all(_has_valid_predictor(tree, is_categorical) for row in predictors for tree in row)
    )


def _has_valid_predictor(tree: TreePredictor, is_categorical: Any) -> bool:
    nodes = tree.nodes
    left, right, feature = (nodes[name].astype(np.int64) for name in ("left", "right", "feature_idx"))
    inner = nodes["is_leaf"] == 0
    chosen = inner & (nodes["is_categorical"] != 0)
    bitsets = tree.raw_left_cat_bitsets
    return (
        _has_later_children(inner, left, right)
        and _is_within(feature[inner], len(is_categorical))
        and bool(is_categorical[feature[chosen]].all())
        and _is_within(nodes["bitset_idx"][chosen].astype(np.int64), len(bitsets))
        and bitsets.ndim == 2
        and (bitsets.shape[1] == _BITSET_WORDS)
    )


def _has_valid_tree_of_points(tree: Any) -> bool:
    """Check a KD tree or a ball tree: a complete binary tree in arrays, whose nodes are ranges of its points."""
    points, order, nodes, bounds, _, levels, count, *_, metric, weights = tree.__getstate__()
    rows, width = points.shape
    starts, ends = nodes["idx_start"], nodes["idx_end"]
    childless = np.arange(len(nodes)) * 2 + 2 >= count
    return (
        count == len(nodes) == 2 ** int(levels) - 1
        and bounds.shape == (2 if isinstance(tree, KDTree | KDTree32) else 1, count, width)
        and order.shape == (rows,)
        and _is_within(order, rows)
        and bool(((starts >= 0) & (starts <= ends) & (ends <= rows)).all())
        and bool((nodes["is_leaf"][childless] != 0).all())
        and (weights is None or len(weights) == rows)
        and _has_valid_metric(metric, width)
    )


def _has_valid_metric(metric: Any, width: int) -> bool:
    """Check that the weights and the matrix of a metric have the size of a point."""
    _, vector, matrix = metric.__getstate__()
    name = type(metric).__name__.rstrip("0123456789")
    return (
        (name != "SEuclideanDistance" or vector.shape == (width,))
        and (name != "MinkowskiDistance" or vector.shape in {(0,), (width,)})
        and (name != "MahalanobisDistance" or matrix.shape == (width, width))
        and (name != "HaversineDistance" or width == 2)
    )


def _has_valid_neighbours(model: NeighborsBase) -> bool:
    """Check the fitted rows, and the classes of each, which are counted without a check."""
    rows = getattr(model, "_fit_X", None)
    if rows is None:
        return True
    tree, targets, classes = (
        getattr(model, "_tree", None),
        getattr(model, "_y", None),
        getattr(model, "classes_", None),
    )
    if rows.ndim != 2 or rows.shape[1] != model.n_features_in_:
        return False
    if tree is not None and np.asarray(tree.data).shape != rows.shape:
        return False
    if targets is None:
        return True
    if len(targets) != len(rows) if not sparse.issparse(rows) else len(targets) != rows.shape[0]:
        return False
    if classes is None:
        return True
    if isinstance(classes, list):
        return targets.shape == (rows.shape[0], len(classes)) and all(
            _is_within(targets[:, number], len(labels)) for number, labels in enumerate(classes)
        )
    return _is_within(targets, len(classes))


def _has_valid_support(model: BaseLibSVM) -> bool:
    """Check the vectors of a support vector machine, which libsvm counts by class."""
    if getattr(model, "support_", None) is None:
        return True
    fitted = vars(model)
    counts, vectors, duals = np.asarray(fitted["_n_support"]), model.support_vectors_, fitted["_dual_coef_"]
    support = np.asarray(model.support_)
    is_classifier = isinstance(model, BaseSVC)
    classes, pairs = len(counts), len(counts) * (len(counts) - 1) // 2
    is_precomputed = model.kernel == "precomputed" or callable(model.kernel)
    return (
        classes >= 2
        and bool((counts >= 0).all())
        and (int(counts.sum()) if is_classifier else int(counts[0])) == len(support)
        and (not is_classifier or len(model.classes_) == classes)
        and (vectors.shape in {(0, 0), (0,)} if is_precomputed and not sparse.issparse(vectors) else True)
        and (is_precomputed or vectors.shape == (len(support), model.n_features_in_))
        and duals.shape == (classes - 1 if is_classifier else 1, len(support))
        and np.shape(fitted["_intercept_"]) == (pairs if is_classifier else 1,)
        and all(np.shape(values) in {(0,), (pairs,)} for values in (fitted["_probA"], fitted["_probB"]))
        and _is_within(support, model.shape_fit_[0])
        and (not is_precomputed or model.shape_fit_[0] == model.shape_fit_[-1] or callable(model.kernel))
    )


def _has_valid_spline(spline: BSpline) -> bool:
    knots, degree = spline.t, spline.k
    count = len(knots) - degree - 1
    return (
        knots.ndim == 1
        and degree >= 0
        and count > degree
        and len(spline.c) >= count
        and bool((np.diff(knots) >= 0).all())
    )


def _has_valid_indices(matrix: Any) -> bool:
    if not sparse.issparse(matrix):
        return True
    if matrix.format in {"csr", "csc", "bsr"}:
        matrix.check_format(full_check=True)
    elif matrix.format == "coo":
        return all(_is_within(axis, size) for axis, size in zip(matrix.coords, matrix.shape, strict=True))
    return True


def _has_valid_vocabulary(model: Any) -> bool:
    vocabulary = getattr(model, "__dict__", {}).get("vocabulary_")
    if not isinstance(vocabulary, dict):
        return vocabulary is None
    return _is_within(np.array(list(vocabulary.values()), dtype=np.int64), len(vocabulary))


def _has_valid_codes(encoder: OneHotEncoder) -> bool:
    """Check that each category of an encoder has a column of its output."""
    if getattr(encoder, "categories_", None) is None:
        return True
    expected = encoder._compute_n_features_outs()  # noqa: SLF001  # from the categories
    mappings = getattr(encoder, "_default_to_infrequent_mappings", None) or []
    return expected == list(vars(encoder)["_n_features_outs"]) and all(
        mapping is None or (len(mapping) == len(categories) and _is_within(mapping, len(categories)))
        for mapping, categories in zip(mappings, encoder.categories_, strict=False)
    )


def _has_centres_of_its_features(model: Any) -> bool:
    centres = getattr(model, "__dict__", {}).get("cluster_centers_")
    return centres is None or (centres.ndim == 2 and centres.shape[1] == model.n_features_in_)


#: Types, the check of an object of them, and what it holds if it does not pass. An earlier check covers what a
#: later one reads.
_CHECKS: tuple[tuple[Any, Callable[[Any], bool], str], ...] = (
    (Tree, _has_valid_nodes, "a tree whose nodes point outside of it"),
    (BaseDecisionTree, _has_trees_of_its_features, "a tree of more features than it takes"),
    (BaseHistGradientBoosting, _has_valid_predictors, "a tree whose nodes point outside of it"),
    (
        (KDTree, KDTree32, BallTree, BallTree32),
        _has_valid_tree_of_points,
        "a tree of points whose nodes point outside of it",
    ),
    (NeighborsBase, _has_valid_neighbours, "neighbours of another shape than its instances"),
    (BaseLibSVM, _has_valid_support, "support vectors that do not belong together"),
    (BSpline, _has_valid_spline, "a spline whose knots and coefficients do not belong together"),
    (object, _has_valid_vocabulary, "a vocabulary whose words have no column"),
    (OneHotEncoder, _has_valid_codes, "categories that have no column"),
    (object, _has_centres_of_its_features, "cluster centres of another shape than its instances"),
    (BaseEnsemble, _has_members_of_its_features, "trees of more features than it takes"),
    (BaseForest, _has_members_of_its_features, "trees of more features than it takes"),
    (BaseGradientBoosting, _has_stages_of_its_classes, "trees for other classes than its own"),
    (object, _has_valid_indices, "a sparse matrix whose indices point outside of it"),
)
