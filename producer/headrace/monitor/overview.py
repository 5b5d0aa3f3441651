"""Queues, workers, rates and dead letters at one moment: what `headrace top` shows."""

from __future__ import annotations

import time
from collections.abc import Callable
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
from headrace.inspection import queues as depth
from headrace.inspection.locate import is_not_permitted
from headrace.inspection.queues import QueueDepth
from headrace.monitor.activity import Activity, ErrorCount, ModelActivity, WorkerActivity
from headrace.settings import Settings
from headrace.wire.keys import Keys

#: Seconds a message is waited for, so that Ctrl-C is heard soon.
_EAR = 0.25


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be seen at one moment."""

    #: Unix seconds.
    unix_seconds: float
    queues: tuple[QueueDepth, ...]
    #: Seconds that the job which waits longest has waited, by model.
    oldest_wait_seconds: dict[str, float]
    #: None where events may not be listened to.
    models: tuple[ModelActivity, ...] | None
    workers: tuple[WorkerActivity, ...]
    errors: tuple[ErrorCount, ...]
    #: None where dead letters may not be counted.
    dead_letters: int | None


class Monitor:
    """Listens to the events of workers, and looks at queues. A context manager. Raises BrokerUnavailable."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._link = Session(settings, check=False)
        self._redis = connect(settings)
        self._pubsub: Any = None
        self._deaf = False
        self.activity = Activity(clock())

    def listen(self, until: float) -> None:
        """Count what workers tell until that moment of the clock."""
        while (left := until - self._clock()) > 0:
            if self._deaf:
                time.sleep(left)
                return
            try:
                self._hear(min(left, _EAR))
            except redis.RedisError as error:
                self._drop()
                if isinstance(error, ResponseError) and is_not_permitted(error):
                    self._deaf = True
                    continue
                time.sleep(min(left, _EAR))  # Redis is away: to look at the queues says so

    def read(self) -> Overview:
        """What is to be seen now."""
        now = self._clock()
        queues = self._link.run(depth.read_queues(self._link.keys))
        return Overview(
            unix_seconds=time.time(),
            queues=tuple(queues),
            oldest_wait_seconds=self._waits([one.model for one in queues]),
            models=None if self._deaf else tuple(self.activity.models(now)),
            workers=tuple(self.activity.workers(now)),
            errors=tuple(self.activity.errors(now)),
            dead_letters=self._dead_letters(),
        )

    def _hear(self, seconds: float) -> None:
        if self._pubsub is None:
            database = self._redis.connection_pool.connection_kwargs.get("db", 0)
            prefix = Keys(self._settings.key_prefix).prefix
            self._pubsub = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py gives it no types
            # Celery's events of jobs and of workers; kombu's way to name their channels.
            self._pubsub.psubscribe(f"{prefix}/{database}.celeryev/*")
        if (heard := self._pubsub.get_message(timeout=seconds)) is not None:
            self.activity.record(heard["data"], self._clock())

    def _drop(self) -> None:
        if self._pubsub is not None:
            self._pubsub.close()
        self._pubsub = None

    def _waits(self, models: list[str]) -> dict[str, float]:
        if not models:
            return {}
        ids = self._permitted(lambda: self._link.run(_ask(depth.next_jobs_command(self._link.keys, models))))
        return {} if ids is None else depth.oldest_waits(models, ids, utc_now().timestamp())

    def _dead_letters(self) -> int | None:
        count = self._permitted(lambda: self._link.run(_ask(Command(("ZCARD", self._link.keys.dead_times)))))
        return None if count is None else int(count)

    def _permitted(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except BrokerUnavailable as error:
            if isinstance(error.__cause__, ResponseError) and is_not_permitted(error.__cause__):
                return None
            raise

    def close(self) -> None:
        """Close the connections."""
        self._drop()
        self._link.close()
        self._redis.close()
        self._redis.connection_pool.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _ask(command: Command) -> Operation[Any]:
    return (yield command)
