"""A model that takes what it can get, when its instance says so. What it starts ends, for the host's sake.

headrace models add hog:Hog --name hog --example example.json --time-limit 5
"""

import contextlib
import os
import time
from pathlib import Path

#: Seconds after which its processes, which nothing else ends, end.
LIFE = 60


class Hog:
    """Does what `take` of each instance names, and answers 0 if it can."""

    def load(self, data: bytes) -> None:
        """It has no artifact."""

    def predict(self, _method: str, instances: list) -> list:
        for instance in instances:
            TAKE[instance["take"]]()
        return [0] * len(instances)


def nothing() -> None:
    pass


def processor() -> None:
    while True:
        pass


def processes() -> None:
    """As many as there may be, each with a session of its own and never idle, and go on asking for more."""
    ends = time.monotonic() + LIFE
    while time.monotonic() < ends:
        try:
            if os.fork() == 0:
                os.setsid()
                while time.monotonic() < ends:
                    pass
                os._exit(0)
        except OSError:  # there are as many as there may be
            pass


def memory() -> None:
    taken = []
    while True:
        taken.append(b"x" * (1 << 24))  # written to, so that it is real


def disk() -> None:
    """All that can be written to, and leave it so."""
    error = None
    for folder in ("/tmp", "/dev/shm", "/models", "/opt/headrace", "/var/tmp", "/run"):
        try:
            with (Path(folder) / f"hog-{os.getpid()}-{time.monotonic_ns()}").open("wb") as file:
                while True:
                    file.write(bytes(1 << 20))
        except OSError as full:
            error = full
    raise error


def everything() -> None:
    """All of it at once."""
    with contextlib.suppress(OSError):
        disk()
    if os.fork() == 0:
        processes()
    memory()


TAKE = {take.__name__: take for take in (nothing, processor, processes, memory, disk, everything)}
