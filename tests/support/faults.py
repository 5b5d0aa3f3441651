"""Faults that go on while a test runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def repeatedly(harm: Callable[[], Any], every: float = 0.02) -> Iterator[None]:
    """Cause a fault every `every` seconds, until the block ends."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(every):
            harm()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
