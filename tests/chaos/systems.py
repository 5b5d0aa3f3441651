"""The two systems under test, Headrace and stock Celery as the control, and their differences."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import redis

from headrace.connection.commands import execute, run
from headrace.inspection import queues
from headrace.submit import enqueue
from headrace.wire.keys import Keys
from headrace.wire.queues import queue_name
from headrace_worker.transport import claim_script, publish_script
from tests.chaos import model, stock

#: Keys that both may leave: outcomes, and kombu's bindings for remote control and events.
_COMMON_KEYS = ("celery-task-meta-*", "_kombu.binding*")


class WorkerProcess(Protocol):
    """A worker, by the id of its main process."""

    @property
    def pid(self) -> int: ...


#: Keys that Headrace may leave.
_EXPECTED_KEYS = (
    *_COMMON_KEYS,
    "headrace:id:*",
    "headrace:contracts:*",
    "headrace:models",
    "headrace:cancelled",
    "headrace:dead*",
    "headrace:oldest",
    "headrace:changes",
    "headrace:notify:endpoints",
    # Runs and their receipts expire.
    "headrace:runs",
    "headrace:run:*",
    "headrace:receipts:*",
    # The locks of the worker that keeps the queues and of the one that watches them, tokens, and the status of
    # workers expire after their end.
    "headrace:keeper:*",
    "headrace:watch:*",
    "headrace:tokens:*",
    "headrace:workers",
    "headrace:loaded:*",
    "headrace:refused:*",
)


class System(Protocol):
    """A job queue on Redis with workers."""

    name: str
    title: str
    #: Bytes that identify a request that claims jobs, publishes outcomes, or submits jobs.
    claim_marker: bytes
    publish_marker: bytes
    submit_marker: bytes

    def argv(self, name: str) -> list[str]: ...

    def environ(self, url: str, models: Path, ready: Path, lease: float) -> dict[str, str]: ...

    def waiting(self, server: redis.Redis) -> int:
        """Return the number of jobs that wait, are delayed, or are held by a worker."""

    def leftovers(self, server: redis.Redis) -> list[str]:
        """Return the keys that should not exist when all jobs have their outcomes."""

    def held(self, server: redis.Redis, worker: WorkerProcess) -> list[bytes]:
        """Return the messages that a worker has claimed, by the records in Redis."""


class Headrace:
    """Headrace, with a key prefix."""

    name, title = "headrace", "Headrace"
    claim_marker = claim_script.CLAIM.digest.encode()
    publish_marker = publish_script.PUBLISH.digest.encode()
    submit_marker = enqueue.ENQUEUE.digest.encode()

    _queues = tuple(map(queue_name, (model.MODEL, model.SINGLE_MODEL)))

    def __init__(self, prefix: str = "") -> None:
        self._keys = Keys(prefix)
        self._expected_keys = tuple(prefix + key for key in _EXPECTED_KEYS)

    def argv(self, name: str) -> list[str]:
        return ["celery", "-A", "headrace_worker", "worker", "--concurrency", "2", "--hostname", f"{name}@chaos"]

    def environ(self, url: str, models: Path, ready: Path, lease: float) -> dict[str, str]:
        return {
            "HEADRACE_REDIS_URL": url,
            "HEADRACE_MODELS": str(models),
            "HEADRACE_READY_FILE": str(ready),
            "HEADRACE_TRUST_PICKLE": "true",
            "HEADRACE_LEASE": f"{lease:g}",
        }

    def waiting(self, server: redis.Redis) -> int:
        with server.pipeline(transaction=False) as pipe:
            for queue in self._queues:
                for key in self._keys.sources(queue):
                    pipe.llen(key)
                pipe.zcard(self._keys.delayed(queue))
            lengths = sum(pipe.execute())
        return lengths + len(run(partial(execute, server), queues.read_leases(self._keys)))

    def leftovers(self, server: redis.Redis) -> list[str]:
        # The empty lease of a worker that was killed while it waited goes when it has been seen twice.
        expected = (
            self._expected_keys
            if run(partial(execute, server), queues.read_leases(self._keys))
            else (*self._expected_keys, self._keys.leases, self._keys.grace("*"))
        )
        # A string in place of the list of an ended lease refuses a late BLMOVE for an hour. It holds no job.
        fences = [key for key in server.scan_iter(self._keys.lease("*")) if server.type(key) == b"string"]
        return _unexpected_keys(server, (*expected, *(key.decode() for key in fences)))

    def held(self, server: redis.Redis, worker: WorkerProcess) -> list[bytes]:
        messages: list[bytes] = []
        for member in _members(server.zrange(self._keys.leases, 0, -1)):
            if f"/{worker.pid}/".encode() in member:
                messages += _members(server.lrange(self._keys.lease(member.decode().split("#")[0]), 0, -1))
        return messages


class Stock:
    """Stock Celery."""

    name, title = "celery", "stock Celery"
    claim_marker, publish_marker, submit_marker = b"BRPOP", b"SETEX", b"LPUSH"
    _lists = Keys().lists(stock.QUEUE)

    def argv(self, name: str) -> list[str]:
        return ["celery", "-A", "tests.chaos.stock", "worker", "--concurrency", "2", "--hostname", f"{name}@chaos"]

    def environ(self, url: str, models: Path, ready: Path, lease: float) -> dict[str, str]:
        return {stock.URL: url, stock.READY: str(ready), stock.TIMEOUT: f"{lease:g}"}

    def waiting(self, server: redis.Redis) -> int:
        with server.pipeline(transaction=False) as pipe:
            for key in self._lists:
                pipe.llen(key)
            pipe.hlen("unacked")
            return sum(pipe.execute())

    def leftovers(self, server: redis.Redis) -> list[str]:
        return _unexpected_keys(server, (*_COMMON_KEYS, "unacked_mutex"))

    def held(self, server: redis.Redis, worker: WorkerProcess) -> list[bytes]:
        return []  # its records do not name the worker


SYSTEMS: Mapping[str, System] = {"headrace": Headrace(), "celery": Stock()}


def _unexpected_keys(server: redis.Redis, expected: tuple[str, ...]) -> list[str]:
    keys = (key.decode(errors="replace") for key in server.scan_iter(count=1000))
    return sorted(key for key in keys if not any(fnmatch.fnmatchcase(key, pattern) for pattern in expected))


def _members(reply: Any) -> list[bytes]:
    return list(reply)


def read_all_values(server: redis.Redis, excluded: tuple[str, ...]) -> bytes:
    """Return all values of lists, hashes and sorted sets, joined, except of keys with these prefixes."""
    values: list[bytes] = []
    for key in server.scan_iter(count=1000):
        if key.decode(errors="replace").startswith(excluded):
            continue
        kind = server.type(key)
        if kind == b"list":
            values += _members(server.lrange(key, 0, -1))
        elif kind == b"hash":
            values += _members(server.hvals(key))
        elif kind == b"zset":
            values += _members(server.zrange(key, 0, -1))
    return b"\n".join(values)
