"""Types that a skops file may hold in addition to those skops trusts by default: internals of scikit-learn.

The list is curated by hand, a family of estimators at a time, and never extended because a file needs a type. Each
type only holds numbers or computes with them. skops does not trust trees because their nodes may point anywhere;
`headrace_worker.store.native_arrays` checks the nodes, and every other array that native code indexes.
"""

from __future__ import annotations


def _qualified(module: str, names: str) -> tuple[str, ...]:
    return tuple(f"{module}.{name}" for name in names.split())


_TREES = (
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    # Histogram gradient boosting on a frame with categories. A partial may only call a trusted function.
    "functools.partial",
    "sklearn.utils.validation.check_array",
)

# Without PyFuncDistance, which calls any function it holds.
_NEIGHBOURS = (
    *_qualified("sklearn.neighbors._kd_tree", "KDTree KDTree32 KDTree64"),
    *_qualified("sklearn.neighbors._ball_tree", "BallTree BallTree32 BallTree64"),
    *(
        f"sklearn.metrics._dist_metrics.{name}{bits}"
        for bits in (32, 64)
        for name in (
            *("BrayCurtisDistance", "CanberraDistance", "ChebyshevDistance", "DiceDistance"),
            *("EuclideanDistance", "HammingDistance", "HaversineDistance", "JaccardDistance"),
            *("MahalanobisDistance", "ManhattanDistance", "MatchingDistance", "MinkowskiDistance"),
            *("RogersTanimotoDistance", "RussellRaoDistance", "SEuclideanDistance"),
            *("SokalMichenerDistance", "SokalSneathDistance"),
        )
    ),
)

_GAUSSIAN_PROCESSES = (
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    *_qualified(
        "sklearn.gaussian_process.kernels",
        "CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation Matern PairwiseKernel Product RBF "
        "RationalQuadratic Sum WhiteKernel",
    ),
)

_LINEAR = (
    *_qualified("sklearn._loss.loss", "HalfTweedieLoss HalfTweedieLossIdentity"),
    *_qualified(
        "sklearn.linear_model._sgd_fast",
        "EpsilonInsensitive Hinge ModifiedHuber SquaredEpsilonInsensitive SquaredHinge",
    ),
)

_META = (
    *_qualified("sklearn.calibration", "_CalibratedClassifier _SigmoidCalibration _TemperatureScaling"),
    *_qualified("sklearn.cluster._bisect_k_means", "_BisectingTree"),
    *_qualified("sklearn.cluster._kmeans", "_kmeans_single_elkan _kmeans_single_lloyd"),
    *_qualified("sklearn.compose._column_transformer", "_RemainderColsList make_column_selector"),
    *_qualified("sklearn.multiclass", "_ConstantPredictor"),
    *_qualified("sklearn.neural_network._stochastic_optimizers", "AdamOptimizer SGDOptimizer"),
    *_qualified("sklearn.utils._bunch", "Bunch"),
)

# Attributes of a fitted search, such as its scorer and its splits.
_SEARCH = (
    *_qualified("sklearn.metrics._scorer", "_CurveScorer _MultimetricScorer _PassthroughScorer _Scorer"),
    # What a meta-estimator passes on to its parts: names and true or false.
    *_qualified("sklearn.utils._metadata_requests", "MetadataRequest MethodMetadataRequest"),
    *_qualified("sklearn.model_selection._search_successive_halving", "HalvingGridSearchCV HalvingRandomSearchCV"),
    *_qualified(
        "sklearn.model_selection._split",
        "GroupKFold KFold RepeatedKFold RepeatedStratifiedKFold ShuffleSplit StratifiedGroupKFold StratifiedKFold "
        "StratifiedShuffleSplit TimeSeriesSplit",
    ),
    *_qualified(
        "sklearn.metrics._classification",
        "accuracy_score balanced_accuracy_score brier_score_loss f1_score fbeta_score jaccard_score log_loss "
        "matthews_corrcoef precision_score recall_score",
    ),
    *_qualified("sklearn.metrics._ranking", "average_precision_score roc_auc_score top_k_accuracy_score"),
    *_qualified(
        "sklearn.metrics._regression",
        "explained_variance_score max_error mean_absolute_error mean_absolute_percentage_error mean_squared_error "
        "mean_squared_log_error median_absolute_error r2_score root_mean_squared_error "
        "root_mean_squared_log_error",
    ),
)

_FEATURE_SELECTION = (
    *_qualified(
        "sklearn.feature_selection._univariate_selection", "chi2 f_classif f_oneway f_regression r_regression"
    ),
    *_qualified("sklearn.feature_selection._mutual_info", "mutual_info_classif mutual_info_regression"),
)

# Functions for FunctionTransformer. skops trusts ufuncs such as numpy.log1p by default.
_FUNCTIONS = _qualified(
    "numpy",
    "around asarray clip cumsum diff dtype expand_dims fliplr flipud max mean median min nan_to_num ravel reshape "
    "round squeeze std sum swapaxes transpose",
)

_NUMERIC = (
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
    "scipy.interpolate._bsplines.BSpline",
    "scipy.interpolate._interpolate.interp1d",
    *(
        f"scipy.sparse._{kind}.{kind}_{form}"
        for kind in ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
        for form in ("array", "matrix")
    ),
)

#: Qualified names of types and functions, as skops writes them.
TRUSTED: tuple[str, ...] = (
    *_TREES,
    *_NEIGHBOURS,
    *_GAUSSIAN_PROCESSES,
    *_LINEAR,
    *_META,
    *_SEARCH,
    *_FEATURE_SELECTION,
    *_FUNCTIONS,
    *_NUMERIC,
)
