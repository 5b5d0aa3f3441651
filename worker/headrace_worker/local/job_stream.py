"""The jobs and problems of a worker as lines for a terminal, read from its log while it is written.

12:30:05  churn@1  1 instance  success  3.1 ms
12:30:09  1 job of predict.churn failed (bad input): InvalidInput: instance 0 has no 'age'
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from headrace.terminal import escape_controls
from headrace.text import format_duration, plural

#: Loggers of which a person wants every line; of all others, warnings and errors.
_SHOWN_LOGGERS = ("headrace.jobs", "headrace.models")
_SHOWN_LEVELS = ("warning", "error", "critical")


class JobStream:
    """Reads the lines that a worker appends to its log in JSON. `path` is the log; what is in it is skipped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = path.stat().st_size
        #: The bytes of a line that is not written to its end yet.
        self._incomplete = b""

    def read(self) -> Iterator[str]:
        """Yield the new lines for a person."""
        with self._path.open("rb") as log:
            log.seek(self._position)
            *lines, self._incomplete = (self._incomplete + log.read()).split(b"\n")
            self._position = log.tell()
        for line in lines:
            if (text := format_line(line)) is not None:
                yield text


def format_line(line: bytes) -> str | None:
    """Return a line of the log for a person; None for one that nobody needs to see."""
    try:
        fields = json.loads(line)
        moment = datetime.fromisoformat(fields["timestamp"]).astimezone()
        is_shown = fields["logger"] in _SHOWN_LOGGERS or fields["level"] in _SHOWN_LEVELS
        text = _describe(fields)
    except (ValueError, TypeError, KeyError, OverflowError):
        return None  # what a library or a model prints is in the log too
    return f"{moment:%H:%M:%S}  {escape_controls(text)}" if is_shown else None


def _describe(fields: dict[str, Any]) -> str:
    if "state" not in fields:
        return " ".join(str(fields["event"]).split())
    title = f"{fields['model']}@{fields['version']}" if fields["version"] else fields["model"]
    jobs = [plural(fields["job_count"], "job")] if fields["job_count"] > 1 else []
    counts = [*jobs, plural(fields["instances"], "instance")]
    return "  ".join([title, *counts, fields["state"], format_duration(fields["duration_ms"])])
