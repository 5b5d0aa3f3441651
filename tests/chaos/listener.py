"""A listener process that records the ends of jobs in a file: `python -m tests.chaos.listener CONFIG`.

Each handled end is a line, on disk before the listener asks for the next. Every tenth end fails, at random.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import msgspec

from headrace import Client


class ListenerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a listener process."""

    url: str
    #: The name it listens for, and the file of handled jobs, which all listeners of a scenario share.
    name: str
    file: str
    #: Seconds after which a job that it holds comes to another listener.
    lease: float
    seed: int


class Handled(msgspec.Struct, frozen=True, kw_only=True):
    """One line: a job whose end was handled, the number of its delivery, and whether its outcome was there."""

    job: str
    delivery: int
    has_outcome: bool


def main(config: ListenerConfig) -> None:
    """Handle ends until the process is killed."""
    trouble = random.Random(config.seed)
    file = os.open(config.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with Client(config.url) as client, client.listen(config.name, lease=config.lease) as jobs:
        for job in jobs:
            if trouble.random() < 0.1:
                jobs.fail("OSError")
                continue
            line = Handled(job=job.id, delivery=job.delivery, has_outcome=job.outcome is not None)
            os.write(file, msgspec.json.encode(line) + b"\n")
            os.fsync(file)


def read_handled(file: Path) -> list[Handled]:
    """Return what listeners have written, without an incomplete last line."""
    complete, _, _ = file.read_bytes().rpartition(b"\n")
    return [msgspec.json.decode(line, type=Handled) for line in complete.splitlines()]


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=ListenerConfig))
