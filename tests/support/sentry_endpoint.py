"""A local endpoint that stores the envelopes of Sentry's SDK."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.support.http_endpoint import Endpoint
from tests.support.waiting import wait_until


class Sentry(Endpoint):
    """A Sentry that stores what the SDK sends while it runs."""

    reply = b"{}"

    def __init__(self) -> None:
        super().__init__()
        #: The first check-in; a fixture sets it.
        self.first_check_in: dict[str, Any] = {}
        self.dsn = f"http://key@127.0.0.1:{self.port}/1"

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.items("event")

    def items(self, kind: str) -> list[dict[str, Any]]:
        """Return every item of a kind that has arrived: `event`, `transaction` or `check_in`."""
        return [item for body in list(self.bodies) for item_kind, item in _items(body) if item_kind == kind]

    def wait(self, kind: str, matches: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for an item of a kind that matches, and return the first."""
        return wait_until(
            lambda: next((item for item in self.items(kind) if matches(item)), None) or {},
            describe=lambda: f"{len(self.items(kind))} items of kind {kind} arrived, none matches",
        )


def _items(envelope: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    lines = envelope.split(b"\n")[1:]
    for header, payload in zip(lines[::2], lines[1::2], strict=False):
        yield json.loads(header)["type"], json.loads(payload)
