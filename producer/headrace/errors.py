"""Everything Headrace raises on purpose.

    HeadraceError
    ├── InvalidInput             the instances or options of a job are wrong; nothing was enqueued
    │   ├── UnknownModel         no such model, or no such version of it
    │   └── JobConflict          the id belongs to another job
    ├── QueueFull                the queue is at its limit; nothing was enqueued
    ├── NotDurable               a job is not known to be safe from a restart or a failover of Redis
    ├── BrokerUnavailable        Redis is down, refuses us, or has no memory left
    ├── ResultTimeout            no outcome within the time given; the job goes on
    ├── JobFailed                the outcome of the job is a failure
    │   ├── JobCancelled
    │   └── JobExpired
    ├── UnknownLetter            there is no dead letter of that id, or no more
    ├── ModelError               a model cannot be packaged, verified or loaded
    ├── TransientError           for models to raise: the next run of the job may well succeed
    │   └── StoreUnavailable     the model store is away; what is loaded serves on
    └── SettingError             a setting has a value it cannot have

A message names what is wrong, where, and what to do. It never repeats a value out of an instance: errors
reach logs and other people's screens.
"""

from __future__ import annotations

from functools import partial
from typing import Any

__all__ = [
    "BrokerUnavailable",
    "HeadraceError",
    "InvalidInput",
    "JobCancelled",
    "JobConflict",
    "JobExpired",
    "JobFailed",
    "ModelError",
    "NotDurable",
    "QueueFull",
    "ResultTimeout",
    "SettingError",
    "StoreUnavailable",
    "TransientError",
    "UnknownModel",
]


class HeadraceError(Exception):
    """The base of every error Headrace raises on purpose."""


class InvalidInput(HeadraceError, ValueError):
    """The instances or options of a job are wrong; nothing was enqueued."""


class NotTrusted(InvalidInput):
    """A job is not signed by whom the worker trusts."""


class UnknownModel(InvalidInput):
    """There is no such model, or no such version of it."""


class JobConflict(InvalidInput):
    """The id given belongs to a job with other input."""


class QueueFull(HeadraceError):
    """The queue is at its limit.

    `accepted` holds the ids of the jobs, in order, that the same call enqueued before the limit was reached.
    """

    def __init__(self, message: str, accepted: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.accepted = accepted


class NotDurable(HeadraceError):
    """A job that was to be durable is not known to be safe from a restart or a failover of Redis.

    `accepted` holds the ids of the jobs that are enqueued all the same: submitting them again, under the same
    ids, is safe. Where it is empty, this Redis can confirm nothing, and nothing was enqueued.
    """

    def __init__(self, message: str, accepted: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.accepted = accepted


class BrokerUnavailable(HeadraceError, ConnectionError):
    """Redis is down, refuses us, or cannot take a write."""


class ResultTimeout(HeadraceError, TimeoutError):
    """No outcome within the time given. The job goes on; ask again."""


class JobFailed(HeadraceError):
    """The outcome of a job is a failure.

    `job` is its id, `reason` the class of failure (see `headrace.outcome.Reason`), `error` the name of the
    exception that ended it.
    """

    def __init__(self, message: str, *, job: str, reason: str, error: str) -> None:
        super().__init__(message)
        self.job = job
        self.reason = reason
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        # Celery sends exceptions from the pool process to the main one.
        return partial(type(self), job=self.job, reason=self.reason, error=self.error), self.args


class JobCancelled(JobFailed):
    """The job was cancelled before it had another outcome."""


class JobExpired(JobFailed):
    """The job was not started before its deadline."""


class UnknownLetter(HeadraceError, LookupError):
    """There is no dead letter of that id, or it was replayed, purged or dropped."""


class ModelError(HeadraceError):
    """A model cannot be packaged, verified or loaded."""


class TransientError(HeadraceError):
    """For models and runtimes to raise: what a prediction needs is away for now. The job runs again later."""


class StoreUnavailable(TransientError):
    """The model store is away, or refuses us. Nothing is wrong with the models in it."""


class SettingError(HeadraceError, ValueError):
    """A setting has a value it cannot have."""
