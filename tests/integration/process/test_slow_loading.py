"""A worker that takes longer to load a version than its status is valid is still one that promotions wait for."""

from __future__ import annotations

from pathlib import Path

import joblib
import redis

from headrace.catalog.aliases import Alias
from headrace.catalog.workers import STATUS_TTL_SECONDS
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_worker
from headrace_worker.packaging.package import package
from headrace_worker.rollout.alias_moves import RolloutStatus
from headrace_worker.rollout.promotion import POLL_SECONDS, Promoter
from headrace_worker.store.store import Store
from tests.support import ROOT, slow_models
from tests.support.claim_models import Doubling


def test_a_promotion_waits_for_a_version_that_takes_longer_to_load_than_a_status_is_valid(tmp_path: Path):
    store = Store(tmp_path / "models")
    (tmp_path / "rows.json").write_text("[[1, 0, 0]]")
    for estimator in (Doubling(), slow_models.SlowToLoad()):
        joblib.dump(estimator.fit([[0.0, 0.0, 0.0]]), tmp_path / "m.joblib")
        package(store, tmp_path / "m.joblib", name="slow", example=tmp_path / "rows.json", trust_pickle=True)
    settings = {
        "HEADRACE_TRUST_PICKLE": "true",
        "PYTHONPATH": str(ROOT),
        slow_models.SECONDS: "9",  # it is read twice: to be proved, and to serve
    }
    statuses: list[RolloutStatus] = []
    with EmbeddedRedis("--appendfsync", "no") as server, redis.Redis.from_url(server.url) as client:
        promoter = Promoter(client, Keys(), store, by="ann@here", max_bytes=1 << 30)
        promoter.promote("slow", "1", wait=0)
        worker = start_worker(server.url, store.path, tmp_path, concurrency=1, **settings)
        try:
            promotion = promoter.promote("slow", "2", wait=120, on_status=statuses.append)
            assert promoter.aliases("slow").by_name == {"production": Alias(version="2")}
        finally:
            worker.stop()
    assert [name.partition("@")[0] for name in promotion.workers] == ["worker"]
    waits = [status for status in statuses if status.pending]
    assert len(waits) * POLL_SECONDS > STATUS_TTL_SECONDS
    assert all(status.pending or status.ready for status in statuses)
