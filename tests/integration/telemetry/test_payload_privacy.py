"""No secret and no payload leaves a worker: inputs and secrets have markers, and no output contains one."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from prometheus_client import CollectorRegistry, generate_latest

from headrace import Client, Settings
from headrace.connection.celery import create_celery_app
from headrace.connection.connect import connect
from headrace.errors import JobFailed
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_flower
from headrace_worker.store.store import Store
from headrace_worker.telemetry.prediction_record import Record
from headrace_worker.telemetry.prediction_sinks import RedisStream
from headrace_worker.telemetry.queue_metrics import QueueCollector
from tests.support import hostile_models
from tests.support.claim_models import running_worker
from tests.support.connections import free_port
from tests.support.otlp_endpoint import Collector
from tests.support.sentry_endpoint import Sentry
from tests.support.waiting import wait_until

PASSWORD, LOGIN = "s3cretMARKERpassword", "ann:flowerMARKERpassword"
DSN_KEY, TOKEN = "0123456789abcdef0MARKER", "tokenMARKERofTheCollector"
#: Values of instances that must not leave the worker.
WORD, NUMBER = "RumpelMARKERstiltskin", 47118.15
MARKERS = (PASSWORD, LOGIN.partition(":")[2], DSN_KEY, TOKEN, WORD, "47118")

#: What the instances make their model do; all but the first fail.
DEEDS = ("predict", "raise", "raise from", "eat memory", "raise unreadable", "kill")
#: A trace that a producer has sampled, in the headers of OpenTelemetry and Sentry.
TRACED = {
    "traceparent": f"00-{'4b' * 16}-{'c3' * 8}-01",
    "sentry-trace": f"{'5a' * 16}-{'d2' * 8}-1",
}


@pytest.fixture(scope="module")
def locked() -> Iterator[str]:
    """The URL of a Redis with a password."""
    with EmbeddedRedis("--appendfsync", "no", "--requirepass", PASSWORD) as server:
        yield server.url.replace("redis://", f"redis://:{PASSWORD}@")


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    sentry = Sentry()
    yield sentry
    sentry.stop()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


def markers_in(text: str) -> list[str]:
    return [marker for marker in MARKERS if marker in text]


def read_events(subscription: Any) -> Iterator[str]:
    """Yield the events of Celery that have arrived."""
    while message := subscription.get_message(timeout=0.5):
        if message["type"] == "pmessage":
            yield base64.b64decode(json.loads(message["data"])["body"]).decode()


def get(url: str, login: str | None = None) -> str:
    request = urllib.request.Request(url)
    if login:
        request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
    with urllib.request.urlopen(request, timeout=20) as reply:
        return str(reply.read().decode())


def commands(url: str, job: str) -> Iterator[tuple[str, str]]:
    """Yield the output of each command that a person on call runs for a failed job."""
    for args in (
        ("explain", job),
        ("explain", job, "--json"),
        ("dead", "show", job),
        ("dead", "list", "--all", "--json"),
        ("queues",),
        ("top", "--once", "--json"),
        ("doctor", "--json"),
    ):
        process = subprocess.run(
            [sys.executable, "-m", "headrace.cli", *args],
            env={**os.environ, "HEADRACE_REDIS_URL": url},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert process.stdout, process.stderr
        yield " ".join(args), process.stdout + process.stderr


def read_exporter(settings: Settings) -> str:
    """Return the exporter's metrics."""
    registry = CollectorRegistry()
    with contextlib.closing(connect(settings)) as client:
        registry.register(QueueCollector(lambda: client, settings.key_prefix))
        return generate_latest(registry).decode()


def pages(flower: str, job: str) -> Iterator[tuple[str, str]]:
    """Yield every page of Flower, and its JSON form."""
    for path in (
        *("/", "/tasks", f"/jobs/{job}", f"/task/{job}", "/queues", "/workers", "/metrics"),
        *("/dead-letters", f"/dead-letters/{job}", "/models", "/queues"),
        *("/api/tasks?limit=10000", f"/api/task/info/{job}", "/api/workers?refresh=true"),
        *("/api/dead-letters", f"/api/dead-letters/{job}", "/api/models", "/api/queues"),
    ):
        yield path, get(flower + path, LOGIN)


def test_no_secret_and_no_payload_leaves_the_worker_except_in_the_prediction_log(
    locked: str, tmp_path: Path, sentry: Sentry, collector: Collector
) -> None:
    store = Store(tmp_path / "models")
    hostile_models.add(store)
    port, flower_port, log = free_port(), free_port(), tmp_path / "log"
    environ = {
        **hostile_models.SERVING,
        "SENTRY_DSN": sentry.dsn.replace("//key@", f"//{DSN_KEY}@"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_EXPORTER_OTLP_HEADERS": f"api-key={TOKEN}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "HEADRACE_METRICS_PORT": str(port),
        "HEADRACE_HEALTH_FILE": str(tmp_path / "health"),
        "HEADRACE_PREDICTION_LOG": "full",
        "HEADRACE_PREDICTION_LOG_TO": f"file:{log}",
    }
    settings = Settings(redis_url=locked)
    outputs: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        login = {"HEADRACE_FLOWER_LOGIN": LOGIN, "HEADRACE_FLOWER_OPEN": "false"}
        flower = start_flower(locked, tmp_path, port=flower_port, **login)
        stack.callback(flower.stop)
        worker = stack.enter_context(
            running_worker("--loglevel", "DEBUG", url=locked, models=store.path, folder=tmp_path, **environ)
        )
        app = stack.enter_context(create_celery_app(settings))
        server = stack.enter_context(redis.Redis.from_url(locked))
        client = stack.enter_context(Client(settings=settings))
        events = stack.enter_context(server.pubsub())
        events.psubscribe("/0.celeryev*")

        jobs = [client.submit("obedient", hostile_models.instance(do, secret=WORD, size=NUMBER)) for do in DEEDS]
        plain = app.send_task(
            "headrace.predict", args=["obedient", [{"do": WORD, "secret": NUMBER}]], queue="predict.obedient"
        )
        app.send_task("headrace.predict", args=[WORD], kwargs={WORD: NUMBER}, queue="predict.obedient")
        for job in jobs[1:]:
            with pytest.raises(JobFailed):
                job.result(timeout=30)
        assert jobs[0].result(timeout=20).prediction == 2 * NUMBER
        wait_until(plain.ready)
        # Submitted last, because a process that is killed loses what it has not sent yet.
        traced = app.send_task(
            "headrace.predict",
            args=["obedient", [hostile_models.instance("raise", secret=WORD, size=NUMBER)]],
            queue="predict.obedient",
            headers=TRACED,
        )
        wait_until(traced.ready)

        sentry.wait("event", lambda event: event.get("tags", {}).get("headrace.job") == traced.id)
        sentry.wait("transaction", lambda transaction: transaction["transaction"] == "predict.obedient")
        collector.wait(lambda span: span.name == "process predict.obedient")
        outputs["metrics"] = get(f"http://127.0.0.1:{port}/metrics")
        outputs["exporter"] = read_exporter(settings)
        outputs["events"] = str(list(read_events(events)))
        assert "task-failed" in outputs["events"]
        outputs["health"] = (tmp_path / "health").read_text()
        wait_until(lambda: traced.id in get(f"http://127.0.0.1:{flower_port}/api/tasks?limit=10000", LOGIN))
        outputs.update(
            (f"Flower's {path}", text) for path, text in pages(f"http://127.0.0.1:{flower_port}", traced.id)
        )
        outputs.update((f"`headrace {command}`", text) for command, text in commands(locked, traced.id))
        app.backend.client.connection_pool.disconnect()
    outputs["log"], outputs["Flower's log"] = worker.log.read_text(), flower.log.read_text()
    assert "of predict.obedient failed" in outputs["log"]
    assert [json.loads(line)["level"] for line in outputs["log"].splitlines() if line.startswith('{"')]
    # The first line of an envelope has the key, which the receiver knows.
    outputs["Sentry"] = "\n".join(body.decode().partition("\n")[2] for body in sentry.bodies)
    outputs["traces"] = b"\n".join(collector.bodies).decode(errors="replace")
    for name, text in outputs.items():
        assert markers_in(text) == [], f"in the {name}"

    records = [json.loads(line) for file in log.iterdir() for line in file.read_text().splitlines()]
    by_job: dict[str, Any] = {record["job"]: record for record in records}
    assert by_job[jobs[0].id]["instances"] == [{"do": "predict", "secret": WORD, "size": NUMBER}]
    assert by_job[jobs[0].id]["predictions"] == [2 * NUMBER]
    assert (by_job[jobs[1].id]["state"], by_job[jobs[1].id]["reason"]) == ("failure", "permanent")
    assert by_job[plain.id]["instances"] is None


def test_the_stream_of_the_prediction_log_is_bounded(redis_url: str, server: redis.Redis) -> None:
    sink = RedisStream(redis.Redis.from_url(redis_url), Keys("team:"), 100)
    record = Record(
        at_ms=1, job="a", model="m", state="success", worker="w", claim="c", attempt=1, instance_count=1
    )
    for _ in range(20):
        sink.write([record] * 50)
    sink.close()
    assert 100 <= server.xlen("team:headrace:predictions") < 400
    ((_, entry),) = server.xrevrange("team:headrace:predictions", count=1)
    assert json.loads(entry[b"record"])["job"] == "a"
