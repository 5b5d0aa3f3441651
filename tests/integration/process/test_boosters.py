"""A worker that trusts nothing serves boosters from forked processes, whatever threads they were fitted with."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np

from headrace import Client
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.packaging.table import read_table
from tests.support.booster_models import SIZES, TABLE, add_booster
from tests.support.claim_models import running_worker


def test_a_lightgbm_model_with_default_threads_answers_from_every_pool_process(tmp_path: Path) -> None:
    model = lightgbm.LGBMClassifier(n_estimators=50, min_child_samples=5, verbose=-1).fit(TABLE, SIZES)
    assert model.n_jobs is None
    add_booster(tmp_path, model, TABLE)
    instances = read_table(TABLE).instances
    with (
        EmbeddedRedis("--appendfsync", "no") as server,
        running_worker(url=server.url, models=tmp_path / "store", folder=tmp_path, HEADRACE_TRUST_PICKLE="false"),
        Client(server.url) as client,
    ):
        together = client.submit("model", instances=instances, method="predict_proba").result(timeout=60)
        alone = [client.submit("model", instance, method="predict") for instance in instances[:40]]
        answers = [job.result(timeout=60).prediction for job in alone]
    np.testing.assert_allclose(together.predictions, model.predict_proba(TABLE), rtol=1e-9)
    assert answers == model.predict(TABLE)[:40].tolist()
