"""Headrace and plain Celery read each other's messages and results, without sharing code."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from celery.exceptions import TaskRevokedError

from headrace import Client
from headrace.connection.celery import create_celery_app
from headrace.errors import JobExpired, JobFailed
from headrace.settings import Settings
from headrace.wire.message import Job, encode_message
from headrace.wire.outcome import Cancelled, Failure, Prediction, Success
from headrace.wire.task_arguments import build_job
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support import ROOT
from tests.support.answering_worker import AnsweringWorker, publish_outcomes


@pytest.fixture(scope="module")
def celery_url() -> Iterator[str]:
    """Run a Redis and a stock Celery worker. Return the URL of the Redis."""
    with EmbeddedRedis("--appendfsync", "no") as server:
        worker = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "celery",
                    "-A",
                    "tests.support.plain_celery_app",
                    "worker",
                    "-Q",
                    "predict.churn",
                ),
                *("--pool", "solo", "--loglevel", "error", "--without-mingle", "--without-gossip"),
            ],
            cwd=ROOT,
            env={**os.environ, "REDIS_URL": server.url},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield server.url
        finally:
            worker.terminate()
            worker.wait(timeout=20)


@pytest.fixture
def client(celery_url: str) -> Iterator[Client]:
    with Client(celery_url, check=False) as client:
        yield client


def test_a_stock_worker_runs_jobs_and_a_client_reads_its_results(client: Client):
    prediction = client.predict("churn", {"age": 4}, version="7", timeout=60)
    assert prediction == Prediction(model="churn", version="7", predictions=[8])


@pytest.mark.parametrize("priority", [0, 3, 6, 9])
def test_a_stock_worker_takes_every_priority(client: Client, priority: int):
    jobs = client.submit_many("churn", [{"age": age} for age in range(20)], priority=priority)
    assert sum(job.result().prediction for job in client.as_completed(jobs, timeout=60)) == 380


def test_an_exception_in_a_stock_worker_is_the_failure_of_the_job(client: Client):
    job = client.submit("churn", {"age": -1})
    with pytest.raises(JobFailed, match="ValueError: an age is not negative") as caught:
        job.result(timeout=60)
    assert (caught.value.reason, caught.value.error) == ("permanent", "ValueError")
    assert "Traceback" in job.outcome().traceback  # type: ignore[union-attr]  # a Failure


def test_a_stock_worker_respects_the_deadline_of_a_job(client: Client, celery_url: str):
    expired = Job(
        id="expired", model="churn", instances=[{"age": 4}], expires=datetime.now(UTC) - timedelta(seconds=1)
    )
    with redis.Redis.from_url(celery_url) as server:
        server.lpush("predict.churn", encode_message(expired))
    with pytest.raises(JobExpired):
        client.job("expired").result(timeout=60)


def test_a_stock_client_sends_jobs_and_reads_outcomes(redis_url: str, server: redis.Redis):
    app = create_celery_app(Settings(redis_url=redis_url))
    expires = datetime(2040, 1, 1, tzinfo=UTC)
    try:
        sent = app.send_task(
            "headrace.predict",
            args=["churn", [{"age": 4}]],
            kwargs={"version": "3"},
            queue="predict.churn",
            priority=9,
            expires=expires,
        )
        message = json.loads(server.lindex("predict.churn\x06\x169", 0))
        args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
        job = build_job(
            sent.id, args, kwargs, eta=message["headers"]["eta"], expires=message["headers"]["expires"]
        )
        assert (job.model, job.instances, job.version, job.expires) == ("churn", [{"age": 4}], "3", expires)

        publish_outcomes(
            server, Success(job=sent.id, prediction=Prediction(model="churn", version="3", predictions=[8]))
        )
        assert sent.get(timeout=10) == {"model": "churn", "version": "3", "predictions": [8]}

        failed = app.send_task("headrace.predict", args=["churn", [{"age": 4}]], queue="predict.churn")
        publish_outcomes(
            server, Failure(job=failed.id, reason="permanent", error="ValueError", module="builtins", message="no")
        )
        with pytest.raises(ValueError, match="no"):
            failed.get(timeout=10)

        cancelled = app.send_task("headrace.predict", args=["churn", [{"age": 4}]], queue="predict.churn")
        publish_outcomes(server, Cancelled(job=cancelled.id))
        with pytest.raises(TaskRevokedError):
            cancelled.get(timeout=10)
    finally:
        app.close()


def test_the_snippet_of_the_readme_works_against_a_headrace_worker(redis_url: str):
    app = create_celery_app(Settings(redis_url=redis_url))
    try:
        with AnsweringWorker(redis_url):
            sent = app.send_task("headrace.predict", args=["churn", [{"age": 41}]], queue="predict.churn")
            assert sent.get(timeout=20)["predictions"] == [82]
    finally:
        app.close()


@pytest.mark.parametrize(
    ("url", "broker", "tls"),
    [
        ("redis://:p%40ss@h:1/2", "redis://:p%40ss@h:1/2", None),
        ("unix:///run/redis.sock?db=3", "redis+socket:///run/redis.sock?virtual_host=3", None),
        ("rediss://h:1/0", "rediss://h:1/0", {"ssl_cert_reqs": "required"}),
        ("rediss://h:1/0?ssl_cert_reqs=none", "rediss://h:1/0", {"ssl_cert_reqs": "none"}),
    ],
)
def test_the_celery_app_uses_the_same_redis(url: str, broker: str, tls: object):
    app = create_celery_app(Settings(redis_url=url, key_prefix="shop:"))
    assert app.conf.broker_url == app.conf.result_backend == broker
    assert app.conf.broker_use_ssl == app.conf.redis_backend_use_ssl == tls
    assert app.conf.broker_transport_options["global_keyprefix"] == "shop:"
    assert app.backend.get_key_for_task("a") == b"shop:celery-task-meta-a"
    app.close()


def test_the_celery_app_reaches_a_redis_over_a_socket(tmp_path: Path):
    path = tmp_path / "redis.sock"
    with EmbeddedRedis("--unixsocket", str(path)):
        url = f"unix://{path}?db=2"
        app = create_celery_app(Settings(redis_url=url, key_prefix="shop:"))
        try:
            sent = app.send_task("headrace.predict", args=["churn", [{"age": 4}]], queue="predict.churn")
            with redis.Redis.from_url(url) as server:
                assert server.llen("shop:predict.churn") == 1
            with Client(settings=Settings(redis_url=url, key_prefix="shop:"), check=False) as client:
                assert client.job(sent.id).cancel(unknown=True)
            assert sent.state == "REVOKED"
        finally:
            app.close()
