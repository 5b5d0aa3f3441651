"""A pytest plugin that runs Celery's tests of the canvas with Headrace jobs in place of tasks (`jobs`)."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.app.amqp import AMQP
from celery.backends.base import Backend
from exceptions import JOB_EXCEPTIONS, mark_exceptions
from jobs import MODEL, QUEUE, TASK, translate, unwrap
from kombu import Exchange, Queue

from headrace_worker.local.stack import Child
from headrace_worker.manifest import Limits
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store

#: Each job runs alone: a batch that fails runs again in halves, and some functions count their calls.
LIMITS = Limits(max_batch_instances=1)
_create_task_sender = AMQP._create_task_sender
_meta_from_decoded = Backend.meta_from_decoded


def _create_translating_sender(self: AMQP) -> Any:
    send = _create_task_sender(self)

    def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
        args, kwargs, embedded = message.body
        task, args, kwargs = translate(name, args, kwargs)
        if task == TASK:
            message.headers["task"] = task
            options = {key: value for key, value in options.items() if key not in {"exchange", "routing_key"}}
            options["queue"] = Queue(QUEUE, Exchange(""), routing_key=QUEUE)
        return send(producer, name, message._replace(body=(args, kwargs, embedded)), **options)

    return send_task_message


def _meta_with_results_of_tasks(self: Backend, meta: dict[str, Any]) -> Any:
    meta = _meta_from_decoded(self, meta)
    return {**meta, "result": unwrap(meta["result"])}


AMQP._create_task_sender = _create_translating_sender
Backend.meta_from_decoded = _meta_with_results_of_tasks


@pytest.fixture(scope="session", autouse=True)
def headrace_worker() -> Iterator[None]:
    """Start a Headrace worker that serves the model."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "example.json").write_text('[{"call": "[0, [1], {}]"}]')
        package(Store(folder / "models"), "jobs:Calls", name=MODEL, example=folder / "example.json", limits=LIMITS)
        environ = {
            "HEADRACE_REDIS_URL": os.environ["TEST_BROKER"],
            "HEADRACE_MODELS": str(folder / "models"),
            "HEADRACE_TRUST_MODULES": "jobs",
            "HEADRACE_READY_FILE": str(folder / "ready"),
            "TRANSLATE_FOLLOW_UPS": "1",
        }
        command = ["celery", "-A", "headrace_worker", "worker", "--include", "jobs", "--concurrency", "2"]
        worker = Child("worker", command, environ, Path(os.environ.get("HEADRACE_LOG", folder / "log")))
        try:
            while not (folder / "ready").exists():
                worker.check()
                time.sleep(0.1)
            yield
        finally:
            worker.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect the exceptions to fail."""
    mark_exceptions(items, JOB_EXCEPTIONS)
