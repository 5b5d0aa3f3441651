"""The errors that Headrace raises on purpose.

    HeadraceError
    ├── InvalidInput             the instances or options of a job are wrong; nothing was enqueued
    │   ├── NotTrusted           the job is not signed with a key that the worker trusts
    │   ├── UnknownModel         no such model, or no such version of it
    │   ├── JobConflict          the id belongs to another job
    │   └── RunConflict          the name belongs to another bulk run
    ├── QueueFull                the queue is at its limit; nothing was enqueued
    ├── NotDurable               no confirmation that a job survives a restart or a failover of Redis
    ├── BrokerUnavailable        Redis is down, refuses the user, or cannot take a write
    ├── ResultTimeout            no outcome within the timeout; the job goes on
    ├── JobFailed                the outcome of the job is a failure
    │   ├── JobCancelled
    │   └── JobExpired
    ├── RunFailed                a bulk run failed
    │   └── RunCancelled
    ├── UnknownLetter            there is no dead letter with this id
    ├── UnknownRun               there is no bulk run with this name
    ├── StoredDataError          what is stored in Redis or in a file was not written by Headrace
    ├── ModelError               a model cannot be packaged, verified or loaded
    ├── TransientError           for models to raise: the next attempt of the job may succeed
    │   └── StoreUnavailable     the model store cannot be reached; loaded versions go on serving
    └── SettingError             a setting has an invalid value

A message names what is wrong, where, and what to do. It never contains a value of an instance, as errors end up in
logs.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

#: The class of a failure, by which dead letters are filtered.
Reason = Literal["bad input", "permanent", "attempts exhausted", "crash", "timeout", "malformed", "unknown model"]

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
    "NotTrusted",
    "QueueFull",
    "ResultTimeout",
    "RunCancelled",
    "RunConflict",
    "RunFailed",
    "SettingError",
    "StoreUnavailable",
    "StoredDataError",
    "TransientError",
    "UnknownLetter",
    "UnknownModel",
    "UnknownRun",
]


class HeadraceError(Exception):
    """The base of all errors that Headrace raises on purpose."""


class StoredDataError(HeadraceError):
    """Something stored in Redis or in a file cannot be decoded: Headrace did not write it, or it was damaged."""


class InvalidInput(HeadraceError, ValueError):
    """The instances or options of a job are wrong; nothing was enqueued.

    `problems` are the values that the message names, each as a JSON pointer, such as `/instances/0/age`, and what
    is wrong there. It is empty if the error is not about instances.
    """

    def __init__(self, *args: object, problems: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(*args)
        self.problems = tuple(problems)


class NotTrusted(InvalidInput):
    """A job is not signed with a key that the worker trusts."""


class UnknownModel(InvalidInput):
    """There is no such model, or no such version of it."""


class JobConflict(InvalidInput):
    """The id belongs to a job with other arguments."""


class RunConflict(InvalidInput):
    """The name belongs to a bulk run with other arguments."""


class QueueFull(HeadraceError):
    """The queue is at its limit.

    `accepted` holds the ids of the jobs that the same call enqueued before the limit was reached, in order.
    """

    def __init__(self, message: str, accepted: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.accepted = accepted


class NotDurable(HeadraceError):
    """Redis did not confirm that a job submitted with `durable=True` survives a restart or a failover.

    `accepted` holds the ids of the jobs that were enqueued nevertheless; you can submit them again under the same
    ids. If it is empty, nothing was enqueued, as this Redis cannot confirm anything.
    """

    def __init__(self, message: str, accepted: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.accepted = accepted


class BrokerUnavailable(HeadraceError, ConnectionError):
    """Redis is down, refuses the user, or cannot take a write."""


class ResultTimeout(HeadraceError, TimeoutError):
    """There was no outcome within the timeout. The job goes on, so you can ask for its outcome again."""


class JobFailed(HeadraceError):
    """The outcome of a job is a failure.

    `job` is the id of the job, `reason` the class of the failure (see `headrace.outcome.Reason`), `error` the name
    of the exception that ended it, and `message` its message. `traceback` is that of an error of the model; None
    for other errors.
    """

    def __init__(
        self,
        text: str,
        /,
        *,
        job: str,
        reason: Reason | Literal["cancelled", "expired"],
        error: str,
        message: str = "",
        traceback: str | None = None,
    ) -> None:
        super().__init__(text)
        self.job = job
        self.reason: Reason | Literal["cancelled", "expired"] = reason  # pyright would infer str
        self.error = error
        self.message = message
        self.traceback = traceback

    def __reduce__(self) -> tuple[Any, ...]:
        # Celery pickles exceptions to send them from a pool process to the main process.
        fields = ("job", "reason", "error", "message", "traceback")
        return partial(type(self), **{name: getattr(self, name) for name in fields}), self.args


class JobCancelled(JobFailed):
    """The job was cancelled before it had another outcome."""


class JobExpired(JobFailed):
    """The job was not started before its deadline."""


class RunFailed(HeadraceError):
    """A bulk run ended as a failure. `run` is its name."""

    def __init__(self, message: str, *, run: str) -> None:
        super().__init__(message)
        self.run = run

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), run=self.run), self.args


class RunCancelled(RunFailed):
    """A bulk run was cancelled before its end."""


class UnknownLetter(HeadraceError, LookupError):
    """There is no dead letter with this id, or it was replayed, purged or dropped."""


class UnknownRun(HeadraceError, LookupError):
    """There is no bulk run with this name, or it was forgotten."""


class ModelError(HeadraceError):
    """A model cannot be packaged, verified or loaded."""


class TransientError(HeadraceError):
    """For models and runtimes to raise: something a prediction needs cannot be reached. The job is tried again."""


class StoreUnavailable(TransientError):
    """The model store cannot be reached or refuses access. The models in it may be fine."""


class SettingError(HeadraceError, ValueError):
    """A setting has an invalid value."""
