"""The wire format that clients and workers share: names, bytes and types. No I/O.

- `queues.py`: names of queues and of their lists, and of the Celery task.
- `keys.py`: names of keys and channels.
- `message.py`: a job, and how it is written as a Celery message.
- `parsing.py`: how a Celery message is read, whichever client wrote it.
- `task_arguments.py`: the arguments of a task, read as a job.
- `bulk.py`: the messages and the progress of bulk runs.
- `columns.py`: instances in columns.
- `signing.py`: keys that jobs are signed with, and the check of a signature.
- `attempts.py`: a queued message, which is the message of a job with the attempts so far before it.
- `outcome.py`: how a job ends, and how its outcome is stored.
- `execution.py`: the execution that led to an outcome, stored beside it.
- `dead_letter.py`: a job that failed for good, as it is stored.
- `record.py`: the record of a job, kept while its id is protected from a second use.
"""
