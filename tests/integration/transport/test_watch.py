"""The lock of the watch in a real Redis."""

from __future__ import annotations

import redis

from headrace.wire.keys import Keys
from headrace_worker.transport.watch import Watch


def test_a_watch_that_is_given_up_can_be_taken_in_the_next_command(server: redis.Redis) -> None:
    watch = Watch(Keys(), "host/1/x")
    watch.set_queues(["predict.churn"])
    assert server.execute_command(*watch.take_command())
    watch.receive_take(b"OK")
    with server.pipeline() as pipeline:
        for command in [*watch.resign_commands(), watch.take_command()]:
            pipeline.execute_command(*command)
        assert pipeline.execute()[-1], "a worker on its own would wait for a token that nobody passes"
    server.delete(watch.key)
