"""`headrace doctor` against real servers, and the look a worker takes at its Redis when it starts."""

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

from headrace.connection import connect
from headrace.connection.commands import execute, run
from headrace.connection.server_info import ServerInfo, read_server_info
from headrace.doctor.redis import findings
from headrace.settings import Settings
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.claim_models import add, serving
from tests.support.connections import free_port
from tests.support.redis_servers import SERVERS, find
from tests.support.waiting import wait_until

EVICTS = ("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")


def doctor(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace.cli", "doctor", "--url", url, *options],
        capture_output=True,
        text=True,
        timeout=60,
    )


def told(url: str) -> ServerInfo:
    with connect.connect(Settings(redis_url=url)) as client:
        return run(partial(execute, client), read_server_info())


@pytest.fixture(scope="module")
def evicting() -> Iterator[str]:
    """A Redis that may throw jobs away."""
    with EmbeddedRedis(*EVICTS) as server:
        yield server.url


@pytest.mark.parametrize("name", SERVERS)
def test_every_supported_server_passes_when_it_is_set_as_it_should_be(name: str):
    with EmbeddedRedis(server=find(name)) as server:
        facts = told(server.url)
        assert findings(facts) == []
    assert facts.version >= (6, 2)
    assert facts.keeps_file
    assert facts.latency is not None
    assert facts.latency < 1000
    assert facts.clock is not None
    assert abs(facts.clock) < 1


@pytest.mark.parametrize("name", SERVERS)
def test_a_replica_is_known_and_counted(name: str):
    binary = find(name)
    with EmbeddedRedis("--repl-diskless-sync-delay", "0", server=binary) as primary:
        with EmbeddedRedis("--replicaof", "127.0.0.1", str(primary.port), server=binary) as replica:
            wait_until(lambda: told(primary.url).replicas == 1)
            (found,) = findings(told(replica.url))
            assert (found.level, found.directive) == ("stops", "role")
            assert f"127.0.0.1:{primary.port}" in found.fix
            replica.kill()  # asked to end, one that writes its first file after a copy does not
        with redis.Redis.from_url(primary.url) as client:
            client.config_set("min-replicas-to-write", 1)
        wait_until(lambda: told(primary.url).replicas == 0)
        assert findings(told(primary.url))[0].level == "breaks"


def test_the_doctor_says_what_is_wrong_and_what_to_set_and_then_that_it_is_well(evicting: str):
    ill = doctor(evicting)
    assert ill.returncode == 1
    assert "redis: STOPS JOBS: maxmemory-policy is allkeys-lru, should be noeviction" in ill.stdout
    assert "CONFIG SET maxmemory-policy noeviction" in ill.stdout
    assert "CONFIG REWRITE" in ill.stderr
    with redis.Redis.from_url(evicting) as client:
        client.config_set("maxmemory-policy", "noeviction")
        well = doctor(evicting)
        client.config_set("maxmemory-policy", "allkeys-lru")
    assert well.returncode == 0, well.stdout
    assert "redis:" not in well.stdout
    assert "all that is promised is kept" in well.stderr


def test_json_is_one_object_a_finding(evicting: str):
    shown = doctor(evicting, "--json")
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    (found,) = [row for row in rows if row["subject"] == "redis"]
    assert set(found) == {"subject", "level", "directive", "found", "wanted", "why", "do"}
    assert (found["level"], found["found"]) == ("stops", "allkeys-lru")


def test_a_user_without_config_still_hears_what_info_says(evicting: str):
    with redis.Redis.from_url(evicting) as admin:
        admin.acl_setuser("someone", enabled=True, nopass=True, commands=["+ping", "+info", "+time", "+select"])
        admin.acl_setuser("nobody", enabled=True, nopass=True, commands=["+ping", "+select"])
    someone = doctor(evicting.replace("redis://", "redis://someone:x@"))
    assert someone.returncode == 1
    assert "maxmemory-policy" in someone.stdout
    assert "redis: cannot be told: CONFIG GET is not permitted" in someone.stdout
    nobody = doctor(evicting.replace("redis://", "redis://nobody:x@"))
    assert nobody.returncode == 0
    assert "redis: cannot be told: INFO is not permitted" in nobody.stdout


def test_a_redis_that_is_away_is_one_line():
    shown = doctor(f"redis://:hunter2@127.0.0.1:{free_port()}/0")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert len(shown.stderr.splitlines()) == 1
    assert "hunter2" not in shown.stderr


def test_the_workers_side_is_looked_at_where_it_is_installed(redis_url: str, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HEADRACE_MODELS", str(tmp_path))
    empty = doctor(redis_url)
    assert "worker: mind: HEADRACE_MODELS" in empty.stdout
    monkeypatch.setenv("HEADRACE_MODELS", str(add(tmp_path)))
    assert "worker:" not in doctor(redis_url).stdout


def test_a_worker_warns_of_a_redis_that_loses_jobs_and_keeps_quiet_if_told_so(evicting: str, tmp_path: Path):
    models = add(tmp_path)
    with serving(url=evicting, models=models, folder=tmp_path) as worker:
        assert "maxmemory-policy is allkeys-lru" in worker.log.read_text()
    with serving(url=evicting, models=models, folder=tmp_path, name="quiet", HEADRACE_REDIS_CHECK="off") as worker:
        assert "maxmemory-policy" not in worker.log.read_text()


def test_a_worker_told_to_refuse_does_not_start_and_says_why(evicting: str, tmp_path: Path):
    ended = subprocess.run(
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
    assert ended.returncode == 1
    assert "HEADRACE_REDIS_CHECK is refuse: maxmemory-policy is allkeys-lru" in ended.stderr
    assert "Traceback" not in ended.stderr
