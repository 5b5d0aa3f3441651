"""Real worker processes, real models, a real Redis: what happens to claims when anything goes wrong."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from headrace import Client, JobHandle, Settings
from headrace.connection.celery import create_celery_app
from headrace.errors import JobFailed
from headrace.wire.dead_letter import DeadLetter, decode_letter
from headrace.wire.keys import Keys
from headrace_worker.local.demo_models import add_demo_models, write_instances
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.store.store import Store
from headrace_worker.telemetry import events as telemetry_events
from headrace_worker.transport.notifications import POLL_EVERY
from tests.support.claim_models import AWAY, KILL, NOTHING, SLEEP, add, held, serving
from tests.support.crash_points import STEPS
from tests.support.waiting import wait_until

#: Seconds a lease lasts in these tests.
LEASE = 2
KEYS = Keys()
#: The deaths that are tried each time; the others are for a long run.
_QUICK = {("predicted", "self"), ("published", "all"), ("claimed", "self"), ("publishing", "main")}


class Served(msgspec.Struct, frozen=True):
    """A Redis, a store, and where workers write."""

    redis: EmbeddedRedis
    models: Path
    folder: Path
    demo: dict[str, Any]
    #: Process id of the worker that serves it, and the number of the next row: rows are told apart by it.
    pid: int = 0
    numbers: Any = None

    @property
    def url(self) -> str:
        return self.redis.url

    def rows(self, count: int, do: int = NOTHING, seconds: float = 0) -> list[list[float]]:
        """Rows no other test has."""
        return [[next(self.numbers), do, seconds] for _ in range(count)]

    def batches(self, rows: list[list[float]]) -> list[list[int]]:
        """The predict calls that had any of these rows, by their numbers."""
        calls = self.folder / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        ours = {int(row[0]) for row in rows}
        return [batch for line in lines if ours & set(batch := [int(word) for word in line.split()])]

    def running(self, rows: list[list[float]]) -> None:
        """Return when the first of the rows is being predicted."""
        wait_until(lambda: self.batches(rows[:1]))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("store")
    add(folder, "doubling", max_batch_instances=64)
    add(folder, "single", max_batch_instances=1)
    add(folder, "patient", max_batch_instances=64, max_attempts=100, retry_delay=0.1, retry_delay_max=0.3)
    add(folder, "hasty", max_batch_instances=64, max_attempts=2, retry_delay=0)
    return folder / "models", add_demo_models(Store(folder / "models"))


@pytest.fixture(scope="module")
def served(store: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A worker that all tests share which leave it whole."""
    folder = tmp_path_factory.mktemp("worker")
    with (
        EmbeddedRedis("--appendfsync", "no") as own,
        serving(url=own.url, models=store[0], folder=folder, HEADRACE_LEASE=str(LEASE)) as worker,
    ):
        yield Served(own, store[0], folder, store[1], worker.process.pid, itertools.count(100))


@pytest.fixture
def alone(store: tuple[Path, dict[str, Any]], tmp_path: Path) -> Iterator[Served]:
    """A Redis of the test's own, with no worker yet."""
    with EmbeddedRedis() as own:
        yield Served(own, store[0], tmp_path, store[1], numbers=itertools.count(100))


def starting(where: Served, *options: str, name: str = "worker", **more: str) -> Any:
    """A worker of the test's own."""
    more = {"HEADRACE_LEASE": str(LEASE), **more}
    return serving(*options, url=where.url, models=where.models, folder=where.folder, name=name, **more)


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    where = request.getfixturevalue("alone" if "alone" in request.fixturenames else "served")
    with Client(where.url, check=False) as client:
        yield client


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    where = request.getfixturevalue("alone" if "alone" in request.fixturenames else "served")
    with redis.Redis.from_url(where.url) as server:
        yield server


def ends(jobs: Iterable[JobHandle], seconds: float = 30) -> list[str]:
    """How each job ends: its first prediction, or the reason it has none."""
    told = []
    for job in jobs:
        try:
            told.append(str(job.result(timeout=seconds).prediction))
        except JobFailed as failed:
            told.append(failed.reason)
    return told


def doubled(rows: list[list[float]]) -> list[str]:
    return [str(2.0 * row[0]) for row in rows]


def waiting(server: redis.Redis, model: str = "doubling") -> int:
    return sum(server.llen(key) for key in KEYS.lists(f"predict.{model}"))


def is_clean(server: redis.Redis) -> bool:
    """Nothing waits and nothing is leased."""
    kept = ("predict.*", "headrace:lease:*", "headrace:isolated:*", "headrace:delayed:*")
    return not held(server) and not any(list(server.scan_iter(pattern)) for pattern in kept)


def letter_of(server: redis.Redis, job: JobHandle) -> DeadLetter:
    """The dead letter of a job."""
    line = server.hget(KEYS.dead, job.id)
    assert line
    return decode_letter(job.id, line, 0)


def leases_of(server: redis.Redis, pid: int) -> list[bytes]:
    return [member for member in server.zrange(KEYS.leases, 0, -1) if f"/{pid}/".encode() in member]


# --- right answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_every_outcome_equals_the_estimator_alone(
    served: Served, client: Client, server: redis.Redis, tmp_path: Path, count: int
) -> None:
    chance = random.Random(7)
    asked: list[tuple[JobHandle, list[Any]]] = []
    while len(asked) < count:
        name, method = chance.choice(list(served.demo)), chance.choice(["predict", "predict_proba"])
        trained, size = served.demo[name][1], chance.choice([1, 1, 2, 30])
        at = [chance.randrange(len(trained.unseen)) for _ in range(size)]
        table = trained.unseen.iloc[at] if hasattr(trained.unseen, "iloc") else trained.unseen[at]
        write_instances(table, tmp_path / "instances.json")
        instances = json.loads((tmp_path / "instances.json").read_text())
        expected = getattr(trained.estimator, method)(table).tolist()
        options = {"priority": chance.choice([0, 3, 9]), "method": method}
        if size == 1:
            asked += [(job, expected) for job in client.submit_many(name, instances * 40, **options)]
        else:
            asked += [(client.submit(name, instances=instances, **options), expected) for _ in range(4)]
    for job, expected in asked:
        assert job.result(timeout=60).predictions == _near(expected)
    wait_until(lambda: is_clean(server))


def _near(expected: list[Any]) -> Any:
    """Batches of another size add floats up in another order."""
    return expected if isinstance(expected[0], str) else [pytest.approx(one, rel=1e-9) for one in expected]


# --- lost processes ------------------------------------------------------------------------------------


def test_a_killed_pool_process_costs_no_job_and_its_batch_runs_alone(
    served: Served, client: Client, server: redis.Redis
) -> None:
    first = served.rows(1, SLEEP, 0.5)
    rows = first + served.rows(9, SLEEP, 0.1)
    jobs = client.submit_many("doubling", rows)
    served.running(first)
    for child in Path(f"/proc/{served.pid}/task/{served.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    assert ends(jobs) == doubled(rows)
    wait_until(lambda: is_clean(server))
    together, *apart = served.batches(rows)
    assert len(together) == 10
    assert all(len(batch) == 1 for batch in apart)


def test_a_job_that_kills_its_process_dies_of_its_attempts_and_harms_no_other(
    served: Served, client: Client, server: redis.Redis
) -> None:
    guilty, others = served.rows(1, KILL), served.rows(9)
    jobs = client.submit_many("doubling", [*others[:5], *guilty, *others[5:]])
    assert ends(jobs) == [*doubled(others[:5]), "crash", *doubled(others[5:])]
    wait_until(lambda: is_clean(server))
    assert len(served.batches(guilty)) == 3
    died = letter_of(server, jobs[5])
    assert died.reason == "crash"
    assert [(one.cause, one.claim_size) for one in died.attempts] == [("crash", 10), ("crash", 1), ("crash", 1)]
    assert all(str(served.pid) in one.owner for one in died.attempts)


def test_the_jobs_of_a_killed_worker_run_elsewhere_in_time(
    served: Served, client: Client, server: redis.Redis
) -> None:
    with starting(served, name="doomed") as doomed:
        rows = served.rows(300, SLEEP, 0.03)
        jobs = client.submit_many("doubling", rows)
        held = wait_until(lambda: leases_of(server, doomed.process.pid))
        os.killpg(doomed.process.pid, signal.SIGKILL)
        held = leases_of(server, doomed.process.pid)
        began = time.monotonic()
        wait_until(lambda: not leases_of(server, doomed.process.pid))
        assert not held or time.monotonic() - began < LEASE + 2
    assert ends(jobs, 60) == doubled(rows)
    wait_until(lambda: is_clean(server))


def test_a_long_job_keeps_its_lease_and_runs_once(served: Served, client: Client, server: redis.Redis) -> None:
    rows = served.rows(1, SLEEP, 1.7 * LEASE)
    assert ends(client.submit_many("doubling", rows)) == doubled(rows)
    assert len(served.batches(rows)) == 1
    wait_until(lambda: is_clean(server))


@pytest.mark.parametrize(
    ("step", "whom"),
    [
        pytest.param(step, whom, marks=[] if (step, whom) in _QUICK else pytest.mark.long)
        for step in STEPS
        for whom in ("self", "main", "all")
    ],
)
def test_a_death_at_any_step_costs_no_job_and_publishes_none_twice(
    alone: Served, client: Client, server: redis.Redis, step: str, whom: str
) -> None:
    rows = alone.rows(5)
    died = alone.folder / "died"
    hook = {"CRASH_AT": step, "CRASH_WHOM": whom, "CRASH_FILE": str(died)}
    with starting(alone, "--include", "tests.support.crash_points", **hook) as worker, server.pubsub() as heard:
        heard.psubscribe("celery-task-meta-*")
        jobs = client.submit_many("doubling", rows)
        wait_until(died.exists)
        ended = whom != "self" or step in {"claimed", "acknowledging"}
        if ended:
            worker.process.wait(20)
        with starting(alone, name="heir") if ended else contextlib.nullcontext():
            assert ends(jobs) == doubled(rows)
            wait_until(lambda: is_clean(server))
        announced = [one["channel"] for one in iter(lambda: heard.get_message(timeout=0.2), None)]
    assert sorted(announced) == sorted([b"celery-task-meta-*", *(KEYS.result(job.id).encode() for job in jobs)])
    assert not server.exists(KEYS.dead)


# --- errors that pass -----------------------------------------------------------------------------------


def test_a_job_that_meets_a_transient_error_runs_again_until_it_has_passed(
    served: Served, client: Client, server: redis.Redis
) -> None:
    rows = served.rows(9)
    rows.insert(4, served.rows(1, AWAY, time.time() + 1.5)[0])
    jobs = client.submit_many("patient", rows)
    assert ends(jobs[:4] + jobs[5:]) == doubled(rows[:4] + rows[5:])
    wait_until(lambda: server.zcard(KEYS.delayed("predict.patient")))
    assert not jobs[4].done()
    assert ends(jobs[4:5]) == doubled(rows[4:5])
    wait_until(lambda: is_clean(server))
    assert server.hget(KEYS.dead, jobs[4].id) is None


def test_a_job_whose_error_does_not_pass_dies_of_its_attempts_and_says_which_error_it_was(
    served: Served, client: Client, server: redis.Redis
) -> None:
    rows = [*served.rows(3), *served.rows(1, AWAY, time.time() + 3600), *served.rows(3)]
    jobs = client.submit_many("hasty", rows)
    assert ends(jobs) == [*doubled(rows[:3]), "attempts exhausted", *doubled(rows[4:])]
    with pytest.raises(JobFailed, match="ConnectionResetError: the feature store is away"):
        jobs[3].result()
    died = letter_of(server, jobs[3])
    assert (died.error, died.module, died.worker) == ("ConnectionResetError", "builtins", "worker@test")
    assert died.traceback is not None
    assert [one.cause for one in died.attempts] == ["error:ConnectionResetError"] * 2
    wait_until(lambda: is_clean(server))


# --- being told to stop --------------------------------------------------------------------------------


def test_a_warm_stop_finishes_what_runs_and_leaves_the_rest_waiting(
    alone: Served, client: Client, server: redis.Redis
) -> None:
    rows = alone.rows(10, SLEEP, 0.7)
    with starting(alone) as worker:
        jobs = client.submit_many("single", rows)
        alone.running(rows)
        worker.process.terminate()
        worker.process.wait(20)
    done = [job for job in jobs if job.done()]
    assert 1 <= len(done) <= 4
    assert ends(done) == [doubled(rows)[jobs.index(job)] for job in done]
    assert waiting(server, "single") == 10 - len(done)
    assert server.exists(KEYS.leases, KEYS.isolated("predict.single")) == 0


@pytest.mark.parametrize(
    "signals", [[signal.SIGQUIT], pytest.param([signal.SIGINT, signal.SIGINT], marks=pytest.mark.long)]
)
def test_a_cold_stop_puts_back_at_once_what_runs_and_counts_no_attempt(
    alone: Served, client: Client, server: redis.Redis, signals: list[int]
) -> None:
    rows = alone.rows(3, SLEEP, 60)
    with starting(alone) as worker:
        jobs = client.submit_many("doubling", rows)
        alone.running(rows)
        for number in signals:
            time.sleep(0.3)
            worker.process.send_signal(number)
        worker.process.wait(20)
    assert not any(job.done() for job in jobs)
    assert waiting(server) == 3
    assert server.exists(KEYS.leases, KEYS.isolated("predict.doubling")) == 0


# --- cancelled, expired, delayed -----------------------------------------------------------------------


def test_a_job_cancelled_or_expired_while_it_waits_is_not_run(
    served: Served, client: Client, server: redis.Redis
) -> None:
    busy, (dropped, late, kept) = served.rows(2, SLEEP, 1), served.rows(3)
    jobs = client.submit_many("single", busy)
    served.running(busy[1:])
    cancelled = client.submit("single", dropped)
    jobs += [cancelled, client.submit("single", late, expires=0.2), client.submit("single", kept, expires=60)]
    assert cancelled.cancel()
    assert ends(jobs) == [*doubled(busy), "cancelled", "expired", *doubled([kept])]
    assert served.batches([dropped, late]) == []
    wait_until(lambda: is_clean(server))


def test_delayed_jobs_wait_in_redis_and_run_when_they_are_due(
    served: Served, client: Client, server: redis.Redis
) -> None:
    rows, began = served.rows(2), time.monotonic()
    jobs = client.submit_many("doubling", rows, delay=timedelta(seconds=1.5))
    wait_until(lambda: server.zcard(KEYS.delayed("predict.doubling")) == 2)
    wait_until(lambda: not held(server))
    assert ends(jobs) == doubled(rows)
    assert 1.4 < time.monotonic() - began < 6
    wait_until(lambda: is_clean(server))


# --- remote control ------------------------------------------------------------------------------------


def test_inspect_shows_claims_but_not_what_is_in_them_and_revoke_cancels_a_job(
    served: Served, client: Client, server: redis.Redis
) -> None:
    busy, rest = served.rows(2, SLEEP, 4), served.rows(3)
    jobs = client.submit_many("single", busy)
    served.running(busy[1:])
    jobs += client.submit_many("single", rest)
    with create_celery_app(Settings(redis_url=served.url)) as app:
        inspect = app.control.inspect(timeout=5, limit=1)
        assert inspect.ping() == {"worker@test": {"ok": "pong"}}
        (active,) = inspect.active().values()
        assert [(one["name"], one["args"]) for one in active] == [("headrace.claim", "single, 1 job")] * 2
        assert inspect.reserved() == {"worker@test": []}
        told = app.control.revoke(jobs[3].id, reply=True, timeout=5, limit=1)
        assert "cancelled" in json.dumps(told)
    expected = [*doubled(busy), *doubled(rest)]
    expected[3] = "cancelled"
    assert ends(jobs) == expected
    assert served.batches(rest[1:2]) == []
    wait_until(lambda: is_clean(server))


@pytest.mark.parametrize(
    "options",
    [
        ("--autoscale", "3,1"),
        ("--pool", "solo"),
        pytest.param(("--pool", "threads"), marks=pytest.mark.long),
    ],
)
def test_pools_of_every_kind_run_claims(
    alone: Served, client: Client, server: redis.Redis, options: tuple[str, ...]
) -> None:
    with starting(alone, *options):
        rows = alone.rows(40, SLEEP, 0.02) + alone.rows(1, SLEEP, 1.5 * LEASE)
        assert ends(client.submit_many("single", rows), 60) == doubled(rows)
        wait_until(lambda: is_clean(server))
    assert len(alone.batches(rows)) == len(rows)


# --- what is no job ------------------------------------------------------------------------------------


def test_bytes_that_are_no_job_are_kept_and_harm_nobody(
    served: Served, client: Client, server: redis.Redis
) -> None:
    garbage = [
        b"{not json",
        b"",
        b"\x00\xff\x01",
        b"\x01no newline",
        b"\x01crash,me,1;\nno job either",
        b"{}",
        b"[]",
        b"null",
        b'{"body": "e30=", "headers": {}, "properties": {}}',
        b'{"body": "W10=", "headers": {"task": "celery.shutdown"}, "properties": {}}',
        b"x" * 20_000_000,
        b"[" * 100_000,
    ]
    server.delete(KEYS.dead, KEYS.dead_messages, KEYS.dead_times)
    rows = served.rows(10)
    server.lpush("predict.doubling", *garbage)
    assert ends(client.submit_many("doubling", rows)) == doubled(rows)
    wait_until(lambda: is_clean(server))
    assert sorted(server.hvals(KEYS.dead_messages)) == sorted(garbage)
    assert {decode_letter("", line, 0).reason for line in server.hvals(KEYS.dead)} == {"malformed"}


# --- Redis goes away -----------------------------------------------------------------------------------


def test_a_redis_that_is_killed_under_load_costs_no_job(
    alone: Served, client: Client, server: redis.Redis
) -> None:
    rows = alone.rows(100, SLEEP, 0.05)
    with starting(alone) as worker:
        jobs = client.submit_many("single", rows)
        alone.running(rows)
        for _ in range(2):
            time.sleep(0.5)
            alone.redis.kill()
            time.sleep(0.5)
            alone.redis.start()
        assert ends(jobs, 60) == doubled(rows)
        assert worker.process.poll() is None
        wait_until(lambda: is_clean(server))


def test_connections_cut_again_and_again_cost_no_job_and_no_attempt(
    served: Served, client: Client, server: redis.Redis
) -> None:
    rows, mine = served.rows(80, SLEEP, 0.1), server.client_id()
    jobs = client.submit_many("single", rows)
    served.running(rows)
    for _ in range(4):
        for other in server.client_list():
            if int(other["id"]) != mine:
                server.client_kill_filter(_id=other["id"])
        time.sleep(1.5)
    assert ends(jobs, 60) == doubled(rows)
    wait_until(lambda: is_clean(server))


# --- events, waking -------------------------------------------------------------------------------------


def test_events_tell_of_every_job_of_a_batch(served: Served, client: Client) -> None:
    seen: dict[str, list[str]] = {}
    told = threading.Event()

    def note(event: dict[str, Any]) -> None:
        seen.setdefault(event.get("uuid", ""), []).append(event["type"])
        told.set()

    with create_celery_app(Settings(redis_url=served.url)) as app, app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": note})
        with receiver.consumer_context(wakeup=False) as (listening, _, _):
            # It subscribes when it first drains; events are made for those who listen.
            with contextlib.suppress(TimeoutError):
                listening.drain_events(timeout=0.1)
            # A worker that was busy with the test before believes for a moment that still nobody hears.
            time.sleep(1.5 * telemetry_events._SUBSCRIBERS_TTL_SECONDS)
            jobs = client.submit_many("doubling", served.rows(30))
            misfit = client.submit("doubling", [1])
            deadline = time.monotonic() + 20
            while not all(len(seen.get(job.id, [])) == 3 for job in [*jobs, misfit]):
                assert time.monotonic() < deadline, seen
                with contextlib.suppress(TimeoutError):
                    listening.drain_events(timeout=1)
    assert {tuple(seen[job.id]) for job in jobs} == {("task-received", "task-started", "task-succeeded")}
    assert seen[misfit.id] == ["task-received", "task-started", "task-failed"]


def test_an_idle_worker_is_woken_and_costs_nothing(served: Served, client: Client, server: redis.Redis) -> None:
    assert statistics.median(_round_trips(client, served)) < POLL_EVERY / 4
    before, began = _cpu(served.pid), time.monotonic()
    time.sleep(2)
    assert (_cpu(served.pid) - before) / (time.monotonic() - began) < 0.05
    # The listener is the connection with one subscription, to what Redis tells of changed keys.
    listeners = [one for one in server.client_list() if one["cmd"] == "subscribe" and one["sub"] == "1"]
    assert listeners
    for listener in listeners:
        server.client_kill_filter(_id=listener["id"])
    _round_trips(client, served)
    assert statistics.median(_round_trips(client, served)) < POLL_EVERY / 4


def _round_trips(client: Client, served: Served) -> list[float]:
    times = []
    for n in range(9):
        time.sleep(0.05 + 0.013 * n)  # at any moment of the poll
        began = time.monotonic()
        client.predict("doubling", served.rows(1)[0], timeout=20)
        times.append(time.monotonic() - began)
    return times


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
