"""Tests of `headrace doctor` with real servers, and of the check a worker makes of its Redis when it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import redis

from headrace.connection.commands import execute, run
from headrace.connection.connect import connect
from headrace.connection.server_info import ServerInfo, read_server_info
from headrace.doctor.redis import check_redis
from headrace.settings import Settings
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.claim_models import add_model, running_worker
from tests.support.connections import free_port
from tests.support.redis_servers import SERVERS, find_server
from tests.support.waiting import wait_until

EVICTS = ("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")


def doctor(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace.cli", "doctor", "--url", url, *options],
        capture_output=True,
        text=True,
        timeout=60,
    )


def read_info(url: str) -> ServerInfo:
    with connect(Settings(redis_url=url)) as client:
        return run(partial(execute, client), read_server_info())


@pytest.fixture(scope="module")
def evicting() -> Iterator[str]:
    """Start a Redis that may delete jobs when its memory is full."""
    with EmbeddedRedis(*EVICTS) as server:
        yield server.url


@pytest.mark.parametrize("name", SERVERS)
def test_every_supported_server_has_no_findings_when_well_configured(name: str):
    with EmbeddedRedis(server=find_server(name)) as server:
        info = read_info(server.url)
        assert check_redis(info) == []
    assert info.name.startswith("Valkey 9." if name == "valkey" else "Redis ")
    assert info.version >= ((7, 2, 4) if name == "valkey" else (6, 2))
    assert info.has_append_only_file
    assert info.latency_ms is not None
    assert info.latency_ms < 1000
    assert info.clock_offset is not None
    assert abs(info.clock_offset) < 1


@pytest.mark.parametrize("name", SERVERS)
def test_a_replica_is_recognised_and_counted(name: str):
    binary = find_server(name)
    with EmbeddedRedis("--repl-diskless-sync-delay", "0", server=binary) as primary:
        with EmbeddedRedis("--replicaof", "127.0.0.1", str(primary.port), server=binary) as replica:
            wait_until(lambda: read_info(primary.url).replicas == 1)
            (finding,) = check_redis(read_info(replica.url))
            assert (finding.severity, finding.subject) == ("critical", "role")
            assert f"127.0.0.1:{primary.port}" in finding.fix
            replica.kill()  # a replica that writes its first file after a copy ignores SIGTERM
        with redis.Redis.from_url(primary.url) as client:
            client.config_set("min-replicas-to-write", 1)
        wait_until(lambda: read_info(primary.url).replicas == 0)
        assert check_redis(read_info(primary.url))[0].severity == "error"


def test_the_doctor_prints_a_fix_and_finds_no_error_after_it(evicting: str):
    before = doctor(evicting)
    assert before.returncode == 1
    assert "redis: critical: maxmemory-policy is allkeys-lru, should be noeviction" in before.stdout
    assert "CONFIG SET maxmemory-policy noeviction" in before.stdout
    assert "CONFIG REWRITE" in before.stderr
    assert "1 error found: a guarantee does not hold" in before.stderr
    with redis.Redis.from_url(evicting) as client:
        client.config_set("maxmemory-policy", "noeviction")
        after = doctor(evicting)
        client.config_set("maxmemory-policy", "allkeys-lru")
    assert after.returncode == 0, after.stdout
    assert "redis:" not in after.stdout
    assert "no errors found" in after.stderr


def test_json_is_one_object_a_finding(evicting: str):
    findings = [json.loads(line) for line in doctor(evicting, "--json").stdout.splitlines()]
    (finding,) = [finding for finding in findings if finding["check"] == "redis"]
    assert set(finding) == {"check", "severity", "subject", "actual", "expected", "reason", "fix"}
    assert (finding["severity"], finding["actual"]) == ("critical", "allkeys-lru")


def test_a_user_without_config_get_still_gets_the_findings_from_info(evicting: str):
    with redis.Redis.from_url(evicting) as admin:
        admin.acl_setuser("someone", enabled=True, nopass=True, commands=["+ping", "+info", "+time", "+select"])
        admin.acl_setuser("missing", enabled=True, nopass=True, commands=["+ping", "+select"])
    someone = doctor(evicting.replace("redis://", "redis://someone:x@"))
    assert someone.returncode == 1
    assert "maxmemory-policy" in someone.stdout
    assert "redis: unknown: CONFIG GET is missing on this server, or not permitted" in someone.stdout
    missing = doctor(evicting.replace("redis://", "redis://missing:x@"))
    assert missing.returncode == 0
    assert "redis: unknown: INFO is missing on this server, or not permitted" in missing.stdout


def test_an_unreachable_redis_is_one_line():
    result = doctor(f"redis://:hunter2@127.0.0.1:{free_port()}/0")
    assert (result.returncode, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1
    assert "hunter2" not in result.stderr


def test_the_checks_of_an_installed_worker_run_too(redis_url: str, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HEADRACE_MODELS", str(tmp_path))
    empty = doctor(redis_url)
    assert "worker: warning: HEADRACE_MODELS" in empty.stdout
    monkeypatch.setenv("HEADRACE_MODELS", str(add_model(tmp_path)))
    assert "worker:" not in doctor(redis_url).stdout


def test_a_worker_warns_of_a_redis_that_deletes_jobs_unless_the_check_is_off(evicting: str, tmp_path: Path):
    models = add_model(tmp_path)
    with running_worker(url=evicting, models=models, folder=tmp_path) as worker:
        assert "critical: maxmemory-policy is allkeys-lru" in worker.log.read_text()
    with running_worker(
        url=evicting, models=models, folder=tmp_path, name="quiet", HEADRACE_REDIS_CHECK="off"
    ) as worker:
        assert "maxmemory-policy" not in worker.log.read_text()


def test_a_worker_set_to_refuse_does_not_start_and_names_the_reason(evicting: str, tmp_path: Path):
    result = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "headrace_worker", "worker", "--concurrency", "1"],
        env={
            **os.environ,
            "HEADRACE_REDIS_URL": evicting,
            "HEADRACE_MODELS": str(tmp_path),
            "HEADRACE_REDIS_CHECK": "refuse",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert "HEADRACE_REDIS_CHECK is refuse: maxmemory-policy is allkeys-lru" in result.stderr
    assert "Traceback" not in result.stderr
