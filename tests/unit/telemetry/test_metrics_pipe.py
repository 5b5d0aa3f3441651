"""The pipe of metric deltas: nothing is lost between pool processes and the main process."""

from __future__ import annotations

import os
import time

from headrace_worker.telemetry import metrics
from headrace_worker.telemetry.loops import LoopHealth
from headrace_worker.telemetry.metrics import MetricDelta, decode
from headrace_worker.telemetry.metrics_pipe import MetricsPipe
from tests.support.waiting import wait_until


def test_a_delta_encoded_in_chunks_is_decoded_whole() -> None:
    delta, decoded = MetricDelta(counters={}, histograms={}), MetricDelta(counters={}, histograms={})
    for number in range(5):
        delta.add(metrics.RETRIES, (f"m{number}",), number)
        delta.observe(metrics.WAIT_SECONDS, (f"m{number}",), [0.1, 1e9])
    for chunk in delta.encode_chunks(3):
        decoded.merge(decode(chunk))
    assert (decoded.counters, decoded.histograms) == (delta.counters, delta.histograms)


def test_a_process_that_cannot_send_adds_up_its_deltas_and_sends_them_later() -> None:
    pipe = MetricsPipe(LoopHealth("metrics", late_after=60))
    delta = MetricDelta(counters={}, histograms={})
    delta.add(metrics.RETRIES, ("m",))
    child = os.fork()
    if not child:  # a pool process that sends more than a socket holds, all at once
        for _ in range(20_000):
            pipe.send(delta)
        deadline = time.monotonic() + 10
        while pipe._unsent and time.monotonic() < deadline:  # each further send sends what stayed behind
            pipe.send(MetricDelta(counters={}, histograms={}))
        os._exit(0)
    os.waitpid(child, 0)
    series = ("headrace_retries_total", ("m",))
    wait_until(lambda: pipe.totals().counters.get(series) == 20_000, 10, pipe.totals)
    pipe.close()
