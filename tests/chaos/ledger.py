"""The record of submitted and confirmed jobs outside Redis: JSON lines, each on disk before it counts.

`submitted` is written before a submit, `confirmed` when it returns, `raised` when it raises. A job that was
submitted and never confirmed may have reached Redis or not; it has one outcome at most.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

Event = Literal["submitted", "confirmed", "raised", "cancelled"]


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. Times are the machine's monotonic clock, in seconds."""

    event: Event
    ids: list[str]
    written_at: float
    #: Options of the submit, in seconds.
    delay: float = 0.0
    expires: float = 0.0
    #: True if the submit returns only when a replica or the disk has the job.
    durable: bool = False
    #: The exception's name, for `raised`.
    error: str = ""


class Ledger:
    """A ledger file of one process. Each line is on disk when `write` returns."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, event: Event, ids: Sequence[str], **more: float | bool | str) -> None:
        line = Line(event=event, ids=list(ids), written_at=time.monotonic(), **more)  # type: ignore[arg-type]
        os.write(self._file, msgspec.json.encode(line) + b"\n")
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)


class LedgerContents(msgspec.Struct):
    """The contents of all ledgers of a scenario."""

    submitted: dict[str, Line] = msgspec.field(default_factory=dict)
    #: The monotonic time of the first confirmation, by job id.
    confirmed: dict[str, float] = msgspec.field(default_factory=dict)
    cancelled: set[str] = msgspec.field(default_factory=set)
    #: The number of submits that raised, by the exception's name.
    raised: dict[str, int] = msgspec.field(default_factory=dict)


def read(folder: Path) -> LedgerContents:
    """Read the ledgers of a folder. An incomplete last line, of a producer that was killed, is ignored."""
    contents = LedgerContents()
    for path in sorted(folder.glob("*.ledger")):
        complete, _, _ = path.read_bytes().rpartition(b"\n")
        for raw in complete.splitlines():
            line = msgspec.json.decode(raw, type=Line)
            if line.event == "raised":
                contents.raised[line.error] = contents.raised.get(line.error, 0) + 1
            for job in line.ids:
                if line.event == "submitted":
                    contents.submitted.setdefault(job, line)
                elif line.event == "confirmed":
                    contents.confirmed.setdefault(job, line.written_at)
                elif line.event == "cancelled":
                    contents.cancelled.add(job)
    return contents
