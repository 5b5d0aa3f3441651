"""Models of an older scikit-learn: those that load are checked and marked, the others name both versions."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
import pandas as pd
import pytest
import sklearn
import skops.io
from sklearn.ensemble import AdaBoostClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from headrace.errors import ModelError
from headrace_worker.cli.model_text import manifest_lines
from headrace_worker.manifest import Manifest
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store

TABLE = pd.DataFrame({"a": np.arange(40.0), "b": np.arange(40.0) % 3})
TARGET = (TABLE["a"] + TABLE["b"] > 20).astype(int)
REMEDY = rf"fit the model again with {sklearn.__version__}, or serve it .*'scikit-learn==1\.2\.\*'"


def add(folder: Path, model: Any, form: str, version: str = "1.2.2") -> Manifest:
    """Add a model whose file says that a release of scikit-learn made it."""
    file, example = folder / f"model.{form}", folder / "rows.json"
    if form == "skops":
        with zipfile.ZipFile(io.BytesIO(skops.io.dumps(model))) as source, zipfile.ZipFile(file, "w") as target:
            for member in source.infolist():
                content = source.read(member).replace(sklearn.__version__.encode(), version.encode())
                target.writestr(member, content)
    else:
        buffer = io.BytesIO()
        joblib.dump(model, buffer)
        file.write_bytes(buffer.getvalue().replace(sklearn.__version__.encode(), version.encode()))
    example.write_bytes(msgspec.json.encode(TABLE.to_dict("records")))
    return package(Store(folder / "store"), file, name="m", example=example, trust_pickle=True)


@pytest.mark.parametrize("form", ["joblib", "skops"])
def test_what_loads_is_checked_and_the_manifest_says_what_it_was_made_with(form: str, tmp_path: Path) -> None:
    manifest = add(tmp_path, LogisticRegression().fit(TABLE, TARGET), form)
    assert manifest.made_with == "1.2.2"
    assert manifest.libraries["scikit-learn"] == sklearn.__version__
    assert "  made      by scikit-learn 1.2.2" in list(manifest_lines(manifest))


def test_a_model_of_this_release_is_not_marked(tmp_path: Path) -> None:
    manifest = add(tmp_path, LogisticRegression().fit(TABLE, TARGET), "joblib", sklearn.__version__)
    assert manifest.made_with == ""


def test_what_loads_and_cannot_predict_names_both_versions(tmp_path: Path) -> None:
    model = LogisticRegression().fit(TABLE, TARGET)
    del model.coef_  # as an attribute that only newer releases set
    with pytest.raises(ModelError, match=rf"cannot predict.*made by scikit-learn 1\.2\.2: {REMEDY}"):
        add(tmp_path, model, "joblib")


@pytest.mark.parametrize("form", ["joblib", "skops"])
def test_trees_that_hold_counts_are_refused_because_they_would_predict_otherwise(
    form: str, tmp_path: Path
) -> None:
    forest = RandomForestClassifier(3, random_state=0, n_jobs=1).fit(TABLE, TARGET)
    before = forest.predict_proba(TABLE)
    for tree in forest.estimators_:
        tree.tree_.value[...] *= tree.tree_.weighted_n_node_samples[:, None, None]  # as 1.3 stores them
    assert not np.allclose(forest.predict_proba(TABLE), before)  # without an error
    with pytest.raises(ModelError, match=rf"trees count samples, as those of scikit-learn 1\.2\.2 do.*{REMEDY}"):
        add(tmp_path, forest, form)


def test_trees_whose_weights_add_up_to_one_are_refused_too(tmp_path: Path) -> None:
    boosted = AdaBoostClassifier(n_estimators=2, random_state=0).fit(TABLE, TARGET)
    for tree in boosted.estimators_:
        tree.tree_.value[...] *= tree.tree_.weighted_n_node_samples[:, None, None]
        assert np.allclose(tree.tree_.value[0].sum(), 1)
    with pytest.raises(ModelError, match="trees count samples"):
        add(tmp_path, boosted, "joblib")


def test_trees_with_weights_are_served(tmp_path: Path) -> None:
    tree = DecisionTreeClassifier(class_weight={0: 0.001, 1: 500}, random_state=0)
    tree.fit(TABLE, TARGET, sample_weight=np.linspace(0, 5, 40))
    assert add(tmp_path, tree, "skops").format == "skops"
