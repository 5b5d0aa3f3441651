"""A worker that trusts nothing serves boosters from forked processes, whatever threads they were fitted with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import xgboost

from headrace import Client
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.packaging.package import package
from headrace_worker.packaging.table import read_table
from headrace_worker.store.store import Store
from tests.support.booster_models import SIZES, TABLE
from tests.support.claim_models import running_worker

CODES = np.unique(SIZES, return_inverse=True)[1]
TEXTS = TABLE.assign(plan=TABLE["plan"].astype("str").fillna("none"))


def test_boosters_with_default_threads_answer_from_every_pool_process(tmp_path: Path) -> None:
    fitted: dict[str, tuple[Any, Any]] = {
        "light": (lightgbm.LGBMClassifier(n_estimators=50, min_child_samples=5, verbose=-1), SIZES),
        "extreme": (xgboost.XGBClassifier(n_estimators=50, enable_categorical=True), CODES),
        "cat": (
            catboost.CatBoostClassifier(
                iterations=50, cat_features=["plan"], verbose=0, allow_writing_files=False
            ),
            SIZES,
        ),
    }
    tables = {"light": TABLE, "extreme": TABLE, "cat": TEXTS}
    for name, (model, target) in fitted.items():
        model.fit(tables[name], target)
        package(Store(tmp_path / "store"), model, name=name, example=read_table(tables[name]))
    with (
        EmbeddedRedis("--appendfsync", "no") as server,
        running_worker(url=server.url, models=tmp_path / "store", folder=tmp_path, HEADRACE_TRUST_PICKLE="false"),
        Client(server.url) as client,
    ):
        for name, (model, _) in fitted.items():
            instances = read_table(tables[name]).instances
            together = client.submit(name, instances=instances, method="predict_proba").result(timeout=60)
            alone = [client.submit(name, instance, method="predict") for instance in instances[:40]]
            np.testing.assert_allclose(together.predictions, model.predict_proba(tables[name]), rtol=1e-9)
            answers = [job.result(timeout=60).prediction for job in alone]
            assert answers == np.ravel(model.predict(tables[name]))[:40].tolist()
