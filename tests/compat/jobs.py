"""A Headrace model that does what tasks of Celery's tests do, and the translation of those tasks into jobs.

The pure tasks of Celery's `t/integration/tasks.py` become jobs of the model `calls`, wherever a message for one is
sent: by the tests, by their Celery worker, and by the Headrace worker for what follows a job. The result of a job
is turned back into that of the task where it is read, and before it is the argument of another task.

The Headrace worker imports this module with the option `--include`; the plugin `as_jobs` is for the tests.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable
from typing import Any

import redis
from kombu.utils.json import dumps, loads

MODEL = "calls"
TASK = "headrace.predict"
QUEUE = f"predict.{MODEL}"
#: The fields of the result of a job.
_RESULT = {"model", "version", "predictions"}


class ExpectedException(Exception):
    """The exception of Celery's tests, under the name by which they look for it."""

    __module__ = "t.integration.tasks"


def _add(x: Any, y: Any, z: Any = None) -> Any:
    return x + y + z if z else x + y


def _fail(*args: Any) -> None:
    raise ExpectedException("Task expected to fail", *args)


def _raise_error(*_: Any) -> None:
    raise ValueError("deliberate error")


def _connection() -> redis.Redis:
    return redis.Redis(host=os.environ["REDIS_HOST"], port=int(os.environ["REDIS_PORT"]))


def _redis_echo(message: Any, redis_key: str = "redis-echo") -> None:
    with _connection() as client:
        client.rpush(redis_key, message)


def _redis_count(redis_key: str = "redis-count") -> None:
    with _connection() as client:
        client.incr(redis_key)


def _delayed_sum(numbers: list[Any], pause_time: float = 1) -> Any:
    time.sleep(pause_time)
    return sum(numbers)


def _xsum(numbers: list[Any]) -> Any:
    return sum(sum(number) if isinstance(number, list) else number for number in numbers)


#: By the name of the task in Celery's module.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "identity": lambda x: x,
    "add": _add,
    "mul": lambda x, y: x * y,
    "add_not_typed": lambda x, y: x + y,
    "add_with_result": lambda x, y: x + y,
    "tsum": sum,
    "xsum": _xsum,
    "delayed_sum": _delayed_sum,
    "fail": _fail,
    "raise_error": _raise_error,
    "redis_echo": _redis_echo,
    "redis_count": _redis_count,
}
_TASKS = {f"t.integration.tasks.{name}": name for name in FUNCTIONS}


class Calls:
    """The model: an instance holds the number of a function and its arguments, as JSON."""

    methods = ("predict",)

    def load(self, data: bytes) -> None:
        """Do nothing."""

    def predict(self, method: str, instances: list[dict[str, str]]) -> list[Any]:
        """Call the function of each instance."""
        assert method == "predict"
        return [FUNCTIONS[name](*args, **kwargs) for name, args, kwargs in map(_decode, instances)]


def _decode(instance: dict[str, str]) -> tuple[str, list[Any], dict[str, Any]]:
    number, args, kwargs = loads(instance["call"])
    return list(FUNCTIONS)[number], args, kwargs


def unwrap(value: Any) -> Any:
    """Replace the results of jobs in a value by those of the tasks."""
    if isinstance(value, dict):
        if value.keys() == _RESULT:
            return value["predictions"][0] if value["predictions"] else None
        return {name: unwrap(item) for name, item in value.items()}
    return [unwrap(item) for item in value] if isinstance(value, list | tuple) else value


def translate(task: str, args: Any, kwargs: Any) -> tuple[str, list[Any], dict[str, Any]]:
    """Return task and arguments of the message to send: those of a job for a task that is a function here."""
    args, kwargs = unwrap(list(args)), unwrap(dict(kwargs))
    if task not in _TASKS:
        return task, args, kwargs
    # A number, as Headrace removes words of the instance from the message of an error.
    call = dumps([list(_TASKS).index(task), args, kwargs])
    return TASK, [], {"model": MODEL, "instances": [{"call": call}]}


def _translate_follow_ups() -> None:
    """Translate what the Headrace worker sends."""
    from headrace_worker.execution.canvas_app import CanvasApp

    put = CanvasApp._put

    def put_translated(self: CanvasApp, queue: str, message: dict[str, Any]) -> None:
        args, kwargs, embedded = loads(base64.b64decode(message["body"]))
        task, args, kwargs = translate(message["headers"]["task"], args, kwargs)
        if task == TASK:
            queue = QUEUE
        message["headers"]["task"] = task
        message["body"] = base64.b64encode(dumps([args, kwargs, embedded]).encode()).decode()
        put(self, queue, message)

    CanvasApp._put = put_translated  # type: ignore[method-assign]  # that is the purpose


if os.environ.get("TRANSLATE_FOLLOW_UPS"):
    _translate_follow_ups()
