"""`headrace worker` and `celery -A headrace_worker worker` both serve, and report an error in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace import Client
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child
from headrace_worker.store.store import Store
from tests.support.constant_models import add_constant
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

HEADRACE = ("headrace.cli", "worker")
CELERY = ("celery", "-A", "headrace_worker", "worker")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a model that always predicts 4."""
    folder = tmp_path_factory.mktemp("stack")
    add_constant(Store(folder / "models"), folder, "four", 4.0)
    return folder / "models"


def run(*command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=90,
    )


INVALID = [
    ({"HEADRACE_CLAIM_JOBS": "x"}, "HEADRACE_CLAIM_JOBS cannot be used: expected `int`"),
    ({"HEADRACE_TIME_LIMIT": "0"}, "HEADRACE_TIME_LIMIT cannot be used: expected `float` > 0.0"),
    ({"HEADRACE_DRAIN": "nan"}, "HEADRACE_DRAIN cannot be used: expected `float` >= 0.0"),
    ({"HEADRACE_MEMORY_LIMIT": "-1"}, "HEADRACE_MEMORY_LIMIT cannot be used: expected `int` >= 0"),
    ({"HEADRACE_LEASE": "0"}, "HEADRACE_LEASE cannot be used: expected `float` >= 1.0"),
    ({"HEADRACE_REDIS_URL": "http://somewhere"}, "the Redis URL must begin with redis://"),
    ({"HEADRACE_REDIS_URL": "redis://:pass/word@h:port/0"}, "the Redis URL has no usable host and port"),
    ({"HEADRACE_REDIS_URL_FILE": "/nowhere"}, "HEADRACE_REDIS_URL_FILE names /nowhere, which cannot be read"),
    ({"HEADRACE_MODELS": "/dev/null"}, "the model store /dev/null is not a folder; see HEADRACE_MODELS"),
    ({"HEADRACE_SERVE": "fuor"}, "no model 'fuor' in "),
]


def assert_is_one_sentence(done: subprocess.CompletedProcess[str], message: str) -> None:
    assert done.returncode == 1
    assert done.stderr.startswith(f"headrace: {message}")
    assert done.stderr.count("\n") == 1
    assert "word" not in done.stderr.replace("password", "").replace("HEADRACE", "")


@pytest.mark.parametrize(("settings", "message"), INVALID)
def test_an_invalid_setting_is_reported_in_one_sentence(models: Path, settings: dict[str, str], message: str):
    assert_is_one_sentence(run(*HEADRACE, **{"HEADRACE_MODELS": str(models), **settings}), message)


@pytest.mark.parametrize(("settings", "message"), [INVALID[2]])
def test_celery_reports_the_same_sentence(models: Path, settings: dict[str, str], message: str):
    assert_is_one_sentence(run(*CELERY, **{"HEADRACE_MODELS": str(models), **settings}), message)


@pytest.mark.parametrize(("settings", "message"), [INVALID[0], INVALID[2]])
def test_flower_reports_the_same_sentence(settings: dict[str, str], message: str):
    assert_is_one_sentence(run("headrace.cli", "flower", "--port", "0", **settings), message)


@pytest.mark.parametrize("option", ["--pool=gevent", "-Peventlet"])
def test_a_pool_that_does_not_work_is_refused_before_celery_imports_it(models: Path, option: str):
    done = run(*HEADRACE, option, HEADRACE_MODELS=str(models))
    assert_is_one_sentence(done, "a worker does not run on Celery's pool ")
    assert "--pool is prefork" in done.stderr


def test_celery_refuses_such_a_pool_in_the_same_sentence(models: Path):
    # A pool of somebody's own: gevent and eventlet need not be installed for the test.
    settings = {"CELERY_CUSTOM_WORKER_POOL": "celery.concurrency.base:BasePool", "HEADRACE_MODELS": str(models)}
    done = run(*CELERY, "--pool", "custom", **settings)
    assert_is_one_sentence(done, "a worker does not run on Celery's pool 'base'")


def test_a_wrong_password_is_reported_in_one_sentence(models: Path):
    with EmbeddedRedis("--requirepass", "sesame") as redis:
        url = redis.url.replace("//", "//:simsalabim@")
        done = run(*HEADRACE, "--store", str(models), "--url", url)
    assert_is_one_sentence(done, f"Redis at 127.0.0.1:{redis.port} refuses the user or password; check HEADRACE")
    assert "simsalabim" not in done.stderr


def test_a_memory_limit_below_the_models_own_memory_is_refused(models: Path):
    with EmbeddedRedis("--appendfsync", "no") as redis:
        done = run(*HEADRACE, "--store", str(models), "--url", redis.url, "--memory-limit", "50000000")
    assert done.returncode == 1
    assert "headrace: HEADRACE_MEMORY_LIMIT cannot be used: with its models loaded, a process uses" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_waits_for_a_redis_that_is_down_and_serves_when_it_starts(models: Path, tmp_path: Path):
    redis = EmbeddedRedis("--appendfsync", "no")
    worker = Child(
        "worker",
        [*HEADRACE, "--url", redis.url, "--store", str(models), "--concurrency", "1"],
        {},
        tmp_path / "worker.log",
    )
    try:
        message = wait_until(worker.log.read_text)
        assert message.startswith(f"headrace: Redis at 127.0.0.1:{redis.port} cannot be reached")
        wait_until(lambda: "waiting for it" in worker.log.read_text())
        wait_until(lambda: worker.log.read_text().count("Waiting for it") == 1)
        redis.start()
        with Client(redis.url, check=False) as client:
            assert client.predict("four", [1.0], timeout=45).prediction == 4
        assert "Traceback" not in worker.log.read_text()
    finally:
        worker.stop()
        redis.stop()


def test_plain_celery_runs_the_same_worker(models: Path, tmp_path: Path):
    with EmbeddedRedis("--appendfsync", "no") as redis:
        worker = Child(
            "worker",
            [*CELERY, "--concurrency", "1", "--loglevel", "INFO"],
            {"HEADRACE_REDIS_URL": redis.url, "HEADRACE_MODELS": str(models)},
            tmp_path / "worker.log",
        )
        try:
            with Client(redis.url, check=False) as client:
                assert client.predict("four", [1.0], timeout=45).prediction == 4
                assert client.models() == ["four"]
        finally:
            worker.stop()
    assert worker.process.returncode == 0
    log = worker.log.read_text()
    assert "serving four@1" in log
    assert "Traceback" not in log


def test_on_a_terminal_a_worker_shows_the_steps_of_its_start_and_jobs_as_they_end(models: Path):
    with EmbeddedRedis() as redis:
        options = ("--store", str(models), "--url", redis.url, "--concurrency", "1")
        with Terminal("worker", *options) as terminal:
            shown = terminal.read(until=" ready.", seconds=90)
            with Client(redis.url) as client:
                client.predict("four", [1.0], timeout=30)
            shown = terminal.read(until="four@1: 1 instance, success, ")
    first, *_ = shown.splitlines()
    assert first == f"headrace: starting a worker for the models of {models}, with Redis at 127.0.0.1:{redis.port}"
    assert shown.index(f"loading the models of {models}") < shown.index("loaded 1 version in ")
