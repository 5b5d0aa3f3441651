"""A worker in a thread for tests of the client: takes jobs off the lists and publishes an outcome for each."""

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
from headrace.wire.keys import Keys, queue_name
from headrace.wire.outcome import Outcome, Prediction, Success, encode_outcome

CHURN = Contract(
    model="churn",
    version="3",
    input=Named(features=(Feature(name="age", kind="number"),)),
    methods={"predict": Output(shape=())},
)


def doubled(job: str, instances: list[Any]) -> Outcome:
    """Twice the age of each instance."""
    predictions = [2 * instance["age"] for instance in instances]
    return Success(job=job, prediction=Prediction(model="churn", version="3", predictions=predictions))


class Answering:
    """Answers jobs while the block lasts. Goes on when Redis goes away and comes back."""

    def __init__(
        self,
        url: str,
        *,
        answer: Callable[[str, list[Any]], Outcome] = doubled,
        model: str = "churn",
        keys: Keys | None = None,
        ttl: int = 60,
    ) -> None:
        self.taken: list[str] = []
        self._url = url
        self._answer = answer
        self._keys = keys or Keys()
        self._lists = list(self._keys.lists(queue_name(model)))
        self._ttl = ttl
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with redis.Redis.from_url(self._url, client_name="answering") as client:
            while not self._stop.is_set():
                try:
                    taken = client.brpop(self._lists, timeout=0.1)
                    if taken is not None:
                        self._end(client, taken[1])
                except redis.RedisError:
                    time.sleep(0.02)

    def _end(self, client: redis.Redis, raw: bytes) -> None:
        message = json.loads(decode_queued_message(raw)[1])
        job = message["headers"]["id"]
        (_, instances), _, _ = json.loads(base64.b64decode(message["body"]))
        self.taken.append(job)
        outcome = self._answer(job, instances)
        if end(client, outcome, keys=self._keys, ttl=self._ttl)[0]:
            inbox = self._keys.reply_channel(message["properties"]["reply_to"])
            client.publish(inbox, encode_outcome(outcome, datetime.now(UTC)))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


def end(client: redis.Redis, *outcomes: Outcome, keys: Keys | None = None, ttl: int = 60) -> list[int]:
    """Publish outcomes as a worker does; which were the first of their job."""
    command = publish.publish_command(keys or Keys(), outcomes, ttl=ttl, now=datetime.now(UTC))
    replies: list[int] = client.execute_command(*command.with_source)
    return replies
