"""Every example runs as described in its first lines, with a real worker."""

from __future__ import annotations

import contextlib
import csv
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from skops import io as skops

from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_worker
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store

EXAMPLES = Path(__file__).parents[2] / "examples"

CUSTOMERS = pd.DataFrame(
    {
        "age": [41, 23, 67, 35, 29, 52, 44, 61],
        "plan": ["gold", "basic", "silver", None, "gold", "basic", "silver", None],
    }
)


@pytest.fixture(scope="module")
def churn() -> Pipeline:
    encode = OneHotEncoder(handle_unknown="ignore")
    columns = make_column_transformer((encode, ["plan"]), remainder="passthrough")
    return make_pipeline(columns, LogisticRegression()).fit(CUSTOMERS, [0, 1, 0, 1, 0, 1, 0, 1])


@pytest.fixture(scope="module")
def environ(churn: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start Redis and a worker that serves `churn`; yield the environment for clients."""
    folder = tmp_path_factory.mktemp("stack")
    skops.dump(churn, folder / "churn.skops")
    CUSTOMERS.to_csv(folder / "example.csv", index=False)
    package(Store(folder / "models"), folder / "churn.skops", name="churn", example=folder / "example.csv")
    with EmbeddedRedis() as redis:
        worker = start_worker(redis.url, folder / "models", folder, concurrency=1)
        try:
            yield {**os.environ, "HEADRACE_REDIS_URL": redis.url, "HEADRACE_MODELS": str(folder / "models")}
        finally:
            worker.stop()


def run(
    environ: dict[str, str], folder: Path, example: str, *arguments: object
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / example), *map(str, arguments)]
    environ = {**environ, "TMPDIR": str(folder)}
    return subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, timeout=90)


def test_plain_celery_gets_a_prediction_without_headrace(environ: dict[str, str], churn: Pipeline, tmp_path: Path):
    completed = run(environ, tmp_path, "plain_celery.py")
    assert completed.returncode == 0, completed.stderr
    expected = int(churn.predict(pd.DataFrame([{"age": 41, "plan": "gold"}]))[0])
    assert completed.stdout.strip() == str({"model": "churn", "version": "1", "predictions": [expected]})
    assert not re.search("^(import|from) headrace", (EXAMPLES / "plain_celery.py").read_text(), re.MULTILINE)


def test_the_batch_script_scores_every_customer(environ: dict[str, str], churn: Pipeline, tmp_path: Path):
    completed = run(environ, tmp_path, "batch_script.py", EXAMPLES / "customers.csv", "scores.csv")
    assert completed.returncode == 0, completed.stderr
    customers = pd.read_csv(EXAMPLES / "customers.csv", dtype={"customer": str})
    expected = dict(zip(customers["customer"], churn.predict(customers[["age", "plan"]]), strict=True))
    assert scores(tmp_path / "scores.csv") == {name: str(score) for name, score in expected.items()}


def test_a_second_run_of_the_batch_script_predicts_nothing_twice(environ: dict[str, str], tmp_path: Path):
    import redis

    def jobs() -> set[bytes]:
        with redis.Redis.from_url(environ["HEADRACE_REDIS_URL"]) as server:
            return set(server.scan_iter("headrace:id:churn:*"))

    run(environ, tmp_path, "batch_script.py", EXAMPLES / "customers.csv", "first.csv")
    first_jobs = jobs()
    second = run(environ, tmp_path, "batch_script.py", EXAMPLES / "customers.csv", "second.csv")
    assert second.returncode == 0, second.stderr
    assert len(first_jobs) == 6
    assert jobs() == first_jobs
    assert scores(tmp_path / "second.csv") == scores(tmp_path / "first.csv")


def scores(path: Path) -> dict[str, str]:
    with path.open(newline="") as file:
        return {row["customer"]: row["churns"] for row in csv.DictReader(file)}


def test_the_notebook_gets_the_models_own_predictions_through_the_queue(environ: dict[str, str], tmp_path: Path):
    completed = run(environ, tmp_path, "notebook_to_queue.py")
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.splitlines()[-1] == "86 predictions by penguins@1, equal to the model's own: True"


class Service:
    """A client of the running web service."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def post(self, body: Any) -> tuple[int, dict[str, Any], http.client.HTTPMessage]:
        headers = {"content-type": "application/json"}
        return self._send(urllib.request.Request(f"{self.url}/predictions", json.dumps(body).encode(), headers))

    def get(self, path: str) -> tuple[int, dict[str, Any], http.client.HTTPMessage]:
        return self._send(urllib.request.Request(self.url + path))

    def _send(self, request: urllib.request.Request) -> tuple[int, dict[str, Any], http.client.HTTPMessage]:
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, json.load(response), response.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error), error.headers


@contextlib.contextmanager
def run_service(environ: dict[str, str]) -> Iterator[Service]:
    """Run the web service on a free port; yield once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "--app-dir",
        str(EXAMPLES),
        "--port",
        str(port),
        "fastapi_service:app",
    ]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        service, deadline = Service(port), time.monotonic() + 30
        while True:
            try:
                service.get("/openapi.json")
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, "the service exited"
                assert time.monotonic() < deadline, "the service does not answer"
                time.sleep(0.1)
        yield service
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def service(environ: dict[str, str]) -> Iterator[Service]:
    with run_service(environ) as running:
        yield running


def test_the_web_service_enqueues_a_job_and_returns_its_prediction_later(service: Service, churn: Pipeline):
    code, body, headers = service.post({"model": "churn", "instance": {"age": 41, "plan": "gold"}})
    assert code == 202
    assert headers["location"] == f"/predictions/{body['id']}"

    deadline = time.monotonic() + 20
    while (answer := service.get(headers["location"]))[1]["status"] in {"queued", "running"}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    expected = int(churn.predict(pd.DataFrame([{"age": 41, "plan": "gold"}]))[0])
    assert answer[0] == 200
    assert answer[1] == {"id": body["id"], "status": "success", "version": "1", "prediction": expected}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"model": "churn", "instance": {"agee": 41, "plan": "gold"}}, "age"),
        ({"model": "chrun", "instance": {"age": 41, "plan": "gold"}}, "churn"),
        ({"model": "churn", "instance": {"age": "old", "plan": "gold"}}, "age"),
    ],
)
def test_the_web_service_refuses_invalid_input(service: Service, body: dict[str, Any], reason: str):
    code, answer, _ = service.post(body)
    assert code == 422
    assert reason in answer["detail"]


def test_the_web_service_answers_404_for_an_unknown_job(service: Service):
    assert service.get("/predictions/nobody-enqueued-this")[0] == 404
    assert service.get("/predictions/%20")[0] == 422


def test_the_web_service_answers_503_with_retry_after_while_redis_is_down(environ: dict[str, str]):
    with run_service({**environ, "HEADRACE_REDIS_URL": "redis://127.0.0.1:1/0"}) as service:
        code, _, headers = service.post({"model": "churn", "instance": {"age": 41, "plan": "gold"}})
    assert code == 503
    assert headers["retry-after"] == "5"
