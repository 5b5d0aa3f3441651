"""Types an artifact may hold besides those skops trusts by itself: the insides of scikit-learn's estimators.

Curated by hand, a family at a time. Nothing gets here because a file asks for it: what is on this list does no
more than hold numbers, or compute with them. skops leaves trees out since their nodes may point anywhere;
`headrace_worker.store.artifact` looks at the nodes itself.
"""

from __future__ import annotations


def _of(module: str, names: str) -> tuple[str, ...]:
    return tuple(f"{module}.{name}" for name in names.split())


_TREES = (
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    # Histogram gradient boosting on a frame with categories; a partial calls nothing but what is trusted too.
    "functools.partial",
    "sklearn.utils.validation.check_array",
)

# Not PyFuncDistance: it calls what it holds.
_NEIGHBOURS = (
    *_of("sklearn.neighbors._kd_tree", "KDTree KDTree32 KDTree64"),
    *_of("sklearn.neighbors._ball_tree", "BallTree BallTree32 BallTree64"),
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
    *_of(
        "sklearn.gaussian_process.kernels",
        "CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation Matern PairwiseKernel Product RBF "
        "RationalQuadratic Sum WhiteKernel",
    ),
)

_LINEAR = (
    *_of("sklearn._loss.loss", "HalfTweedieLoss HalfTweedieLossIdentity"),
    *_of(
        "sklearn.linear_model._sgd_fast",
        "EpsilonInsensitive Hinge ModifiedHuber SquaredEpsilonInsensitive SquaredHinge",
    ),
)

_META = (
    *_of("sklearn.calibration", "_CalibratedClassifier _SigmoidCalibration"),
    *_of("sklearn.cluster._bisect_k_means", "_BisectingTree"),
    *_of("sklearn.cluster._kmeans", "_kmeans_single_elkan _kmeans_single_lloyd"),
    *_of("sklearn.compose._column_transformer", "_RemainderColsList make_column_selector"),
    *_of("sklearn.multiclass", "_ConstantPredictor"),
    *_of("sklearn.neural_network._stochastic_optimizers", "AdamOptimizer SGDOptimizer"),
    *_of("sklearn.utils._bunch", "Bunch"),
)

# What a search keeps of how it searched.
_SEARCH = (
    *_of("sklearn.metrics._scorer", "_MultimetricScorer _PassthroughScorer _Scorer"),
    *_of("sklearn.model_selection._search_successive_halving", "HalvingGridSearchCV HalvingRandomSearchCV"),
    *_of(
        "sklearn.model_selection._split",
        "GroupKFold KFold RepeatedKFold RepeatedStratifiedKFold ShuffleSplit StratifiedGroupKFold StratifiedKFold "
        "StratifiedShuffleSplit TimeSeriesSplit",
    ),
    *_of(
        "sklearn.metrics._classification",
        "accuracy_score balanced_accuracy_score brier_score_loss f1_score jaccard_score log_loss "
        "matthews_corrcoef precision_score recall_score",
    ),
    *_of("sklearn.metrics._ranking", "average_precision_score roc_auc_score top_k_accuracy_score"),
    *_of(
        "sklearn.metrics._regression",
        "explained_variance_score max_error mean_absolute_error mean_absolute_percentage_error mean_squared_error "
        "mean_squared_log_error median_absolute_error r2_score root_mean_squared_error "
        "root_mean_squared_log_error",
    ),
)

_FEATURE_SELECTION = (
    *_of("sklearn.feature_selection._univariate_selection", "chi2 f_classif f_oneway f_regression r_regression"),
    *_of("sklearn.feature_selection._mutual_info", "mutual_info_classif mutual_info_regression"),
)

# Functions people give to FunctionTransformer (ufuncs, as numpy.log1p, skops trusts by itself).
_FUNCTIONS = _of(
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

#: Names as skops spells them: the module and the type or function.
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
