"""The commands that a Redis server runs in a period: all of them, and each script by its name."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import redis

from headrace.doctor.functions import load_scripts

#: Commands of the measurement itself.
_OWN = re.compile(r"cmdstat_(info|monitor|config)\b")
_SCRIPT_CALLS = ("cmdstat_evalsha", "cmdstat_fcall", "cmdstat_eval")
_READ_BYTES = 1 << 20
#: Seconds without output of MONITOR after which the reader looks whether it is to stop.
_READ_SECONDS = 0.2


class Counts(NamedTuple):
    """The work of a server so far; the difference of two is its work in between."""

    seconds: float
    #: All commands, those inside scripts too.
    commands: int
    #: Calls of scripts, in any form.
    scripts: int
    #: Processor time of the main thread.
    cpu_seconds: float

    def __sub__(self, earlier: Counts) -> Counts:
        return Counts(*(now - before for now, before in zip(self, earlier, strict=True)))

    def beyond(self, idle: Counts) -> Counts:
        """Return these counts without those that the server has in this time when idle."""
        return Counts(
            *(count - rate * self.seconds / idle.seconds for count, rate in zip(self, idle, strict=True))
        )


def count_commands(client: redis.Redis, cpu_seconds: float) -> Counts:
    """Read the counts of a server, given the processor time of its main thread so far."""
    statistics: dict[str, Any] = client.info("commandstats")  # type: ignore[assignment]  # not asyncio
    calls = {name: int(row["calls"]) for name, row in statistics.items() if not _OWN.match(name)}
    scripts = sum(calls.get(name, 0) for name in _SCRIPT_CALLS)
    return Counts(time.monotonic(), sum(calls.values()), scripts, cpu_seconds)


class ScriptCounter:
    """The calls of each script, and of BLMOVE, as MONITOR shows them. MONITOR itself costs Redis time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._calls: Counter[str] = Counter()
        self._stop = threading.Event()
        self._names = {name.encode(): script for name, script in _script_names().items()}
        names = b"|".join(self._names)
        #: What stands behind the client's address in a line of MONITOR; the group is the name of the script.
        self._pattern = re.compile(rb'\] "(?:(?:EVALSHA|FCALL)" "(' + names + rb')|BLMOVE)" ', re.IGNORECASE)

    @contextlib.contextmanager
    def counting(self) -> Iterator[Counter[str]]:
        """Count in the block; the counter is complete after it."""
        self._calls, self._stop = Counter(), threading.Event()
        with socket.create_connection(("127.0.0.1", self._port)) as connection:
            connection.settimeout(_READ_SECONDS)
            connection.sendall(b"MONITOR\r\n")
            connection.recv(len(b"+OK\r\n"))
            thread = threading.Thread(target=self._read, args=(connection,))
            thread.start()
            try:
                yield self._calls
            finally:
                self._stop.set()
                thread.join()

    def _read(self, connection: socket.socket) -> None:
        rest = b""
        while True:
            try:
                data = connection.recv(_READ_BYTES)
            except TimeoutError:
                if self._stop.is_set():
                    return
                continue
            if not data:
                return
            complete, newline, rest = (rest + data).rpartition(b"\n")
            if newline:
                self._calls.update(self._names.get(name, "blmove") for name in self._pattern.findall(complete))
            if self._stop.is_set() and len(data) < _READ_BYTES:
                return


def _script_names() -> dict[str, str]:
    """Return the name of each script, by its function and by its digest."""
    names = {}
    for script in load_scripts():
        name = script.function.removeprefix("headrace_").rpartition("_")[0]
        names[script.function] = names[script.digest] = name
    return names
