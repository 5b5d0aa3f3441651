"""The wire format that clients and workers share: names, bytes and types. No I/O.

keys         names of queues, keys, channels and the Celery task
message      a job, and how it is written as a Celery message
parsing      how a Celery message is read, whichever client wrote it
signing      keys that jobs are signed with, and the check of a signature
attempts     a queued message: the message of a job, and before it the attempts so far
outcome      how a job ends, and how its outcome is stored
execution    the execution that led to an outcome, stored beside it
dead_letter  a job that failed for good, as it is kept
record       the record of a job, kept while its id is protected from a second use
"""
