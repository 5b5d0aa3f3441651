"""A name without a version stands for the version in production, as the aliases in Redis say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import redis
from sklearn.linear_model import LogisticRegression

from headrace.errors import UnknownModel
from headrace.wire.keys import Keys
from headrace_worker.packaging.package import package
from headrace_worker.packaging.table import read_table
from headrace_worker.store.store import Store
from headrace_worker.udf import Predictor

TABLE = pd.DataFrame({"age": np.arange(40.0)})


def test_the_version_in_production_is_taken_and_stays_when_another_is_promoted(
    tmp_path: Path, redis_url: str, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for threshold in (10, 20, 30):
        model = LogisticRegression().fit(TABLE, TABLE["age"] > threshold)
        package(Store(tmp_path), model, name="churn", example=read_table(TABLE))
    monkeypatch.setenv("HEADRACE_REDIS_URL", redis_url)
    assert Predictor("churn", store=tmp_path).version == "3"  # no alias: the newest serves
    server.hset(Keys("").aliases("churn"), "production", b'{"version":"1"}')
    server.hset(Keys("").aliases("churn"), "canary", b'{"version":"3","share":1.0}')
    score = Predictor("churn", store=tmp_path)
    server.hset(Keys("").aliases("churn"), "production", b'{"version":"2"}')
    assert score.version == "1"
    assert score(TABLE)["prediction"].tolist() == (TABLE["age"] > 10).tolist()
    assert Predictor("churn@production", store=tmp_path).version == "2"
    assert Predictor("churn@canary", store=tmp_path).version == "3"
    with pytest.raises(UnknownModel, match="no alias 'tested'; it has canary, production"):
        Predictor("churn@tested", store=tmp_path)
