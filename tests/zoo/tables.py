"""Pipelines over frames of mixed types, as notebooks have them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from sklearn.compose import (
    ColumnTransformer,
    TransformedTargetRegressor,
    make_column_selector,
    make_column_transformer,
)
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)

from tests.zoo.case import ROWS, Case, Fitted, gappy_frame, labels, mixed_frame, number_frame, random, targets
from tests.zoo.steps import (
    codes_by_batch,
    codes_of_categories,
    count_integers,
    dummies_by_batch,
    length_of_numbers,
    seconds_of,
    select_texts,
    to_days,
    to_ordinals,
    to_parts,
    to_texts,
)

_NUMBERS = ["age", "income", "score"]
_CATEGORIES = ["plan", "code", "size"]


def cases() -> Iterator[Case]:
    """Yield the cases."""
    for name, fit in _FITS.items():
        yield Case(group="frames", name=name, fit=fit)


def _fit(model: Any, table: Any, target: Any = None, **options: Any) -> Fitted:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(table, labels(table) if target is None else target)
    return Fitted(model, table, options)


def _linear(*steps: Any) -> Any:
    return make_pipeline(*steps, LogisticRegression(max_iter=2_000))


def _columns(numbers: Any = None, categories: Any = None) -> Any:
    return make_column_transformer(
        (numbers or StandardScaler(), _NUMBERS),
        (categories or OneHotEncoder(handle_unknown="ignore"), _CATEGORIES),
    )


def _own(function: Callable[[Any], Any], table: Any, target: Any = None) -> Fitted:
    """Fit a pipeline that begins with a function of one's own, which only a pickle holds."""
    steps = (FunctionTransformer(function), StandardScaler())
    return _fit(_linear(*steps), table, target, trust_pickle=True)


def _encoded(function: Callable[[Any], Any], table: Any, target: Any = None) -> Fitted:
    return _fit(
        _linear(FunctionTransformer(function), OneHotEncoder(handle_unknown="ignore")),
        table,
        target,
        trust_pickle=True,
    )


def _dates(kind: str) -> pd.DataFrame:
    generator = random()
    moments = pd.Timestamp("2026-01-01") + pd.to_timedelta(generator.integers(0, 90 * 86_400, ROWS), unit="s")
    column: Any = pd.Series(moments)
    if kind == "zone":
        column = column.dt.tz_localize("Europe/Berlin")
    elif kind == "utc":
        column = column.dt.tz_localize("UTC")
    elif kind == "date":
        column = pd.Series([moment.date() for moment in moments], dtype=object)
    elif kind == "day":
        column = column.dt.normalize()
    elif kind == "nanoseconds":
        column = column.astype("datetime64[ns]") + pd.to_timedelta(generator.integers(0, 1_000, ROWS), unit="ns")
    elif kind == "gaps":
        column = column.mask(column.index % 7 == 0)
    return pd.DataFrame({"since": column, "until": column})


def _halves() -> Any:
    return random().random(ROWS) > 0.5


def _nullable(backend: str) -> pd.DataFrame:
    return gappy_frame()[["age", "income", "plan"]].convert_dtypes(dtype_backend=backend)


def _integers_with_gaps() -> pd.DataFrame:
    frame = mixed_frame()[["code"]].astype("Int64")
    return frame.mask(frame.index.to_numpy()[:, None] % 5 == 0)


def _booleans_with_gaps() -> pd.DataFrame:
    frame = number_frame()[["member"]].astype("boolean")
    return frame.mask(frame.index.to_numpy()[:, None] % 5 == 0)


def _small_types() -> pd.DataFrame:
    generator = random()
    return pd.DataFrame(
        {
            "i8": generator.integers(-100, 100, ROWS).astype(np.int8),
            "u8": generator.integers(0, 200, ROWS).astype(np.uint8),
            "i32": generator.integers(-1e6, 1e6, ROWS).astype(np.int32),
            "u32": generator.integers(0, 4e9, ROWS).astype(np.uint32),
            "f32": generator.normal(size=ROWS).astype(np.float32),
        }
    )


def _large_integers() -> pd.DataFrame:
    return pd.DataFrame({"id": 2**53 + 2 * random().integers(0, 4, ROWS) + 1, "x": random().normal(size=ROWS)})


def _categories_of(values: list[Any]) -> pd.DataFrame:
    generator = random()
    column = pd.Categorical(generator.choice(np.array(values, dtype=object), ROWS), categories=values)
    return pd.DataFrame({"kind": column, "x": generator.normal(size=ROWS)})


def _texts_as(dtype: Any) -> pd.DataFrame:
    return mixed_frame()[["plan", "income"]].astype({"plan": dtype})


_MIXED_TARGET = lambda: labels(mixed_frame())  # noqa: E731
_HISTOGRAM = lambda: HistGradientBoostingClassifier(max_iter=15, categorical_features="from_dtype")  # noqa: E731
_IMPUTED = lambda: make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))  # noqa: E731

_FITS: dict[str, Callable[[], Fitted]] = {
    "numbers and categories, linear": lambda: _fit(_linear(_columns()), mixed_frame()),
    "numbers and categories, forest": lambda: _fit(
        make_pipeline(_columns(), RandomForestClassifier(20, random_state=0)), mixed_frame()
    ),
    "numbers and categories, boosting": lambda: _fit(
        make_pipeline(_columns(), GradientBoostingClassifier(n_estimators=10, random_state=0)), mixed_frame()
    ),
    "gaps, imputed": lambda: _fit(
        _linear(_columns(make_pipeline(SimpleImputer(), StandardScaler()), _IMPUTED())), gappy_frame()
    ),
    "gaps, nearest neighbours": lambda: _fit(
        make_pipeline(KNNImputer(), Ridge()), gappy_frame()[["age", "income"]], targets(gappy_frame())
    ),
    "gaps and categories, histogram boosting": lambda: _fit(
        _HISTOGRAM(), gappy_frame().drop(columns=["plan", "code"])
    ),
    "categories from their type, histogram boosting": lambda: _fit(
        _HISTOGRAM(), mixed_frame().astype({"plan": "category"})
    ),
    "ordinal encoder": lambda: _fit(
        _linear(make_column_transformer((OrdinalEncoder(), _CATEGORIES), remainder="passthrough")),
        mixed_frame(),
        runtime="onnx",
    ),
    "target encoder": lambda: _fit(
        make_pipeline(make_column_transformer((TargetEncoder(), ["plan"]), remainder=StandardScaler()), Ridge()),
        mixed_frame()[["plan", "income"]],
        targets(mixed_frame()),
    ),
    "bins": lambda: _fit(
        make_pipeline(make_column_transformer((KBinsDiscretizer(4), _NUMBERS)), Ridge()),
        mixed_frame()[_NUMBERS],
        targets(mixed_frame()),
    ),
    "columns selected by type": lambda: _fit(
        _linear(
            make_column_transformer(
                (StandardScaler(), make_column_selector(dtype_include="number")),
                (OneHotEncoder(), make_column_selector(dtype_include=["object", "str"])),
                (OrdinalEncoder(), make_column_selector(dtype_include="category")),
            )
        ),
        mixed_frame(),
    ),
    "columns selected by pattern": lambda: _fit(
        _linear(make_column_transformer((StandardScaler(), make_column_selector("^(age|income)$")))),
        mixed_frame()[["age", "income"]],
    ),
    "columns by position": lambda: _fit(
        _linear(make_column_transformer((StandardScaler(), [1, 2]), (OneHotEncoder(), [0]))),
        mixed_frame()[["plan", "income", "score"]],
        _MIXED_TARGET(),
    ),
    "frames between the steps": lambda: _fit(
        _linear(_columns().set_output(transform="default"), StandardScaler(with_mean=False)), mixed_frame()
    ),
    "pandas output between the steps": lambda: _fit(
        _linear(
            ColumnTransformer(
                [("scaled", StandardScaler(), _NUMBERS)], verbose_feature_names_out=False
            ).set_output(transform="pandas"),
            MinMaxScaler(),
        ),
        mixed_frame()[_NUMBERS],
    ),
    "transformed target": lambda: _fit(
        TransformedTargetRegressor(Ridge(), transformer=StandardScaler()), number_frame(), targets(number_frame())
    ),
    "logarithm of the target": lambda: _fit(
        TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1),
        number_frame(),
        targets(number_frame()),
    ),
    "union of features": lambda: _fit(
        _linear(make_union(StandardScaler(), make_pipeline(MinMaxScaler(), KBinsDiscretizer(3)))), number_frame()
    ),
    "numpy function": lambda: _fit(
        _linear(make_column_transformer((FunctionTransformer(np.log1p), ["age", "income"]))),
        mixed_frame()[["age", "income"]].abs(),
    ),
    "small numeric types": lambda: _fit(
        make_pipeline(StandardScaler(), Ridge()), _small_types(), targets(_small_types())
    ),
    "integers beyond 2**53": lambda: _encoded(to_texts, _large_integers()[["id"]], _halves()),
    "integers as texts": lambda: _encoded(to_texts, mixed_frame()[["code", "age"]]),
    "integers with gaps as texts": lambda: _encoded(to_texts, _integers_with_gaps(), _halves()),
    "booleans as texts": lambda: _encoded(to_texts, number_frame()[["member", "age"]], _halves()),
    "booleans with gaps": lambda: _encoded(to_texts, _booleans_with_gaps(), _halves()),
    "float32 as texts": lambda: _own(length_of_numbers, number_frame()[["score"]], _halves()),
    "texts selected by pandas' type": lambda: _own(
        select_texts, mixed_frame()[["plan", "income"]], _MIXED_TARGET()
    ),
    "integers selected by pandas' type": lambda: _own(count_integers, mixed_frame()[["code", "age", "income"]]),
    "texts as objects": lambda: _fit(
        _linear(make_column_transformer((OneHotEncoder(), ["plan"]))), _texts_as(object), _MIXED_TARGET()
    ),
    "texts as `string`": lambda: _fit(
        _linear(make_column_transformer((OneHotEncoder(), ["plan"]))), _texts_as("string"), _MIXED_TARGET()
    ),
    "nullable types of pandas": lambda: _fit(
        make_pipeline(
            make_column_transformer((SimpleImputer(), ["age", "income"]), (OneHotEncoder(), ["plan"])), Ridge()
        ),
        _nullable("numpy_nullable").fillna({"plan": "none"}),
        targets(mixed_frame()),
    ),
    "types of Arrow": lambda: _fit(
        make_pipeline(
            make_column_transformer((StandardScaler(), ["age", "income"]), (OneHotEncoder(), ["plan"])), Ridge()
        ),
        _nullable("pyarrow").fillna({"age": 0, "income": 0.0, "plan": "none"}),
        targets(mixed_frame()),
    ),
    "categories of integers": lambda: _fit(_HISTOGRAM(), _categories_of([3, 1, 2]), _halves()),
    "categories of booleans": lambda: _fit(
        _linear(make_column_transformer((OneHotEncoder(), ["kind"]))), _categories_of([True, False]), _halves()
    ),
    "categories of numbers": lambda: _fit(
        _linear(make_column_transformer((OrdinalEncoder(), ["kind"]))), _categories_of([0.5, 1.0, 2.5]), _halves()
    ),
    "codes of categories by batch": lambda: _own(
        codes_by_batch, mixed_frame()[["plan", "income"]], _MIXED_TARGET()
    ),
    "codes of fitted categories": lambda: _own(
        codes_of_categories, mixed_frame()[["size", "income"]].astype({"size": "category"}), _MIXED_TARGET()
    ),
    "dummies by batch": lambda: _own(dummies_by_batch, mixed_frame()[["plan", "income"]], _MIXED_TARGET()),
    "dates with time": lambda: _own(to_days, _dates("naive"), _halves()),
    "dates in a zone": lambda: _own(to_parts, _dates("zone"), _halves()),
    "dates in UTC": lambda: _own(to_days, _dates("utc"), _halves()),
    "dates to the nanosecond": lambda: _own(to_days, _dates("nanoseconds"), _halves()),
    "dates at midnight": lambda: _own(to_parts, _dates("day"), _halves()),
    "dates as objects": lambda: _own(to_ordinals, _dates("date"), _halves()),
    "dates, histogram boosting with gaps": lambda: _fit(
        make_pipeline(FunctionTransformer(to_days), HistGradientBoostingClassifier(max_iter=10)),
        _dates("gaps"),
        _halves(),
        trust_pickle=True,
    ),
    "durations": lambda: _own(
        seconds_of,
        pd.DataFrame({"lasted": pd.to_timedelta(random().integers(1, 9_000, ROWS), unit="s")}),
        _halves(),
    ),
    "polars": lambda: _fit(
        make_pipeline(make_column_transformer((StandardScaler(), _NUMBERS), (OneHotEncoder(), ["plan"])), Ridge()),
        pl.from_pandas(mixed_frame()[[*_NUMBERS, "plan"]]),
        targets(mixed_frame()),
    ),
    "an index that is no range": lambda: _fit(
        _linear(_columns()), mixed_frame().set_index(pd.Index(np.arange(ROWS) * 7)), _MIXED_TARGET()
    ),
    "names of columns that are not texts": lambda: _fit(
        make_pipeline(StandardScaler(), Ridge()),
        pd.DataFrame(random().normal(size=(ROWS, 3)), columns=[0, 1, 2]),
        _halves(),
    ),
    "names with spaces and signs": lambda: _fit(
        make_pipeline(StandardScaler(), Ridge()),
        number_frame().rename(columns=lambda name: f"the {name}, €/%"),
        _halves(),
    ),
}
