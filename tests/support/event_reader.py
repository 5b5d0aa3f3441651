"""A reader of a stream of events, line by line, as WHATWG describes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx


class StreamedEvent(NamedTuple):
    """An event with its name, its id and the job in its data."""

    name: str
    id: str
    job: dict[str, Any]


def read_events(answer: httpx.Response) -> Iterator[StreamedEvent]:
    """Yield the events of an answer until the server closes it."""
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        if not line and "data" in fields:
            yield StreamedEvent(fields.get("event", "message"), fields.get("id", ""), json.loads(fields["data"]))
        if not line:
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
