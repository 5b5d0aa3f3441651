"""A claim is written to its pool process at once."""

from __future__ import annotations

import os
import time

from celery.concurrency.asynpool import AsynPool
from kombu.asynchronous.hub import Hub

from headrace_worker.process.dispatch import DirectDispatch


def test_a_free_process_has_a_claim_before_the_loop_turns():
    hub, results = Hub(), []
    pool = AsynPool(processes=1, threads=False)
    dispatch = DirectDispatch()
    try:
        pool.register_with_event_loop(hub)
        loop, deadline = hub.create_loop(), time.monotonic() + 10
        while not pool._all_inqueues:  # until the process says that it is ready
            assert time.monotonic() < deadline
            next(loop)
        dispatch.attach(pool, hub)
        for _ in range(2):
            pool.apply_async(os.getppid, callback=results.append)
            dispatch.write()
        assert len(pool.outbound_buffer) == 1  # a process receives one claim at a time
        while len(results) < 2:
            assert time.monotonic() < deadline
            next(loop)
    finally:
        pool.terminate()
        pool.join()
        hub.close()
    assert results == [os.getpid()] * 2
