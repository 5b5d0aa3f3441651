"""Headrace with a subscriber to the events of every job, as Flower is."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.peers import headrace
from benchmarks.peers.base import URL

#: A program that reads all events and drops them: it shows the cost of sending events, without a dashboard's.
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
    settings = "defaults, and a subscriber to all events"

    def connect(self) -> None:
        super().connect()
        self._listener = subprocess.Popen([sys.executable, "-c", LISTENER, URL], stdout=subprocess.PIPE, text=True)
        assert self._listener.stdout is not None
        self._listener.stdout.readline()

    def close(self) -> None:
        self._listener.kill()
        self._listener.wait()
        super().close()
