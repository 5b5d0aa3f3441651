"""Every example runs as described in its first lines, with a real worker."""

from __future__ import annotations

import contextlib
import csv
import http.client
import importlib.util
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

from headrace import Client
from headrace.testing import InMemoryClient
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

    def post(self, body: Any, *, key: str = "") -> tuple[int, dict[str, Any], http.client.HTTPMessage]:
        headers = {"content-type": "application/json", **({"idempotency-key": key} if key else {})}
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
    while (answer := service.get(headers["location"]))[1]["status"] in {"waiting", "running"}:
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


def test_a_repeated_request_of_the_web_service_is_the_same_job(service: Service):
    body = {"model": "churn", "instance": {"age": 41, "plan": "gold"}}
    answers = [service.post(body, key="order-4711")[:2] for _ in range(2)]
    assert answers == [(202, {"id": "web-order-4711"})] * 2
    other = {"model": "churn", "instance": {"age": 42, "plan": "gold"}}
    assert service.post(other, key="order-4711")[0] == 409


def load_example(name: str) -> Any:
    """Import an example that is not run as a program."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def expected_churn(churn: Pipeline, age: int, plan: str) -> int:
    return int(churn.predict(pd.DataFrame([{"age": age, "plan": plan}]))[0])


def test_the_flask_service_answers_with_the_prediction(environ: dict[str, str], churn: Pipeline):
    example = load_example("flask_service")
    body = {"model": "churn", "instance": {"age": 41, "plan": "gold"}}
    with Client(environ["HEADRACE_REDIS_URL"]) as client:
        web = example.create_app(client).test_client()
        answer = web.put("/predictions/flask-1", json=body)
        while answer.status_code == 202:
            answer = web.get(answer.headers["location"])
        assert answer.json == {"id": "flask-1", "version": "1", "prediction": expected_churn(churn, 41, "gold")}
        assert web.put("/predictions/flask-1", json=body).status_code == 200, "a repeated request is the same job"
        assert web.put("/predictions/flask-1", json={**body, "instance": {"age": 1}}).status_code == 422
        assert web.put("/predictions/flask-1", json={**body, "model": "churn@2"}).status_code == 422
        assert web.get("/predictions/nobody-sent-this").status_code == 404


def test_the_flask_service_answers_with_the_place_of_a_slow_job_and_with_errors():
    example = load_example("flask_service")

    def fail(_: list[Any]) -> list[Any]:
        raise ValueError("not today")

    fake = InMemoryClient({"slow": lambda rows: [0] * len(rows), "bad": fail}, at_once=False)
    web = example.create_app(fake).test_client()
    slow = web.put("/predictions/a", json={"model": "slow", "instance": {"age": 1}})
    assert (slow.status_code, slow.headers["location"]) == (202, "/predictions/a")
    web.put("/predictions/b", json={"model": "bad", "instance": {"age": 1}})
    fake.run()
    assert web.get("/predictions/a").json["prediction"] == 0
    failed = web.get("/predictions/b")
    assert (failed.status_code, failed.json["reason"]) == (502, "permanent")
    assert web.put("/predictions/a", json={"model": "slow", "instance": {"age": 2}}).status_code == 409


def test_the_django_service_scores_a_customer_when_the_transaction_commits(
    environ: dict[str, str], churn: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HEADRACE_REDIS_URL", environ["HEADRACE_REDIS_URL"])
    example = load_example("django_service")
    from django.test import Client as Web

    web, url = Web(), "/customers/4711/score"
    assert web.get(url).status_code == 404
    for _ in range(2):  # a view that runs twice scores once
        assert web.post(url, {"age": 41, "plan": "gold"}).json() == {"id": "customer-4711"}
    assert web.post(url, {"age": 42, "plan": "gold"}).status_code == 422, "the id has another input"
    job = example.headrace_client().job("customer-4711")
    job.result(timeout=20)
    answer = {"id": "customer-4711", "status": "success", "prediction": expected_churn(churn, 41, "gold")}
    assert web.get(url).json() == answer
    example.headrace_client().close()
