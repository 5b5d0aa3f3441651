"""An overview of queues, workers, rates and dead letters at one moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
import redis
from redis.exceptions import ResponseError

from headrace.bulk.operations import list_runs
from headrace.client import Session
from headrace.clock import to_unix_ms, utc_now
from headrace.connection.commands import Command, Operation
from headrace.connection.connect import connect
from headrace.connection.server_time import READ_SERVER_TIME, decode_server_time
from headrace.errors import BrokerUnavailable
from headrace.inspection.locate import is_not_permitted
from headrace.inspection.notices import NoticeState, read_notices
from headrace.inspection.oldest import decode_reports, read_reports
from headrace.inspection.queues import QueueDepth, read_queues
from headrace.monitor.activity import WINDOW_SECONDS, Activity, ErrorCount, ModelActivity, WorkerActivity
from headrace.settings import Settings
from headrace.wire.bulk import RunProgress
from headrace.wire.keys import Keys

T = TypeVar("T")

#: Seconds of one wait for a message: the delay of Ctrl-C.
_POLL_SECONDS = 0.25
#: Milliseconds for which an ended run is shown.
_ENDED_RUN_MS = 5 * 60_000


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """The state of an installation at one moment."""

    #: The moment, unix time in seconds.
    unix_seconds: float
    queues: tuple[QueueDepth, ...]
    #: Seconds that the oldest waiting job has waited, by model; those of bulk runs do not count.
    oldest_wait_seconds: dict[str, float]
    #: None where this user may not listen to events.
    models: tuple[ModelActivity, ...] | None
    workers: tuple[WorkerActivity, ...]
    errors: tuple[ErrorCount, ...]
    #: The bulk runs that go on, and those that ended within the last minutes, the newest first; None where this
    #: user may not read them.
    runs: tuple[RunProgress, ...] | None = ()
    #: None where this user may not count dead letters.
    dead_letters: int | None
    #: None where this user may not read notices.
    notices: NoticeState | None = None


class Monitor:
    """Listens to the events of workers, and reads queues. A context manager.

    `clock` is a monotonic clock in seconds.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._session = Session(settings, check=False)
        #: The names of keys.
        self.keys = self._session.keys
        self._redis = connect(settings)
        self._pubsub: Any = None
        self._may_listen = True
        self.activity = Activity(clock())

    def restart(self, window: float = WINDOW_SECONDS) -> None:
        """Forget the events so far; rates and times are those of the last `window` seconds from now on."""
        self.activity = Activity(self._clock(), window)

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
        queues = self._session.run(read_queues(self.keys))
        return Overview(
            unix_seconds=time.time(),
            queues=tuple(queues),
            oldest_wait_seconds=self._read_oldest_waits(queues),
            models=tuple(self.activity.models(now)) if self._may_listen else None,
            workers=tuple(self.activity.workers(now)),
            errors=tuple(self.activity.errors(now)),
            runs=self._read_runs(),
            notices=self._run_if_permitted(_read_notices(self.keys)),
            dead_letters=self._run_if_permitted(_send(Command(("ZCARD", self.keys.dead_times)))),
        )

    def run(self, operation: Operation[T]) -> T:
        """Run an operation on this Redis and return its result. Raises BrokerUnavailable."""
        return self._session.run(operation)

    def _receive(self, timeout: float) -> None:
        if self._pubsub is None:
            database = self._redis.connection_pool.connection_kwargs.get("db", 0)
            self._pubsub = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py gives it no types
            # The channels of Celery's events of jobs and workers, as kombu names them.
            self._pubsub.psubscribe(f"{self.keys.prefix}/{database}.celeryev/*")
        message = self._pubsub.get_message(timeout=timeout)
        if message is not None:
            self.activity.record(message["data"], self._clock())

    def _unsubscribe(self) -> None:
        if self._pubsub is not None:
            self._pubsub.close()
        self._pubsub = None

    def _read_oldest_waits(self, queues: Sequence[QueueDepth]) -> dict[str, float]:
        reports = self._run_if_permitted(_send(read_reports(self.keys)))
        if reports is None:
            return {}
        waiting = {queue.model: queue.waiting for queue in queues if not queue.is_bulk}
        waits = decode_reports(reports, waiting, utc_now().timestamp())
        return {model: seconds for model, seconds in waits.items() if waiting[model]}

    def _read_runs(self) -> tuple[RunProgress, ...] | None:
        runs = self._run_if_permitted(list_runs(self.keys))
        return None if runs is None else tuple(select_current(runs, to_unix_ms(utc_now())))

    def _run_if_permitted(self, operation: Operation[T]) -> T | None:
        """Return the result of an operation, None where this user may not run a command of it."""
        try:
            return self._session.run(operation)
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


def select_current(runs: Iterable[RunProgress], now_ms: int) -> Iterator[RunProgress]:
    """Yield the runs that go on, and those that ended within the last minutes."""
    for run in runs:
        if run.ended_ms is None or now_ms - run.ended_ms < _ENDED_RUN_MS:
            yield run


def _read_notices(keys: Keys) -> Operation[NoticeState | None]:
    now_ms = decode_server_time((yield READ_SERVER_TIME))
    return (yield from read_notices(keys, now_ms))


def _send(command: Command) -> Operation[Any]:
    return (yield command)
