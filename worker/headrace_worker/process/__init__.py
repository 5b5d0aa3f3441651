"""The worker as a Celery process: its start, its pool processes and their supervision, its shutdown.

service             one worker: wires the others together for the Celery app (`headrace_worker.app`)
startup             the main process's start: choose queues, check settings, load and prove models
pool_kinds          the kinds of Celery's pool that a worker runs on
pool_child          a pool process: isolate it, make its claim runner, run claims
model_follower      the thread that follows the store, replaces the pool and publishes what is served
pauses              the thread that follows which models are paused
monitoring          metrics, health and prediction log of one worker
redis_client        one Redis client for each process
fork_memory         the main process's memory before it forks
dispatch            write a claim to a free pool process at once
pool_replacement    replace the pool processes one by one, between claims
supervision         lost and slow pool processes, lost connections
running_jobs        the jobs of claims that run, and the thread that marks them as started
remote_control      Celery's commands `revoke` and `query_task`, for jobs
health_steps        report connection and event loop to the worker's health
shutdown            stop in bounded time, without losing a job
"""
