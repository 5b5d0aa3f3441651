"""The way of tallies from pool processes to the main one: datagrams over a socket made before the pool forks.

Sending never waits. What cannot be sent, because the main process is busy, stays with the process and goes with
its next claim: it is summed up, so it does not grow. A process that ends leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading

import msgspec

from headrace_worker.telemetry.metrics import MetricDelta, decode

#: Time series in a datagram, and its bytes at the most: far below what a socket takes.
_SERIES, _BYTES = 100, 64 * 1024


class MetricsPipe:
    """Both ends. The process that makes it reads; it and those forked from it send."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._there.setblocking(False)
        self._pid = os.getpid()
        self._unsent = MetricDelta()
        self._sending = threading.Lock()
        self._sums = MetricDelta()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="headrace-metrics", daemon=True)
        self._thread.start()

    def after_fork(self) -> None:
        """In a pool process: only send."""
        self._here.close()
        self._unsent, self._sending = MetricDelta(), threading.Lock()

    def send(self, delta: MetricDelta) -> None:
        """Hand a tally on to the main process; any of one that cannot go now goes with the next."""
        if os.getpid() == self._pid:
            with self._lock:
                self._sums.merge(delta)
            return
        with self._sending:
            self._unsent.merge(delta)
            kept = MetricDelta()
            for part in self._unsent.encode_chunks(_SERIES):
                try:
                    self._there.send(part)
                except OSError:  # full, or the main process is gone
                    kept.merge(decode(part))
            self._unsent = kept

    def totals(self, seed: MetricDelta | None = None) -> MetricDelta:
        """All that was ever sent; `seed` adds time series that are there before anything happens."""
        sums = MetricDelta(counters={}, histograms={})
        if seed is not None:
            sums.merge(seed)
        with self._lock:
            sums.merge(self._sums)
        return sums

    def close(self) -> None:
        """Read no more."""
        self._there.close()
        with contextlib.suppress(OSError):
            self._here.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._here.close()

    def _read(self) -> None:
        while True:
            try:
                message = self._here.recv(_BYTES)
                if not message:
                    return  # closed
                tally = decode(message)
            except OSError:
                return
            except msgspec.DecodeError:
                continue
            with self._lock:
                self._sums.merge(tally)
