"""Demonstration models, trained within seconds on data from scikit-learn or generated data.

`tumour` is a random forest on the Wisconsin breast cancer table, `digits` classifies images of 8 x 8 pixels, and
`churn` is a pipeline over mixed columns with missing values, of generated customers.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from headrace_worker.manifest import Manifest
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store


class Trained(NamedTuple):
    """A fitted estimator, and instances that are not in its training data."""

    estimator: Any
    #: A DataFrame for models with named features, else an array.
    unseen: Any


def churn() -> Trained:
    """Train `churn`: will a customer leave? From age (sometimes missing) and plan of 2,000 generated customers."""
    generator = np.random.default_rng(7)
    customers = pd.DataFrame(
        {
            "age": generator.integers(18, 90, 2_000).astype(float),
            "plan": generator.choice(["basic", "silver", "gold"], 2_000),
        }
    )
    leaves = (customers["age"] < 35) ^ (customers["plan"] == "gold") ^ (generator.random(2_000) < 0.1)
    customers.loc[::50, "age"] = np.nan
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["age"]),
        (OneHotEncoder(handle_unknown="ignore"), ["plan"]),
    )
    model = make_pipeline(columns, LogisticRegression())
    return Trained(model.fit(customers[:1_500], leaves[:1_500].astype(int)), customers[1_500:])


def tumour() -> Trained:
    """Train `tumour`: benign or malignant? From 30 measurements; half of the 569 patients are held back."""
    data = load_breast_cancer(as_frame=True)
    labels = np.asarray(data.target_names)[data.target]
    model = RandomForestClassifier(n_estimators=100, random_state=7, n_jobs=1)
    return Trained(model.fit(data.data[:284], labels[:284]), data.data[284:])


def digits() -> Trained:
    """Train `digits`: which digit? From the 8 x 8 grey values of 1,797 images."""
    data = load_digits()
    model = make_pipeline(
        FunctionTransformer(np.reshape, kw_args={"shape": (-1, 64)}), StandardScaler(), LogisticRegression()
    )
    return Trained(model.fit(data.images[:1_500], data.target[:1_500]), data.images[1_500:])


#: Training functions by model name, for `headrace demo` and `headrace dev`.
DEMO_MODELS: dict[str, Callable[[], Trained]] = {"churn": churn, "digits": digits, "tumour": tumour}


def add_demo_models(
    store: Store, *, on_start: Callable[[str], None] | None = None
) -> dict[str, tuple[Manifest, Trained]]:
    """Train the demonstration models and add them to a store; return manifest and estimator by name.

    `on_start` is called with the name of each before its training.
    """
    added = {}
    with tempfile.TemporaryDirectory(prefix="headrace-training-") as folder:
        for name, train in DEMO_MODELS.items():
            if on_start is not None:
                on_start(name)
            trained = train()
            file, example = Path(folder, f"{name}.skops"), Path(folder, f"{name}.json")
            skops.io.dump(trained.estimator, file)
            write_instances(trained.unseen[:20], example)
            added[name] = package(store, file, name=name, example=example), trained
    return added


def write_instances(instances: Any, path: Path) -> None:
    """Write a table or an array as a JSON list of instances."""
    if isinstance(instances, pd.DataFrame):
        instances.to_json(path, orient="records")
    else:
        path.write_text(json.dumps(instances.tolist()), encoding="utf-8")
