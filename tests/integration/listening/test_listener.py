"""A listener yields each ended job at least once: through errors, kills, restarts of Redis, and beside others."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from headrace import AsyncClient, BrokerUnavailable, Client, FinishedJob, InvalidInput
from headrace.client import listen_state
from headrace.client.listen_state import POLL_SECONDS
from headrace.results.listening import pause_ms
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support import ROOT
from tests.support.answering_worker import publish_outcomes, success
from tests.support.stored_entries import store_entry, stored_entries
from tests.support.waiting import wait_until, wait_until_async

KEYS = Keys()


@pytest.fixture
def client(redis_url: str):
    with Client(redis_url, check=False) as client:
        yield client


def end_jobs(server: redis.Redis, client: Client, count: int) -> set[str]:
    jobs = [job.id for job in client.submit_many("churn", [{"age": 41}] * count, listen="orders")]
    publish_outcomes(server, *map(success, jobs))
    return set(jobs)


def make_all_due(server: redis.Redis) -> None:
    """Let the claims and the pauses of all entries end at once."""
    for entry in stored_entries(server):
        if server.zrem(KEYS.listen_due, entry.encode()):
            store_entry(server, entry.job, name=entry.name, deliveries=entry.deliveries)


def fail_once(client: Client, error: Exception, max_deliveries: int = 8) -> FinishedJob:
    """Listen for a job, and fail to handle it. Return the job."""
    jobs: list[FinishedJob] = []

    def handle() -> None:
        with client.listen("orders", max_deliveries=max_deliveries) as listener:
            for job in listener:
                jobs.append(job)
                raise error

    with pytest.raises(type(error)):
        handle()
    return jobs[0]


@contextmanager
def in_thread(client: Client, name: str = "orders") -> Iterator[list[FinishedJob]]:
    """Listen in a thread for the time of the block, and return what is handled."""
    handled: list[FinishedJob] = []
    listener = client.listen(name)
    thread = threading.Thread(target=lambda: [handled.append(job) for job in listener])
    thread.start()
    try:
        yield handled
    finally:
        listener.stop()
        thread.join()


def test_a_message_wakes_an_idle_listener(server: redis.Redis, client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listen_state, "POLL_SECONDS", 3600)
    monkeypatch.setattr(listen_state, "SWEEP_SECONDS", 3600)
    server.config_resetstat()
    with in_thread(client) as handled:
        wait_until(lambda: server.pubsub_numsub(KEYS.listen_channel("orders"))[0][1])
        wait_until(lambda: calls(server)["claims"] >= 1)
        jobs = end_jobs(server, client, 5)
        wait_until(lambda: {job.id for job in handled} == jobs)
    assert not server.exists(KEYS.listen_due, KEYS.listen_open)


def test_a_listener_gets_what_ended_before_it_started(server: redis.Redis, client: Client):
    jobs = end_jobs(server, client, 300)
    handled = [job.id for job in client.listen("orders", idle=0)]
    assert (len(handled), set(handled)) == (300, jobs)
    assert not server.exists(KEYS.listen_due)


def test_an_error_in_the_block_lets_the_job_be_delivered_again(server: redis.Redis, client: Client):
    (job,) = end_jobs(server, client, 1)
    assert fail_once(client, ZeroDivisionError()).delivery == 1
    (entry,) = stored_entries(server)
    seconds, micros = server.time()
    assert (entry.job, entry.deliveries) == (job, 1)
    assert entry.due_ms - (1000 * seconds + micros // 1000) <= pause_ms(1)
    make_all_due(server)
    assert [(again.id, again.delivery) for again in client.listen("orders", idle=0)] == [(job, 2)]


def test_the_end_of_the_block_says_that_the_last_job_was_handled(server: redis.Redis, client: Client):
    jobs = end_jobs(server, client, 3)
    with client.listen("orders") as listener:
        first = next(listener)
        second = next(listener)
    assert {entry.job for entry in stored_entries(server)} == jobs - {first.id, second.id}
    assert [job.delivery for job in client.listen("orders", idle=0)] == [1], "what was not handed out is as before"


def test_a_job_that_is_never_handled_becomes_a_dead_letter_which_can_be_replayed(
    server: redis.Redis, client: Client
):
    (job,) = end_jobs(server, client, 1)
    for delivery in (1, 2, 3):
        make_all_due(server)
        assert fail_once(client, OSError("full"), max_deliveries=3).delivery == delivery
    assert stored_entries(server) == []
    letter = client.dead_letters.show(f"{job}.listen")
    assert (letter.queue, letter.job, letter.error, letter.runs) == ("headrace.listen", job, "OSError", 3)
    assert client.dead_letters.replay(queue="headrace.listen").done == 1
    assert [(again.id, again.delivery) for again in client.listen("orders", idle=0)] == [(job, 1)]
    assert not server.exists(KEYS.dead)


def test_a_job_that_ends_every_listener_becomes_a_dead_letter(server: redis.Redis, client: Client):
    store_entry(server, "poison", deliveries=8)
    store_entry(server, "good")
    assert [job.id for job in client.listen("orders", idle=0)] == ["good"]
    letter = client.dead_letters.show("poison.listen")
    assert (letter.error, letter.runs) == ("ListenerLost", 8)


def test_two_listeners_share_the_jobs(server: redis.Redis, client: Client):
    with in_thread(client) as first, in_thread(client) as second:
        jobs = end_jobs(server, client, 400)
        wait_until(lambda: len(first) + len(second) >= 400)
    handled = [job.id for job in (*first, *second)]
    assert (len(handled), set(handled)) == (400, jobs)


@contextmanager
def program(url: str, file: Path, seconds: float, *, lease: float = 1.0) -> Iterator[subprocess.Popen[bytes]]:
    arguments = ["-m", "tests.support.listening", url, str(file), str(seconds), str(lease)]
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def read(file: Path, word: str) -> list[str]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [line.split()[1] for line in lines if line.startswith(word)]


def test_a_killed_listener_loses_nothing(server: redis.Redis, client: Client, redis_url: str, tmp_path: Path):
    file = tmp_path / "handled"
    jobs = end_jobs(server, client, 150)
    with program(redis_url, file, 0.01) as process:
        wait_until(lambda: len(read(file, "end")) > 40)
        process.send_signal(signal.SIGKILL)
        process.wait()
    killed_at = len(read(file, "end"))
    assert killed_at < 150
    with program(redis_url, file, 0):  # its claims end after 2 s
        wait_until(lambda: not server.exists(KEYS.listen_due))
    handled = read(file, "end")
    assert set(handled) == jobs


def test_a_listener_that_is_told_to_stop_finishes_the_job_in_hand(
    server: redis.Redis, client: Client, redis_url: str, tmp_path: Path
):
    file = tmp_path / "handled"
    jobs = end_jobs(server, client, 20)
    with program(redis_url, file, 0.3, lease=600) as process:
        wait_until(lambda: len(read(file, "start")) > 3)
        process.terminate()
        assert process.wait(30) == 0
    handled = read(file, "end")
    assert handled == read(file, "start")
    entries = stored_entries(server)
    assert {entry.job for entry in entries} == jobs - set(handled)
    assert {entry.deliveries for entry in entries} == {0}


def test_a_redis_that_restarts_loses_nothing_and_the_listener_goes_on(tmp_path: Path):
    file = tmp_path / "handled"
    with (
        EmbeddedRedis("--appendonly", "yes", "--appendfsync", "always") as own,
        redis.Redis.from_url(own.url) as server,
        Client(own.url, check=False) as client,
    ):
        jobs = [job.id for job in client.submit_many("churn", [{"age": 41}] * 200, listen="orders")]
        with program(own.url, file, 0.002) as process:
            publish_outcomes(server, *map(success, jobs[:100]))
            wait_until(lambda: len(read(file, "end")) > 20)
            own.kill()
            own.start()
            publish_outcomes(server, *map(success, jobs[100:]))
            wait_until(lambda: not server.exists(KEYS.listen_due))
            assert process.poll() is None
    assert set(read(file, "end")) == set(jobs)


def test_a_listener_outlasts_a_redis_that_is_away_for_longer_than_a_command_may_take(
    caplog: pytest.LogCaptureFixture,
):
    with (
        EmbeddedRedis("--appendonly", "yes", "--appendfsync", "always") as own,
        redis.Redis.from_url(own.url) as server,
        Client(own.url, check=False) as client,
        Client(own.url, timeout=0.3) as impatient,
        in_thread(impatient) as handled,
    ):
        first = end_jobs(server, client, 1)
        wait_until(lambda: {job.id for job in handled} == first)
        own.kill()
        wait_until(lambda: "the listener of orders waits for Redis" in caplog.text)
        own.start()
        second = end_jobs(server, client, 1)
        wait_until(lambda: {job.id for job in handled} == first | second)


def calls(server: redis.Redis) -> dict[str, int]:
    """Return how often Redis ran commands: calls of functions and scripts, and all that clients sent."""
    stats = server.info("commandstats")
    by_name = {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items()}
    claims = sum(by_name.get(name, 0) for name in ("fcall", "evalsha", "eval"))
    return {"claims": claims, "all": server.info("stats")["total_commands_processed"]}


def test_an_idle_listener_costs_a_command_now_and_then(
    server: redis.Redis, client: Client, monkeypatch: pytest.MonkeyPatch
):
    from headrace.client.blocking import listener as module

    waits: list[float] = []
    listener = client.listen("orders")

    def wait(self: object, next_due: float | None) -> bool:
        """Wait in no time, and note for how long it would have been."""
        seconds = listener._state.wait_seconds(next_due, now[0])
        assert seconds is not None
        waits.append(seconds)
        now[0] += seconds
        if now[0] >= 60:
            listener.stop()
        return True

    now = [0.0]
    monkeypatch.setattr(module.Listener, "_wait", wait)
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    server.config_resetstat()
    assert list(listener) == []
    # A look each POLL_SECONDS, one page of the sweep, SUBSCRIBE, and what opens two connections.
    assert calls(server)["claims"] <= 60 / POLL_SECONDS + 1
    assert sum(waits) == 60


def test_a_job_without_listeners_costs_redis_no_command_more(server: redis.Redis, client: Client):
    def cost(**options: str) -> int:
        client.submit("churn", {"age": 41}, id="warm-up", **options)
        publish_outcomes(server, success("warm-up"))
        server.flushall()
        server.config_resetstat()
        client.submit("churn", {"age": 41}, id="a", **options)
        publish_outcomes(server, success("a"))
        stats = server.info("commandstats")
        return sum(entry["calls"] for name, entry in stats.items() if name not in {"cmdstat_config|resetstat"})

    # SET, EXISTS (twice), LLEN, LPUSH and the call; EXISTS, SET, EXPIRE, PUBLISH and the call; and INFO.
    assert cost() <= 13
    assert cost(listen="orders") > cost()


def test_a_user_whom_redis_refuses_gets_an_error(server: redis.Redis, redis_url: str):
    server.acl_setuser("nobody", enabled=True, passwords=["+secret"], commands=["+ping", "+select"])
    url = redis_url.replace("redis://", "redis://nobody:secret@") if "unix" not in redis_url else None
    try:
        if url is None:
            pytest.skip("a server on a socket has no URL with a user")
        with Client(url, check=False) as refused, pytest.raises(BrokerUnavailable, match="does not permit"):
            next(refused.listen("orders"))
    finally:
        server.acl_deluser("nobody")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"lease": 0.5}, "`lease` is the seconds"),
        ({"lease": None}, "`lease` is the seconds"),
        ({"max_deliveries": 0}, "`max_deliveries` is an integer above 0"),
        ({"idle": -1}, "`idle` is negative"),
    ],
)
def test_bad_arguments_are_refused(client: Client, arguments: dict[str, float], problem: str):
    with pytest.raises(InvalidInput, match=problem):
        client.listen("orders", **arguments)


def test_an_asyncio_listener_gets_jobs_and_is_stopped(server: redis.Redis, client: Client, redis_url: str):
    handled: list[str] = []

    async def listen() -> None:
        async with AsyncClient(redis_url, check=False) as other, other.listen("orders") as listener:

            async def handle() -> None:
                async for job in listener:
                    handled.append(job.id)

            task = asyncio.create_task(handle())
            await wait_until_async(lambda: server.pubsub_numsub(KEYS.listen_channel("orders"))[0][1])
            jobs = await asyncio.to_thread(end_jobs, server, client, 70)
            await wait_until_async(lambda: set(handled) == jobs)
            listener.stop()
            await task

    asyncio.run(listen())
    assert len(handled) == 70
    assert not server.exists(KEYS.listen_due)


def test_an_asyncio_listener_that_is_cancelled_lets_the_job_be_delivered_again(
    server: redis.Redis, client: Client, redis_url: str
):
    (job,) = end_jobs(server, client, 1)
    started = threading.Event()

    async def handle() -> None:
        async with AsyncClient(redis_url, check=False) as other, other.listen("orders") as listener:
            async for _ in listener:
                started.set()
                await asyncio.sleep(60)

    async def listen() -> None:
        task = asyncio.create_task(handle())
        await wait_until_async(started.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(listen())
    make_all_due(server)
    assert [(again.id, again.delivery) for again in client.listen("orders", idle=0)] == [(job, 2)]
