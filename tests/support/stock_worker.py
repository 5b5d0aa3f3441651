"""A stock Celery worker with a model that fails or takes long on demand.

The prediction of an instance is its `age` times two. A `plan` of `fail` raises ValueError, `slow` takes a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from celery import Celery

from headrace.catalog.contract import Contract, Feature, Named, Output
from headrace.catalog.published import publish_contract
from headrace.wire.keys import Keys
from headrace.wire.queues import queue_name
from tests.support import ROOT

CONTRACT = Contract(
    model="churn",
    version="3",
    input=Named(
        features=(
            Feature(name="age", kind="number", nullable=True),
            Feature(name="plan", kind="string"),
        )
    ),
    methods={
        "predict": Output(shape=()),
        "predict_proba": Output(shape=(2,), classes=("basic", "gold")),
    },
)

app = Celery("stock", broker=os.environ.get("HEADRACE_REDIS_URL"), backend=os.environ.get("HEADRACE_REDIS_URL"))
app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1)


@app.task(name="headrace.predict")
def predict(
    model: str,
    instances: list[dict[str, Any]],
    version: str | None = None,
    method: str | None = None,
    metadata: dict[str, str] | None = None,
) -> dict[str, Any]:
    predictions: list[Any] = []
    for instance in instances:
        if instance["plan"] == "fail":
            raise ValueError("the model cannot")
        if instance["plan"] == "slow":
            time.sleep(1)
        age = instance["age"]
        predictions.append([0.25, 0.75] if method == "predict_proba" else age if age is None else age * 2)
    return {"model": model, "version": version or "3", "predictions": predictions}


def publish_stock_contract(url: str) -> None:
    """Publish the contract of `churn`."""
    with redis.Redis.from_url(url) as client:
        publish_contract(client, Keys(), CONTRACT)


@contextlib.contextmanager
def start_stock_worker(url: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start the worker as a process, and wait until it is ready."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "celery",
                    "-A",
                    "tests.support.stock_worker",
                    "worker",
                    "-P",
                    "solo",
                    "-l",
                    "INFO",
                ),
                *("-Q", queue_name("churn"), "--without-gossip", "--without-mingle", "--without-heartbeat"),
            ],
            env={**os.environ, "HEADRACE_REDIS_URL": url},
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 30
        while b"ready." not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
