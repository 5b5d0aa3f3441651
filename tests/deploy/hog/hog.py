"""A model that uses all of a resource that its instance names. Its processes end by themselves.

headrace models add hog:Hog --name hog --example example.json --time-limit 5
"""

import contextlib
import os
import time
from pathlib import Path

#: Seconds after which its processes exit.
LIFETIME_SECONDS = 60


class Hog:
    """Uses the resource in `take` of each instance, and returns 0 if it gets that far."""

    def load(self, data: bytes) -> None:
        """Load nothing."""

    def predict(self, _method: str, instances: list) -> list:
        for instance in instances:
            RESOURCES[instance["take"]]()
        return [0] * len(instances)


def nothing() -> None:
    pass


def processor() -> None:
    while True:
        pass


def processes() -> None:
    """Fork as many busy processes as possible, each in a session of its own."""
    ends = time.monotonic() + LIFETIME_SECONDS
    while time.monotonic() < ends:
        try:
            if os.fork() == 0:
                os.setsid()
                while time.monotonic() < ends:
                    pass
                os._exit(0)
        except OSError:  # the limit is reached
            pass


def memory() -> None:
    blocks = []
    while True:
        blocks.append(b"x" * (1 << 24))  # written to, so that it is allocated


def disk() -> None:
    """Fill every writable folder, and leave the files there."""
    error = None
    for folder in ("/tmp", "/dev/shm", "/models", "/opt/headrace", "/var/tmp", "/run"):
        try:
            with (Path(folder) / f"hog-{os.getpid()}-{time.monotonic_ns()}").open("wb") as file:
                while True:
                    file.write(bytes(1 << 20))
        except OSError as error_of_folder:
            error = error_of_folder
    raise error


def everything() -> None:
    """Use disk, processes, processors and memory at once."""
    with contextlib.suppress(OSError):
        disk()
    if os.fork() == 0:
        processes()
    memory()


RESOURCES = {function.__name__: function for function in (nothing, processor, processes, memory, disk, everything)}
