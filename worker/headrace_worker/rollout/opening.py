"""Open what moves aliases: a connection to Redis, the model store, and the name of the person for the history."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from headrace.connection.connect import connect
from headrace.connection.errors import translate_errors
from headrace.user import name_user_and_host
from headrace.wire.keys import Keys
from headrace_worker.rollout.promotion import Promoter
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store


@contextlib.contextmanager
def open_promoter(settings: WorkerSettings) -> Iterator[Promoter]:
    """Open a promoter on the store and the Redis of the settings."""
    with translate_errors(settings), connect(settings) as client:
        yield Promoter(
            client,
            Keys(settings.key_prefix),
            Store.from_settings(settings),
            by=name_user_and_host(),
            max_bytes=settings.max_model_bytes,
        )
