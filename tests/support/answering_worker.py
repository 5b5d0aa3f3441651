"""A worker in a thread for tests of the client: it pops jobs off their lists and publishes their outcomes."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import redis

from headrace.catalog.contract import Contract, Feature, Named, Output
from headrace.results import publish
from headrace.wire.attempts import decode_queued_message
from headrace.wire.keys import Keys
from headrace.wire.outcome import Outcome, Prediction, Success, encode_outcome
from headrace.wire.queues import queue_name

CHURN = Contract(
    model="churn",
    version="3",
    input=Named(features=(Feature(name="age", kind="number"),)),
    methods={"predict": Output(shape=())},
)


def double_age(job: str, instances: list[Any]) -> Outcome:
    """Predict twice the age of each instance."""
    predictions = [2 * instance["age"] for instance in instances]
    return Success(job=job, prediction=Prediction(model="churn", version="3", predictions=predictions))


class AnsweringWorker:
    """Answers jobs for the time of the block, also after an outage of Redis."""

    def __init__(
        self,
        url: str,
        *,
        answer: Callable[[str, list[Any]], Outcome] = double_age,
        model: str = "churn",
        keys: Keys | None = None,
        ttl: int = 60,
    ) -> None:
        #: The ids of the jobs popped so far.
        self.received: list[str] = []
        #: The versions that these jobs named.
        self.versions: list[str | None] = []
        self._url = url
        self._answer = answer
        self._keys = keys or Keys()
        self._lists = list(self._keys.sources(queue_name(model)))
        self._ttl = ttl
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with redis.Redis.from_url(self._url, client_name="answering") as client:
            while not self._stop.is_set():
                try:
                    item = client.brpop(self._lists, timeout=0.1)
                    if item is not None:
                        self._answer_job(client, item[1])
                except redis.RedisError:
                    time.sleep(0.02)

    def _answer_job(self, client: redis.Redis, queued_message: bytes) -> None:
        message = json.loads(decode_queued_message(queued_message)[1])
        job = message["headers"]["id"]
        (_, instances), options, _ = json.loads(base64.b64decode(message["body"]))
        self.received.append(job)
        self.versions.append(options.get("version"))
        outcome = self._answer(job, instances)
        if publish_outcomes(client, outcome, keys=self._keys, ttl=self._ttl)[0]:
            reply_channel = self._keys.reply_channel(message["properties"]["reply_to"])
            client.publish(reply_channel, encode_outcome(outcome, datetime.now(UTC)))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


def publish_outcomes(
    client: redis.Redis, *outcomes: Outcome, keys: Keys | None = None, ttl: int = 60
) -> list[int]:
    """Publish outcomes as a worker does. Return 1 for each that was the first of its job, else 0."""
    command = publish.publish_command(keys or Keys(), outcomes, ttl=ttl, now=datetime.now(UTC))
    replies: list[int] = client.execute_command(*command.with_source)
    return replies


def success(job: str) -> Outcome:
    """Return an outcome whose prediction is the id of its job."""
    return Success(job=job, prediction=Prediction(model="churn", version="3", predictions=[job]))


def subscribed_jobs(server: redis.Redis) -> set[str]:
    """Return the ids of the jobs whose result channel some client is subscribed to."""
    names = server.pubsub_channels("celery-task-meta-*")
    return {name.decode().removeprefix("celery-task-meta-") for name in names}
