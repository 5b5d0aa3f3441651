"""Limits of `:batch`: size, time, runs at once, and callers who hang up."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest
import redis

from headrace.catalog.published import publish_contract
from headrace.wire.queues import BATCH_PRIORITY, priority_index
from headrace_worker.store.store import Store
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.served_worker import KEYS, Site, own, server
from tests.support.upload import Upload
from tests.support.waiting import wait_until

__all__ = ["own", "server"]  # fixtures

URL = "/v1/models/doubling:batch"
NDJSON = "Content-Type: application/x-ndjson"
LIMIT, SECONDS = 1_000_000, 3
LISTS = KEYS.lists("predict.doubling")


@pytest.fixture(scope="module")
def gateway(shared: Site) -> Iterator[RunningGateway]:
    """A gateway with low limits."""
    settings = {"HEADRACE_GATEWAY_BATCH_BYTES": str(LIMIT), "HEADRACE_GATEWAY_STREAM_TIMEOUT": str(SECONDS)}
    settings["HEADRACE_GATEWAY_BATCH_DUPLEX"] = "true"
    with running_gateway(shared.url, shared.folder, name="limited", **settings) as gateway:
        # The first file takes longer, until everything is imported.
        wait_until(lambda: httpx.post(gateway.url + URL, content=b"[1, 0, 0]\n", timeout=30).is_success)
        yield gateway


@pytest.fixture
def workerless(own: Site) -> Iterator[RunningGateway]:
    """A gateway of a model that no worker serves: its jobs wait."""
    with redis.Redis.from_url(own.url) as server:
        publish_contract(server, KEYS, Store(own.models).read_manifest("doubling", "1").contract)
    with running_gateway(own.url, own.folder, name="workerless", HEADRACE_GATEWAY_DRAIN="4") as gateway:
        yield gateway


def test_a_file_that_is_too_large_by_its_length_is_refused_before_it_is_read(gateway: RunningGateway) -> None:
    with gateway.client() as http:
        answer = http.post(URL, content=b"[1, 0, 0]\n" * (LIMIT // 10 + 1))
    assert answer.status_code == 413
    assert f"{LIMIT:,} bytes" in answer.json()["detail"]


def test_a_file_that_turns_out_too_large_is_refused_or_cut(gateway: RunningGateway) -> None:
    with Upload(gateway, NDJSON) as upload:
        upload.send(b"[1, 0, 0]\n")
        upload.read_until(b"2.0")
        for _ in range(11):
            upload.send(b" " * 100_000 + b"\n")
        answer = upload.read_all()
    assert b'"status":413' in answer
    assert not answer.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(("packing", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_small_packed_file_that_unpacks_to_too_much_is_refused(
    gateway: RunningGateway, packing: str, pack: Callable[[bytes], bytes]
) -> None:
    bomb = pack(b" " * 50_000_000)
    assert len(bomb) < LIMIT / 10
    with gateway.client() as http:
        assert http.post(URL, content=bomb, headers={"Content-Encoding": packing}).status_code == 413


def test_a_file_that_stops_to_arrive_is_a_408_or_cut(gateway: RunningGateway) -> None:
    with Upload(gateway, NDJSON) as upload:
        assert upload.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 408 ")
    with Upload(gateway, NDJSON) as upload:
        upload.send(b"[1, 0, 0]\n")
        answer = upload.read_all()
    assert b'"prediction":2.0' in answer
    assert b'"status":408' in answer
    assert not answer.endswith(b"0\r\n\r\n")


def test_a_slow_file_with_no_long_pause_arrives(gateway: RunningGateway) -> None:
    with Upload(gateway, NDJSON) as upload:
        for number in range(4):
            upload.send(b"[%d, 0, 0]\n" % number)
            upload.read_until(b"%.1f" % (2 * number))
        upload.send(b"")
        assert b'{"done":4,"failed":0}' in upload.read_until(b"0\r\n\r\n")


def test_jobs_of_a_file_wait_behind_all_others_and_are_cancelled_if_the_caller_hangs_up(
    workerless: RunningGateway, server: redis.Redis
) -> None:
    with Upload(workerless, NDJSON) as upload:
        upload.send(b"[1, 0, 0]\n" * 50)
        upload.send(b"")
        batch_list = LISTS[priority_index(BATCH_PRIORITY)]
        wait_until(lambda: server.llen(batch_list))
        assert [server.llen(name) for name in LISTS if name != batch_list] == [0, 0, 0]
        assert not list(server.scan_iter("celery-task-meta-*"))
    wait_until(lambda: list(server.scan_iter("celery-task-meta-*")))
    (key,) = server.scan_iter("celery-task-meta-*")
    assert b'"REVOKED"' in (server.get(key) or b"")


def test_a_gateway_that_ends_refuses_an_unfinished_file_within_its_drain_and_cancels_its_jobs(
    workerless: RunningGateway, server: redis.Redis
) -> None:
    with Upload(workerless, NDJSON) as upload:
        upload.send(b"[1, 0, 0]\n" * 50)
        upload.send(b"")
        wait_until(lambda: any(server.llen(name) for name in LISTS))
        workerless.child.process.terminate()
        answer = upload.read_all()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"/shutting-down" in answer
    assert workerless.child.process.wait(30) == 0
    (key,) = server.scan_iter("celery-task-meta-*")
    assert b'"REVOKED"' in (server.get(key) or b"")
    assert "Traceback" not in workerless.child.log.read_text()


def test_a_ninth_file_at_once_is_told_to_come_back(workerless: RunningGateway, server: redis.Redis) -> None:
    with workerless.client(timeout=30) as http:
        with ExitStack() as stack:
            uploads = [stack.enter_context(Upload(workerless, NDJSON)) for _ in range(8)]
            for upload in uploads:
                upload.send(b"[1, 0, 0]\n")
                upload.send(b"")
            wait_until(lambda: server.llen(LISTS[-1]) == 8)
            answer = http.post(URL, content=b"[1, 0, 0]\n")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        wait_until(lambda: _is_taken(http))


def _is_taken(http: httpx.Client) -> bool:
    """Return True if a file without rows to send is predicted: no run of others is in its way."""
    return http.post(URL, content=b'{"instance": 1}\n').status_code == 200
