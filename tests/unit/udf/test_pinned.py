"""The version that a name stands for is fixed once, and no process predicts with other bytes."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from headrace.errors import BrokerUnavailable, InvalidInput, ModelError, UnknownModel
from headrace_worker.packaging.package import package
from headrace_worker.packaging.table import read_table
from headrace_worker.store.signing import create_keys
from headrace_worker.store.store import Store
from headrace_worker.udf import Predictor
from headrace_worker.udf.pinned import locate_store

TABLE = pd.DataFrame({"age": np.arange(40.0)})


def _add(store: Path, threshold: int) -> None:
    model = LogisticRegression().fit(TABLE, TABLE["age"] > threshold)
    package(Store(store), model, name="churn", example=read_table(TABLE))


def test_a_name_alone_is_the_newest_version_where_no_redis_is_named(tmp_path: Path) -> None:
    _add(tmp_path, 10)
    _add(tmp_path, 20)
    score = Predictor("churn", store=tmp_path)
    _add(tmp_path, 30)
    assert (score.version, Predictor("churn", store=tmp_path).version) == ("2", "3")
    assert pickle.loads(pickle.dumps(score)).version == "2"


def test_a_redis_that_is_away_is_an_error_that_says_how_to_do_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add(tmp_path, 10)
    monkeypatch.setenv("HEADRACE_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("HEADRACE_CONNECT_TIMEOUT", "0.2")
    for name in ("churn", "churn@production"):
        with pytest.raises(BrokerUnavailable, match="name a version instead, as churn@1"):
            Predictor(name, store=tmp_path)
    assert Predictor("churn@1", store=tmp_path).version == "1"


def test_other_bytes_under_the_same_version_are_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    _add(first, 10)
    _add(second, 30)
    score = Predictor("churn", store=first)
    shutil.rmtree(first)
    shutil.copytree(second, first)
    with pytest.raises(ModelError, match=r"churn@1 in .* is another version than the one"):
        score(TABLE)
    with pytest.raises(ModelError, match="is another version"):
        _ = pickle.loads(pickle.dumps(score)).schema


def test_a_changed_artifact_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    _add(tmp_path, 10)
    score = Predictor("churn", store=tmp_path)
    artifact = tmp_path / "churn" / "1" / "artifact.skops"
    artifact.chmod(0o644)
    artifact.write_bytes(artifact.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="churn@1 has another digest than its manifest says"):
        score(TABLE)


def test_an_unsigned_version_is_refused_where_signatures_are_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add(tmp_path / "store", 10)
    _, files = create_keys(tmp_path / "team", secret=True)
    score = Predictor("churn", store=tmp_path / "store")
    monkeypatch.setenv("HEADRACE_MODEL_KEYS", str(files[-1]))
    monkeypatch.setenv("HEADRACE_REQUIRE_SIGNATURE", "true")
    with pytest.raises(ModelError, match="churn@1 is not signed by the key"):
        score(TABLE)


def test_a_version_that_was_removed_is_an_error_at_the_first_frame(tmp_path: Path) -> None:
    _add(tmp_path, 10)
    score = pickle.loads(pickle.dumps(Predictor("churn", store=tmp_path)))
    _add(tmp_path, 20)
    Store(tmp_path).remove("churn", "1")
    with pytest.raises(UnknownModel, match="churn has no version '1'; it has 2"):
        score(TABLE)


def test_a_relative_store_is_the_same_folder_in_another_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add(tmp_path / "store", 10)
    monkeypatch.chdir(tmp_path)
    score = Predictor("churn", store="store")
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(score))(TABLE)["error"].isna().all()


def test_urls_stay_and_passwords_in_them_are_refused() -> None:
    assert locate_store("s3://bucket/models") == "s3://bucket/models"
    assert locate_store("abfs://container@account.dfs.core.windows.net/x").startswith("abfs://container@")
    assert locate_store("file:///srv/models") == "/srv/models"
    with pytest.raises(InvalidInput, match="holds a password") as raised:
        locate_store("sftp://me:hunter2@host/models")
    assert "hunter2" not in str(raised.value)
