"""The metrics and the health of a running worker: those of all its pool processes together, also when some end."""

from __future__ import annotations

import os
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import msgspec
import pytest
import redis
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from headrace import Client, Settings
from headrace.connection.celery import create_celery_app
from headrace.errors import HeadraceError, JobFailed
from headrace_worker.cli.health import health
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.process import monitoring
from tests.support.claim_models import KILL, NOTHING, add_model, running_worker
from tests.support.connections import free_port
from tests.support.waiting import wait_until


def get(port: int, path: str) -> tuple[int, str]:
    """Return the status and the body of a page of the worker."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def sample(port: int, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have these labels."""
    _, text = get(port, "/metrics")
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_a_worker_shows_the_totals_of_its_pool_processes_and_its_health(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, file = free_port(), tmp_path / "health"
    models = add_model(tmp_path, max_attempts=1)
    environ = {"HEADRACE_METRICS_PORT": str(port), "HEADRACE_HEALTH_FILE": str(file)}
    with (
        running_worker(url=redis_url, models=models, folder=tmp_path, **environ) as worker,
        Client(redis_url) as client,
    ):
        wait_until(lambda: get(port, "/ready") == (200, "all is well\n"))
        assert sample(port, "headrace_jobs_total") == 0
        jobs = client.submit_many("doubling", [[n, NOTHING, 0] for n in range(300)])
        assert len(list(client.as_completed(jobs, timeout=20))) == 300
        wait_until(
            lambda: sample(port, "headrace_jobs_total", model="doubling", version="1", state="success") == 300
        )
        assert sample(port, "headrace_wait_seconds_count", model="doubling") == 300
        assert sample(port, "headrace_batch_instances_sum", model="doubling", version="1") == 300
        batches = sample(port, "headrace_batches_total", model="doubling")
        assert 2 <= batches == sample(port, "headrace_predict_seconds_count", model="doubling")
        assert sample(port, "headrace_model_state", model="doubling", version="1", state="serving") == 1
        assert sample(port, "headrace_pool_resident_bytes") > 10e6

        with pytest.raises(JobFailed):
            client.submit("doubling", [1, KILL, 0]).result(timeout=20)
        assert sample(port, "headrace_claims_lost_total", cause="crash") == 1
        wait_until(lambda: sample(port, "headrace_dead_letters_total", reason="crash") == 1)
        assert sample(port, "headrace_attempts_total", cause="crash") == 1
        assert sample(port, "headrace_jobs_total", state="success") == 300
        wait_until(lambda: sample(port, "headrace_pool_processes") == 2)

        _, text = get(port, "/metrics")
        shown = {family.name for family in text_string_to_metric_families(text)}
        assert {metric.name.removesuffix("_total") for metric in monitoring.METRICS} <= shown

        monkeypatch.setenv("HEADRACE_HEALTH_FILE", str(file))
        assert CliRunner().invoke(health, ["--ready"]).output == "all is well\n"
        pid = msgspec.json.decode(file.read_bytes())["pid"]
        os.kill(worker.process.pid, signal.SIGSTOP)
        os.utime(file, (0, 0))  # as if it had not been written for long
        error = CliRunner().invoke(health).exception
        os.kill(worker.process.pid, signal.SIGCONT)
        assert isinstance(error, HeadraceError)
        assert "stopped or has ended" in str(error)
        assert pid == worker.process.pid
    assert not file.exists()


def test_a_worker_stays_live_while_redis_is_unreachable(tmp_path: Path) -> None:
    port, models = free_port(), add_model(tmp_path)
    environ = {"HEADRACE_METRICS_PORT": str(port)}
    with EmbeddedRedis("--appendfsync", "no") as server, Client(server.url) as client:
        with (
            running_worker(url=server.url, models=models, folder=tmp_path, **environ),
            create_celery_app(Settings(redis_url=server.url)) as app,
        ):
            wait_until(lambda: get(port, "/ready") == (200, "all is well\n"))
            assert app.control.inspect(timeout=5, limit=1).ping()
            server.kill()
            reason = f"the worker waits for Redis at 127.0.0.1:{server.port}, which cannot be reached"
            wait_until(lambda: get(port, "/live")[1].startswith(reason), 30)
            assert get(port, "/live")[0] == get(port, "/ready")[0] == 200
            server.start()
            wait_until(lambda: get(port, "/ready") == (200, "all is well\n"), 30)
            assert client.predict("doubling", [4, NOTHING, 0], timeout=20).prediction == 8
            app.backend.client.connection_pool.disconnect()
        with pytest.raises(urllib.error.URLError):
            get(port, "/live")


def test_a_worker_stays_live_while_redis_does_not_answer_and_is_not_live_when_it_hangs(tmp_path: Path) -> None:
    port, file, models = free_port(), tmp_path / "health", add_model(tmp_path)
    environ = {"HEADRACE_METRICS_PORT": str(port), "HEADRACE_HEALTH_FILE": str(file)}
    with (
        EmbeddedRedis("--appendfsync", "no") as server,
        Client(server.url) as client,
        redis.Redis.from_url(server.url) as admin,
        running_worker(
            "--include", "tests.support.hanging_process", url=server.url, models=models, folder=tmp_path, **environ
        ),
        create_celery_app(Settings(redis_url=server.url)) as app,
    ):
        wait_until(lambda: get(port, "/ready") == (200, "all is well\n"))
        pid = int(admin.info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: get(port, "/live")[1].endswith("which does not answer\n"))
            end = time.monotonic() + 12  # more than twice the seconds after which an event loop counts as hung
            while time.monotonic() < end:
                assert get(port, "/live")[0] == get(port, "/ready")[0] == 200
                time.sleep(0.2)
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: get(port, "/ready") == (200, "all is well\n"), 30)
        assert client.predict("doubling", [4, NOTHING, 0], timeout=20).prediction == 8

        app.control.broadcast("hang", arguments={"seconds": 14})
        wait_until(lambda: get(port, "/live")[0] == 503)
        assert "event loop has not turned" in get(port, "/ready")[1]
        wait_until(lambda: not msgspec.json.decode(file.read_bytes())["live"])
        wait_until(lambda: get(port, "/ready") == (200, "all is well\n"), 30)
        app.backend.client.connection_pool.disconnect()
