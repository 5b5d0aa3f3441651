"""The Celery worker: start-up, supervision of pool processes, replacement of the pool, shutdown."""
