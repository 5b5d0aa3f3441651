"""Celery's Redis result backend, with one rule more: the first outcome of a job is the one it has.

Celery itself stores an outcome when a pool process dies, a time limit passes or a revoked task is dropped;
and it may do so late, for a job that has its outcome already.
"""

from __future__ import annotations

from typing import Any

from celery import states
from celery.backends.redis import RedisBackend


class FirstOutcomeBackend(RedisBackend):  # type: ignore[misc]  # celery-types knows no Redis backend
    """Stores a task's result unless it has a final one."""

    def _set(self, key: str | bytes, value: str | bytes, expires: int | None = None) -> Any:
        stored = self.client.get(key)
        if stored and self.decode(stored).get("status") in states.READY_STATES:
            return None
        return super()._set(key, value, expires)
