"""A worker that loads pickles, with a Redis of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_worker
from tests.support import ROOT


@contextmanager
def run_trusting_worker(folder: Path) -> Iterator[str]:
    """Serve the store `models` of a folder while the block runs. Yields the URL of the Redis.

    The worker finds the modules of the tests, for the models that are made of them.
    """
    with EmbeddedRedis("--appendfsync", "no") as server:
        worker = start_worker(
            server.url, folder / "models", folder, concurrency=1, HEADRACE_TRUST_PICKLE="1", PYTHONPATH=str(ROOT)
        )
        try:
            yield server.url
        finally:
            worker.stop()
