"""Reads the state of jobs and queues from Redis. Changes nothing.

job.py        the state of a job, and everything Redis holds about it
locate.py     finds a job without an outcome in its queue or under a lease
lost.py       finds jobs that are in no place
timeline.py   the history of a job as a sequence of steps
queues.py     the depth of each queue, and the longest wait
"""
