"""The record of submitted and confirmed jobs outside Redis: JSON lines, each on disk before it counts.

`asked` is written before a submit, `confirmed` when it returned, `raised` when it raised. A job that was asked for
and never confirmed may or may not have reached Redis; what was promised of it is one outcome at most.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

Do = Literal["asked", "confirmed", "raised", "cancelled"]


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. Times are the machine's monotonic clock, in seconds."""

    do: Do
    ids: list[str]
    written_at: float
    #: Seconds, as the submit was told.
    delay: float = 0.0
    expires: float = 0.0
    #: Whether the submit was to return only when a replica or the disk has the job.
    durable: bool = False
    #: The exception's name, of `raised`.
    error: str = ""


class Ledger:
    """Appends lines; each is on disk when `write` returns. Opened by one process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, do: Do, ids: Sequence[str], **more: float | bool | str) -> None:
        line = Line(do=do, ids=list(ids), written_at=time.monotonic(), **more)  # type: ignore[arg-type]
        os.write(self._file, msgspec.json.encode(line) + b"\n")
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)


class LedgerContents(msgspec.Struct):
    """All ledgers of a scenario, read."""

    submitted: dict[str, Line] = msgspec.field(default_factory=dict)
    #: When each was confirmed first.
    confirmed: dict[str, float] = msgspec.field(default_factory=dict)
    cancelled: set[str] = msgspec.field(default_factory=set)
    #: How many submits raised, by the exception's name.
    raised: dict[str, int] = msgspec.field(default_factory=dict)


def read(folder: Path) -> LedgerContents:
    """Read the ledgers of a folder. An incomplete last line, of a producer that was killed, is ignored."""
    books = LedgerContents()
    for path in sorted(folder.glob("*.ledger")):
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        for raw in whole.splitlines():
            line = msgspec.json.decode(raw, type=Line)
            if line.do == "raised":
                books.raised[line.error] = books.raised.get(line.error, 0) + 1
            for job in line.ids:
                if line.do == "asked":
                    books.submitted.setdefault(job, line)
                elif line.do == "confirmed":
                    books.confirmed.setdefault(job, line.written_at)
                elif line.do == "cancelled":
                    books.cancelled.add(job)
    return books
