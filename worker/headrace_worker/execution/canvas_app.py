"""A Celery app that builds what follows a job with Celery's own code, and sends nothing.

Celery's signatures publish their messages and prepare their chords on this app. What they would write to Redis is
recorded. It is written later, in one step (`transport/follow_up_scripts`).
"""

from __future__ import annotations

import contextlib
import functools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec
import redis
from celery import Celery, exceptions
from celery import _state as celery_state
from celery.app.amqp import AMQP, Queues
from celery.app.task import Context, Task
from celery.backends.base import SyncBackendMixin
from celery.backends.redis import RedisBackend
from kombu import Exchange, Queue
from kombu.transport import virtual
from kombu.utils.json import dumps

from headrace.errors import InvalidInput
from headrace.wire.keys import Keys
from headrace.wire.queues import TASK, priority_index
from headrace.wire.routing import route_job
from headrace.wire.signing import SIGNATURE_HEADER, JobKeys, SignedContent
from headrace_worker.transport.follow_up_scripts import CHORD_CLEANUP, CHORD_EXTEND, CHORD_PART
from headrace_worker.transport.message import CLAIM_TASK

#: Celery's record of the current app and task of a thread, which its signatures read. It has no public way to set
#: one and restore the former.
_STATE: Any = celery_state

#: Most messages that follow one job, and their bytes.
MAX_MESSAGES, MAX_MESSAGE_BYTES = 10_000, 64 * 1024 * 1024
#: Names of queues that hold tasks. Keys of Headrace and Celery, and parts of their names, are none.
_QUEUE_NAME = re.compile(r"(?!headrace[:.]|celery-task|unacked|_kombu)[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,199}")


class ChordPart(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a task in the header of a chord, to be added to the chord."""

    id: str
    root_id: str
    group: str
    group_index: int | None
    #: The body of the chord, in kombu's JSON, which has types for dates and bytes.
    chord: str
    #: Celery's state, and the result as Celery stores it.
    state: str
    result: Any


class Recording(msgspec.Struct, kw_only=True):
    """The writes that Celery's code asked for."""

    #: Pairs of the key of a list, and a message.
    messages: list[tuple[str, str]] = []
    #: Triples of a key, a text and the seconds for which it is kept, 0 for ever; and the keys to delete before.
    values: list[tuple[str, str, int]] = []
    deleted: list[str] = []
    #: Pairs of the id of a task that can no longer run, and the failure to store for it.
    failures: list[tuple[str, str]] = []
    chord_parts: list[ChordPart] = []
    bytes: int = 0

    def add_message(self, key: str, message: str) -> None:
        """Record a message. Raises InvalidInput beyond the limits."""
        self.bytes += len(message)
        if len(self.messages) >= MAX_MESSAGES or self.bytes > MAX_MESSAGE_BYTES:
            raise InvalidInput(
                f"more follows the job than {MAX_MESSAGES:,} messages, or {MAX_MESSAGE_BYTES:,} bytes of them; "
                "let one task start the others"
            )
        self.messages.append((key, message))


class _Channel(virtual.Channel):  # type: ignore[misc]  # kombu's stubs leave it out
    """A channel that hands each message over. A queue is a list in Redis, which needs no declaration."""

    do_restore = False
    supports_fanout = False

    def basic_publish(self, message: Any, exchange: str, routing_key: str, **_: Any) -> None:
        if exchange:
            raise InvalidInput(f"a task that follows the job names the exchange {exchange!r:.80}; name its queue")
        self._inplace_augment_message(message, exchange, routing_key)
        self.connection.client.transport_options["put"](routing_key, message)

    def _has_queue(self, *_: Any, **__: Any) -> bool:
        return True

    def _new_queue(self, *_: Any, **__: Any) -> None:
        pass


class RecordingTransport(virtual.Transport):  # type: ignore[misc]  # as above
    """The transport of the app."""

    Channel = _Channel
    global_state = virtual.BrokerState()
    driver_type = driver_name = "headrace-recorder"


class _UndeclaredQueues(Queues):
    """Queues that are not kept: a worker may send to any number of them in its life."""

    def __missing__(self, name: str) -> Queue:
        return Queue(name, Exchange(""), routing_key=name, auto_delete=True)


class _AMQP(AMQP):
    queues_cls = _UndeclaredQueues


class RecordingBackend(SyncBackendMixin, RedisBackend):  # type: ignore[misc]  # Celery's stubs leave it out
    """Celery's Redis backend, on the worker's own connection. While there is a recording, it writes nothing."""

    app: CanvasApp
    _chord_part_return_script = CHORD_PART
    _chord_claim_extend_script = CHORD_EXTEND
    _chord_cleanup_script = CHORD_CLEANUP

    @property
    def client(self) -> redis.Redis:
        """The worker's client."""
        return self.app.connect()

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do not wait for the results of tasks that follow."""

    def on_chord_part_return(self, request: Any, state: str, result: Any, propagate: Any = None, **_: Any) -> None:
        """Add the result of a task to its chord."""
        recording = self.app.recording
        if recording is None:
            super().on_chord_part_return(request, state, result, propagate)
        elif request.group and request.id:
            chord_part = ChordPart(
                id=request.id,
                root_id=request.root_id or request.id,
                group=request.group,
                group_index=request.group_index,
                chord=dumps(request.chord),
                state=state,
                result=self.encode_result(result, state),
            )
            recording.chord_parts.append(chord_part)

    def exception_to_python(self, exc: Any) -> Any:
        """Keep the module of an exception whose class this process does not have, for the failures it causes."""
        error = super().exception_to_python(exc)
        module = exc.get("exc_module") if isinstance(exc, dict) else None
        created = type(error)
        if isinstance(module, str) and created.__module__ == exceptions.__name__ != module:
            created.__module__ = module  # Celery has made the class for this exception alone
        return error

    def get_state(self, task_id: str) -> str:
        """Celery asks so as not to add a part to a chord twice, which adding it does not do anyway."""
        return "PENDING" if self.app.recording is not None else super().get_state(task_id)

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Store the number of tasks in the header of a chord."""
        recording = self.app.recording
        if recording is None:
            super().set_chord_size(group_id, chord_size)
            return
        recording.deleted.append(self.get_key_for_group(group_id, ".c").decode())
        self._set_chord_key(self.get_key_for_group(group_id, ".s"), chord_size)

    def _set_chord_key(self, key: bytes, value: Any) -> Any:
        recording = self.app.recording
        if recording is None:
            return super()._set_chord_key(key, value)
        text = value.decode() if isinstance(value, bytes) else str(value)
        recording.values.append((key.decode(), text, int(self.chord_expires or 0)))
        return None

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **_: Any
    ) -> Any:
        """Store the failure of a task that can no longer run."""
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        failure = self.encode({**meta, "task_id": task_id, "failed_by": self.app.failed_by})
        self.app.store_failure(task_id, failure)
        return result


class _NoControl:
    """Remote control that reaches no worker. Celery revokes the tasks of a group that were never sent."""

    def revoke(self, *_: Any, **__: Any) -> None:
        """Do nothing."""


class _Predict(Task[Any, Any]):
    name = TASK


class CanvasApp(Celery):
    """The Celery app of the tasks that follow jobs. It has no tasks of its own, so it can run none.

    `connect` returns the worker's client of Redis. `queues` are patterns of the queues to which it may send.
    `store_failure` stores, outside of a recording, the failure of a task: its id, and the text of the result.
    """

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        keys: Keys,
        *,
        queues: Sequence[str],
        job_keys: JobKeys | None,
        ttl: int,
        store_failure: Callable[[str, str], None],
    ) -> None:
        classes: Any = {"amqp": _AMQP, "control": _NoControl}
        super().__init__("headrace-canvas", set_as_current=False, fixups=[], **classes)
        self.connect, self._keys, self._queues, self._job_keys = connect, keys, queues, job_keys
        self._store_failure = store_failure
        #: The writes of the block under `record`; None outside, where the backend writes to Redis.
        self.recording: Recording | None = None
        #: The job whose failure is stored for the tasks that can no longer run.
        self.failed_by = ""
        #: True while what follows a job with a verified signature is sent: messages to models are signed too.
        self._sign = False
        self.conf.update(
            broker_url="localhost",
            broker_transport=f"{__name__}:RecordingTransport",
            broker_transport_options={"put": self._put},
            result_backend=f"{__name__}:RecordingBackend",
            result_backend_transport_options=({"global_keyprefix": keys.prefix} if keys.prefix else {})
            | {"retry_policy": {"max_retries": 1}},
            result_expires=ttl,
            task_serializer="json",
            result_serializer="json",
            accept_content=["json"],
            result_accept_content=["json"],
            task_publish_retry=False,
            task_routes=(route_job,),
        )
        self.finalize()
        self._predict = _Predict()
        self._predict.bind(self)

    @functools.cached_property
    def backend(self) -> RecordingBackend:
        """The backend, one for all threads: a process uses this app in one thread."""
        return RecordingBackend(app=self)

    @property
    def current_request(self) -> Context:
        """The request of the job of `record`; its children are the tasks that were sent."""
        request: Context = self._predict.request
        return request

    @contextlib.contextmanager
    def as_current(self, request: Context, *, sign: bool) -> Iterator[None]:
        """Make this app, and the job of `request`, the ones that Celery's code takes for the current ones.

        With `sign`, messages to models are signed.
        """
        self.tasks.clear()  # a module that was imported since may have shared tasks with every app
        previous = _STATE._tls.current_app  # noqa: SLF001  # see _STATE
        self._sign, self.failed_by = sign, request.id or ""
        _STATE._set_current_app(self)  # noqa: SLF001  # as above
        self._predict.push_request(**vars(request))
        _STATE.push_current_task(self._predict)
        try:
            yield
        finally:
            _STATE.pop_current_task()
            self._predict.pop_request()
            _STATE._set_current_app(previous)  # noqa: SLF001  # as above

    @contextlib.contextmanager
    def record(self, request: Context, *, sign: bool) -> Iterator[Recording]:
        """Record what Celery's code writes in this block."""
        self.recording = Recording()
        try:
            with self.as_current(request, sign=sign):
                yield self.recording
        finally:
            self.recording = None

    def store_failure(self, task_id: str, failure: str) -> None:
        """Record or store the failure of a task that can no longer run."""
        if self.recording is not None:
            self.recording.failures.append((task_id, failure))
        else:
            self._store_failure(task_id, failure)

    def _put(self, queue: str, message: dict[str, Any]) -> None:
        """Handle a message that Celery's code publishes. Raises InvalidInput if the worker may not send it."""
        headers = message["headers"]
        if not _QUEUE_NAME.fullmatch(queue) or not any(fnmatchcase(queue, name) for name in self._queues):
            raise InvalidInput(
                f"a task that follows the job is for the queue {queue!r:.80}, to which workers may not send; "
                "HEADRACE_CALLBACK_QUEUES names the queues"
            )
        if headers["task"] == CLAIM_TASK or message["content-type"] != "application/json":
            raise InvalidInput("a task that follows the job is Headrace's own, or its message is not JSON")
        if self._sign and self._job_keys and headers["task"] == TASK:
            content = SignedContent(
                job=headers["id"],
                queue=queue,
                reply_to=message["properties"].get("reply_to") or "",
                eta=headers["eta"],
                expires=headers["expires"],
                body=message["body"].encode(),
            )
            headers[SIGNATURE_HEADER] = self._job_keys.sign(content, time.time()).decode()
        priority = message["properties"].get("priority")
        index = priority_index(min(max(priority, 0), 9)) if isinstance(priority, int) else 0
        key, text = self._keys.lists(queue)[index], dumps(message)
        if self.recording is not None:
            self.recording.add_message(key, text)
        else:
            self.connect().lpush(key, text)
