"""From a published outcome to the caller that waits for it.

- `publish.py`: the script that stores and announces the first outcome of a job.
- `notices.py`: the notice of an outcome, stored in the same step.
- `notice_scripts.py`: claims of notices, and what becomes of each.
- `letter_scripts.py`: how a script stores a dead letter, and how old ones are deleted.
- `cancellation.py`: `cancel`, by publishing an outcome or by asking the workers to.
- `started.py`: the mark of a job that runs.
- `forget.py`: deletes outcomes that their reader has.
- `purge.py`: ends the jobs of a queue.
- `waiter.py`: the protocol of a caller that waits.
- `subscriptions.py`: the channels a connection subscribes to, and the waiters for each job.
- `reply_channel.py`: the jobs that are announced together on a client's reply channel.
- `listener_state.py`: the decisions of a listener, without I/O: commands, replies, pings, reconnects.
- `listener.py`: the listener of a blocking client, a thread.
- `aio_listener.py`: the listener of an asyncio client, a task.
- `aio_expected.py`: the wait of an asyncio client for one new job.
- `direct.py`: direct subscribers, for the quick outcomes of a blocking `predict`.
"""
