"""An overview of queues, workers, rates and dead letters at one moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec
import redis
from redis.exceptions import ResponseError

from headrace.client import Session
from headrace.clock import utc_now
from headrace.connection.commands import Command, Operation
from headrace.connection.connect import connect
from headrace.errors import BrokerUnavailable
from headrace.inspection.locate import is_not_permitted
from headrace.inspection.oldest import decode_reports, read_reports
from headrace.inspection.queues import QueueDepth, read_queues
from headrace.monitor.activity import Activity, ErrorCount, ModelActivity, WorkerActivity
from headrace.settings import Settings

#: Seconds of one wait for a message: the delay of Ctrl-C.
_POLL_SECONDS = 0.25


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """The state of an installation at one moment."""

    #: The moment, unix time in seconds.
    unix_seconds: float
    queues: tuple[QueueDepth, ...]
    #: Seconds that the oldest waiting job has waited, by model.
    oldest_wait_seconds: dict[str, float]
    #: None where this user may not listen to events.
    models: tuple[ModelActivity, ...] | None
    workers: tuple[WorkerActivity, ...]
    errors: tuple[ErrorCount, ...]
    #: None where this user may not count dead letters.
    dead_letters: int | None


class Monitor:
    """Listens to the events of workers, and reads queues. A context manager.

    `clock` is a monotonic clock in seconds.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._session = Session(settings, check=False)
        self._keys = self._session.keys
        self._redis = connect(settings)
        self._pubsub: Any = None
        self._may_listen = True
        self.activity = Activity(clock())

    def listen(self, until: float) -> None:
        """Count the events of workers until a moment of the clock."""
        while (remaining := until - self._clock()) > 0:
            if not self._may_listen:
                time.sleep(remaining)
                return
            try:
                self._receive(min(remaining, _POLL_SECONDS))
            except redis.RedisError as error:
                self._unsubscribe()
                if isinstance(error, ResponseError) and is_not_permitted(error):
                    self._may_listen = False
                    continue
                time.sleep(min(remaining, _POLL_SECONDS))  # Redis is unavailable, which `read` will raise

    def read(self) -> Overview:
        """Read the present overview. Raises BrokerUnavailable."""
        now = self._clock()
        queues = self._session.run(read_queues(self._keys))
        return Overview(
            unix_seconds=time.time(),
            queues=tuple(queues),
            oldest_wait_seconds=self._read_oldest_waits(queues),
            models=tuple(self.activity.models(now)) if self._may_listen else None,
            workers=tuple(self.activity.workers(now)),
            errors=tuple(self.activity.errors(now)),
            dead_letters=self._run_if_permitted(Command(("ZCARD", self._keys.dead_times))),
        )

    def _receive(self, timeout: float) -> None:
        if self._pubsub is None:
            database = self._redis.connection_pool.connection_kwargs.get("db", 0)
            self._pubsub = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py gives it no types
            # The channels of Celery's events of jobs and workers, as kombu names them.
            self._pubsub.psubscribe(f"{self._keys.prefix}/{database}.celeryev/*")
        message = self._pubsub.get_message(timeout=timeout)
        if message is not None:
            self.activity.record(message["data"], self._clock())

    def _unsubscribe(self) -> None:
        if self._pubsub is not None:
            self._pubsub.close()
        self._pubsub = None

    def _read_oldest_waits(self, queues: Sequence[QueueDepth]) -> dict[str, float]:
        reports = self._run_if_permitted(read_reports(self._keys))
        if reports is None:
            return {}
        waiting = {queue.model: queue.waiting for queue in queues}
        waits = decode_reports(reports, waiting, utc_now().timestamp())
        return {model: seconds for model, seconds in waits.items() if waiting[model]}

    def _run_if_permitted(self, command: Command) -> Any:
        """Return the reply to a command, None where this user may not run it."""
        try:
            return self._session.run(_send(command))
        except BrokerUnavailable as error:
            if isinstance(error.__cause__, ResponseError) and is_not_permitted(error.__cause__):
                return None
            raise

    def close(self) -> None:
        """Close the connections."""
        self._unsubscribe()
        self._session.close()
        self._redis.close()
        self._redis.connection_pool.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _send(command: Command) -> Operation[Any]:
    return (yield command)
