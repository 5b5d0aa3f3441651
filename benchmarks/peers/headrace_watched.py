"""Headrace with somebody who listens to the events of every job, as Flower does."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.peer import URL
from benchmarks.peers import headrace

#: Takes what comes and throws it away: the cost of making and sending events, not that of a dashboard.
LISTENER = """
import sys, redis
listener = redis.Redis.from_url(sys.argv[1]).pubsub()
listener.psubscribe("*celeryev*")
sock = listener.connection._sock
sock.settimeout(None)
print("listening", flush=True)
while sock.recv(1 << 20): pass
"""


class Client(headrace.Client):
    settings = "defaults, and a client that listens to all events"

    def connect(self) -> None:
        super().connect()
        self._listener = subprocess.Popen([sys.executable, "-c", LISTENER, URL], stdout=subprocess.PIPE, text=True)
        assert self._listener.stdout is not None
        self._listener.stdout.readline()

    def close(self) -> None:
        self._listener.kill()
        self._listener.wait()
        super().close()
