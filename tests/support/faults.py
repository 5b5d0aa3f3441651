"""Faults that are injected while a test runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def repeatedly(inject: Callable[[], Any], every: float = 0.02) -> Iterator[None]:
    """Call `inject` every `every` seconds until the block ends."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(every):
            inject()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
