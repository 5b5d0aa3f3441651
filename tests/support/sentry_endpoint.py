"""A local endpoint that takes the envelopes of Sentry's SDK, and tells what came."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.support.http_endpoint import Endpoint


class Sentry(Endpoint):
    """An endpoint that takes what Sentry's SDK sends, while it is up."""

    answer = b"{}"

    def __init__(self) -> None:
        super().__init__()
        #: The first check-in.
        self.checked: dict[str, Any] = {}
        self.dsn = f"http://key@127.0.0.1:{self.port}/1"

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.of("event")

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Everything of a kind that has come: `event`, `transaction`, `check_in`."""
        return [item for body in list(self.bodies) for said, item in _items(body) if said == kind]

    def wait(self, kind: str, wanted: Callable[[dict[str, Any]], bool], seconds: float = 15) -> dict[str, Any]:
        """The first of a kind that is wanted, once it has come."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for item in self.of(kind):
                if wanted(item):
                    return item
            time.sleep(0.02)
        raise AssertionError(f"no such {kind} came; {len(self.of(kind))} others did")


def _items(envelope: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    lines = envelope.split(b"\n")[1:]
    for header, payload in zip(lines[::2], lines[1::2], strict=False):
        yield json.loads(header)["type"], json.loads(payload)
