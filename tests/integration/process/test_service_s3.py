"""A worker serves models from a store in S3."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import redis
from sklearn.dummy import DummyRegressor

from headrace import Client
from headrace_worker.packaging.package import package
from headrace_worker.store.signing import create_keys, read_signer
from headrace_worker.store.store import Store
from tests.support.claim_models import running_worker
from tests.support.s3_server import S3, s3, s3_of_module
from tests.support.waiting import wait_until

__all__ = ["s3", "s3_of_module"]  # fixtures

URL: Any = "s3://models/production"


def add_version(folder: Path, constant: float, **options: Any) -> None:
    """Package a version of the model `churn` that always predicts this number."""
    joblib.dump(DummyRegressor(strategy="constant", constant=constant).fit(np.ones((2, 1)), [1, 2]), folder / "m")
    (folder / "example.json").write_text("[[1.0]]")
    package(Store(URL, **options), folder / "m", name="churn", example=folder / "example.json", trust_pickle=True)


def test_versions_are_served_from_s3_and_from_memory_and_cache_while_s3_is_unreachable(
    s3: S3, redis_url: str, server: redis.Redis, tmp_path: Path
) -> None:
    settings = {"HEADRACE_MODEL_CACHE": str(tmp_path / "cache"), **s3.environ}
    add_version(tmp_path, 1.0)
    with (
        running_worker(url=redis_url, models=URL, folder=tmp_path, **settings) as worker,
        Client(redis_url) as client,
    ):

        def predict() -> float:
            return float(client.predict("churn", [0.0], timeout=20).prediction)

        assert predict() == 1.0
        add_version(tmp_path, 2.0)
        wait_until(lambda: predict() == 2.0)
        wait_until(lambda: server.hget("headrace:contracts:churn", "latest") == b"2")
        s3.stop()
        try:
            wait_until(lambda: "is unavailable" in worker.log.read_text())
            assert predict() == 2.0
            with running_worker(url=redis_url, models=URL, folder=tmp_path, name="second", **settings) as second:
                worker.stop()
                assert predict() == 2.0
                assert second.log.read_text().count("is unavailable") == 1
                s3.start()
                add_version(tmp_path, 3.0)
                wait_until(lambda: predict() == 3.0)
        finally:
            if s3.stopped:
                s3.start()


def test_a_worker_without_store_and_cache_exits_with_the_reason(s3: S3, redis_url: str, tmp_path: Path) -> None:
    s3.stop()
    try:
        for command in (["headrace.cli", "worker"], ["celery", "-A", "headrace_worker", "worker"]):
            done = subprocess.run(
                [sys.executable, "-m", *command],
                env={
                    **os.environ,
                    **s3.environ,
                    "HEADRACE_MODELS": URL,
                    "HEADRACE_REDIS_URL": redis_url,
                    "HEADRACE_MODEL_CACHE": str(tmp_path / "cache"),
                },
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 1, done.stderr
            assert done.stderr.splitlines()[-1].startswith(f"headrace: the model store {URL} is unavailable")
    finally:
        s3.start()


def test_only_signed_versions_are_served_if_signatures_are_required(
    s3: S3, redis_url: str, tmp_path: Path
) -> None:
    _, (private, public) = create_keys(tmp_path / "release", secret=False)
    add_version(tmp_path, 1.0, signer=read_signer(private))
    add_version(tmp_path, 2.0)
    settings = {
        "HEADRACE_MODEL_CACHE": str(tmp_path / "cache"),
        "HEADRACE_MODEL_KEYS": str(public),
        "HEADRACE_REQUIRE_SIGNATURE": "true",
    }
    with (
        running_worker(url=redis_url, models=URL, folder=tmp_path, **settings, **s3.environ) as worker,
        Client(redis_url) as client,
    ):
        assert client.predict("churn", [0.0], timeout=20).prediction == 1.0
        assert "churn@2 is not signed by the key" in worker.log.read_text()
        fetched = [path.name for path in (tmp_path / "cache/artifacts").iterdir()]
        assert fetched == [Store(URL).read_manifest("churn", "1").sha256]
        add_version(tmp_path, 3.0, signer=read_signer(private))
        wait_until(lambda: client.predict("churn", [0.0], timeout=20).prediction == 3.0)
