"""While a loop of a worker is dead or blocked, the worker is not ready, and a metric says so."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from headrace_worker.models.registry import Registry
from headrace_worker.telemetry import health as health_module
from headrace_worker.telemetry import metrics
from headrace_worker.telemetry.health import Health, HealthFile, HealthStatus
from headrace_worker.telemetry.http_server import HttpServer
from headrace_worker.telemetry.loops import LATE_SECONDS, LoopHealth
from headrace_worker.telemetry.metrics import MetricDelta
from headrace_worker.telemetry.metrics_collector import WorkerCollector, make_registry
from headrace_worker.telemetry.metrics_pipe import MetricsPipe
from headrace_worker.telemetry.pool_loops import PoolLoop
from tests.support.connections import free_port
from tests.support.fake_clock import FakeClock
from tests.support.waiting import wait_until

Fault = Callable[[], None]

ends_a_thread = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class FaultyHealth(Health):
    """The health of a worker, with a fault in the thread of its health file."""

    fault: Fault | None = None

    def status(self) -> HealthStatus:
        if self.fault is not None and threading.current_thread().name == "headrace-health":
            self.fault()
        return super().status()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def health(clock: FakeClock) -> FaultyHealth:
    health = FaultyHealth(clock)
    health.mark_connected()
    health.mark_ready()
    return health


@pytest.fixture
def pipe(health: Health) -> Iterator[MetricsPipe]:
    pipe = MetricsPipe(health.watch_loop("metrics", late_after=LATE_SECONDS))
    yield pipe
    pipe.close()


class ThreadFault:
    """A fault of a thread: it blocks until `release`, or it ends."""

    def __init__(self) -> None:
        self.reached, self._released = threading.Event(), threading.Event()

    def block(self) -> None:
        self.reached.set()
        assert self._released.wait(20)

    def kill(self) -> None:
        self.reached.set()
        raise SystemExit

    def release(self) -> None:
        self._released.set()


@pytest.fixture
def fault() -> Iterator[ThreadFault]:
    fault = ThreadFault()
    yield fault
    fault.release()


def shown(health: Health, loop: str) -> float | None:
    """Return the metric of a loop, as Prometheus reads it."""
    pipe = cast("MetricsPipe", _NoDeltas())
    registry = make_registry(WorkerCollector(pipe, cast("Registry", _NoModels()), health, tuple))
    return registry.get_sample_value("headrace_loop_up", {"loop": loop})


class _NoDeltas:
    def totals(self, seed: MetricDelta) -> MetricDelta:
        return seed


class _NoModels:
    def models(self) -> list[str]:
        return []


def assert_blocked_until_released(health: Health, loop: str, fault: ThreadFault, clock: FakeClock) -> None:
    assert fault.reached.wait(10)
    assert (health.status().ready, shown(health, loop)) == (True, 1)
    clock.advance(121)
    assert not health.status().ready
    assert f"the loop `{loop}`" in health.status().reason
    assert shown(health, loop) == 0
    fault.release()
    wait_until(lambda: health.status().ready, 10)
    assert shown(health, loop) == 1


def assert_dead(health: Health, loop: str) -> None:
    wait_until(lambda: not health.status().ready, 10)
    assert health.status().reason == f"the loop `{loop}` has ended; restart this process"
    assert shown(health, loop) == 0


def send_delta(pipe: MetricsPipe) -> None:
    """Send a delta as a pool process does."""
    child = os.fork()
    if not child:
        delta = MetricDelta(counters={}, histograms={})
        delta.add(metrics.RETRIES, ("m",))
        pipe.send(delta)
        os._exit(0)
    os.waitpid(child, 0)


def break_merge(pipe: MetricsPipe, monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    totals = pipe._totals
    broken: Any = type("Broken", (), {"merge": lambda _, delta: (fault(), totals.merge(delta))})()
    monkeypatch.setattr(pipe, "_totals", broken)


def test_a_blocked_metrics_pipe(
    health: Health, pipe: MetricsPipe, fault: ThreadFault, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_merge(pipe, monkeypatch, fault.block)
    send_delta(pipe)
    assert_blocked_until_released(health, "metrics", fault, clock)


@ends_a_thread
def test_a_dead_metrics_pipe(
    health: Health, pipe: MetricsPipe, fault: ThreadFault, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_merge(pipe, monkeypatch, fault.kill)
    send_delta(pipe)
    assert_dead(health, "metrics")


def test_bytes_that_are_no_delta_do_not_end_the_metrics_pipe(health: Health, pipe: MetricsPipe) -> None:
    for message in (b"\xff", b"{", b""):
        pipe._writer.send(message)
    send_delta(pipe)
    wait_until(lambda: pipe.totals().counters == {(metrics.RETRIES.name, ("m",)): 1}, 10)
    assert health.status().ready


@pytest.fixture
def server(health: Health) -> Iterator[HttpServer]:
    loop = health.watch_loop("http", late_after=LATE_SECONDS)
    server = HttpServer("127.0.0.1", free_port(), CollectorRegistry(), health.status, loop)
    yield server
    server.close()


def connect(server: HttpServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5):
        pass


def test_a_blocked_http_server(
    health: Health, server: HttpServer, fault: ThreadFault, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server._server, "verify_request", lambda *_: fault.block())
    connect(server)
    assert_blocked_until_released(health, "http", fault, clock)


@ends_a_thread
def test_a_dead_http_server(
    health: Health, server: HttpServer, fault: ThreadFault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server._server, "process_request", lambda *_: fault.kill())
    connect(server)
    assert_dead(health, "http")


def test_an_http_server_whose_selector_fails_goes_on(
    health: Health, server: HttpServer, fault: ThreadFault, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        if not fault.reached.is_set():
            fault.reached.set()
            raise RuntimeError("a fault of the system")

    monkeypatch.setattr(server._server, "_handle_request_noblock", fail)
    connect(server)
    assert fault.reached.wait(10)
    monkeypatch.undo()
    wait_until(lambda: health.loops()[0].problem is None and health.loops()[0].age_seconds == 0, 10)
    assert health.status().ready


@pytest.fixture
def file(health: Health, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HealthFile]:
    monkeypatch.setattr(health_module, "WRITE_SECONDS", 0.01)
    file = HealthFile(str(tmp_path / "health"), health)
    file.start()
    wait_until(lambda: [loop.name for loop in health.loops()] == ["health-file"])
    yield file
    file.remove()


def test_a_blocked_health_file(
    health: FaultyHealth, file: HealthFile, fault: ThreadFault, clock: FakeClock
) -> None:
    health.fault = fault.block
    assert_blocked_until_released(health, "health-file", fault, clock)


@ends_a_thread
def test_a_dead_health_file(health: FaultyHealth, file: HealthFile, fault: ThreadFault) -> None:
    health.fault = fault.kill
    assert_dead(health, "health-file")


def test_a_loop_of_a_pool_process_is_late_while_its_process_lives(health: Health, clock: FakeClock) -> None:
    pids: list[int] = []
    loop = PoolLoop("prediction-log", late_after=120, pids=lambda: pids, clock=clock)
    health.add_loop(loop)
    assert shown(health, "prediction-log") is None
    child = os.fork()
    if not child:  # a pool process with work that it never does
        loop.work_clock().mark(waiting=True)
        os._exit(0)
    os.waitpid(child, 0)
    clock.advance(121)
    assert health.status().ready
    pids.append(child)
    assert health.status().reason == (
        "the loop `prediction-log` of a pool process has done nothing for 121 s, and work waits"
    )
    assert shown(health, "prediction-log") == 0
    pids.clear()
    assert health.status().ready


def test_the_rounds_of_a_loop_without_a_pause_that_all_fail_do_not_take_a_processor(clock: FakeClock) -> None:
    loop, stop, rounds = LoopHealth("metrics", late_after=60, clock=clock), threading.Event(), []

    def fail() -> None:
        rounds.append(len(rounds))
        raise OSError

    thread = threading.Thread(target=loop.run_rounds, args=(fail, stop, 0))
    thread.start()
    stop.wait(0.5)
    stop.set()
    thread.join()
    assert 1 <= len(rounds) <= 6
