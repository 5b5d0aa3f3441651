"""The pipe that carries metric deltas from pool processes to the main process: a datagram socket pair.

The socket pair is made before the pool forks. Sending never waits: if the main process is busy, the delta stays in
the pool process and goes with the next one. Deltas add up, so what stays behind does not grow with time.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading

from headrace.wire.stored import DECODE_ERRORS
from headrace_worker.telemetry.loops import LoopHealth
from headrace_worker.telemetry.metrics import MetricDelta, decode

#: Time series in one datagram, and the bytes read of it at most: far below the limit of a socket.
_SERIES, _MAX_BYTES = 100, 64 * 1024
#: Seconds after which a round ends in which no delta came.
_ROUND_SECONDS = 1.0


class MetricsPipe:
    """Both ends of the pipe. The process that makes it reads, in rounds of `loop`; it and its forks send."""

    def __init__(self, loop: LoopHealth) -> None:
        self._reader, self._writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._writer.setblocking(False)
        self._reader.settimeout(_ROUND_SECONDS)
        self._pid = os.getpid()
        self._unsent = MetricDelta()
        self._sending = threading.Lock()
        self._totals = MetricDelta()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=loop.run_rounds, args=(self._read, self._closed, 0), name="headrace-metrics", daemon=True
        )
        self._thread.start()

    def after_fork(self) -> None:
        """Close the reader's end in a pool process, and start without unsent numbers."""
        self._reader.close()
        self._unsent, self._sending = MetricDelta(), threading.Lock()

    def send(self, delta: MetricDelta) -> None:
        """Add a delta to the totals of the main process; chunks that cannot be sent now go with the next delta."""
        if os.getpid() == self._pid:
            with self._lock:
                self._totals.merge(delta)
            return
        with self._sending:
            self._unsent.merge(delta)
            unsent = MetricDelta()
            for chunk in self._unsent.encode_chunks(_SERIES):
                try:
                    self._writer.send(chunk)
                except OSError:  # the socket is full, or the main process has ended
                    unsent.merge(decode(chunk))
            self._unsent = unsent

    def totals(self, seed: MetricDelta | None = None) -> MetricDelta:
        """Return the sum of all deltas. `seed` adds time series that should exist before anything is counted."""
        totals = MetricDelta(counters={}, histograms={})
        if seed is not None:
            totals.merge(seed)
        with self._lock:
            totals.merge(self._totals)
        return totals

    def close(self) -> None:
        """Stop reading."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._reader.shutdown(socket.SHUT_RDWR)
        self._writer.close()
        self._thread.join(5)
        self._reader.close()

    def _read(self) -> None:
        """Add one delta to the totals, unless none comes for a moment."""
        try:
            delta = decode(self._reader.recv(_MAX_BYTES))
        except (TimeoutError, *DECODE_ERRORS):
            return
        with self._lock:
            self._totals.merge(delta)
