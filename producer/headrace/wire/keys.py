"""The names of every queue, key, channel and task.

A queue is kombu's Redis layout: four lists, one for each priority step, pushed on the left and taken from
the right. The list of priority 0 bears the plain name of the queue.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from headrace.errors import InvalidInput

#: The Celery task every job is a message to.
TASK = "headrace.predict"

#: kombu rounds a priority down to one of these; 0 is taken first.
PRIORITY_STEPS = (0, 3, 6, 9)

#: Priority of jobs somebody waits for, and of jobs of a file.
ONLINE_PRIORITY, BATCH_PRIORITY = 0, 9

_QUEUE_PREFIX = "predict."
_PRIORITY_SEPARATOR = "\x06\x16"
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")


def check_model_name(model: object) -> str:
    """The name itself, or InvalidInput: a name is a part of queue names, key names and paths."""
    if not isinstance(model, str) or not _MODEL_NAME.fullmatch(model):
        raise InvalidInput(
            "a model's name is 1 to 64 letters, digits, '-' or '_', the first a letter or digit; "
            f"got {_shown(model)}"
        )
    return model


def split_version(model: Any, version: Any = None) -> tuple[Any, Any]:
    """A model's name and its version, a number or an alias, which may stand behind the name: `churn@7`.

    Neither is checked. Raises InvalidInput where a version stands there and beside it, or none behind the `@`.
    """
    if not isinstance(model, str) or "@" not in model:
        return model, version
    name, _, behind = model.partition("@")
    if version is not None:
        raise InvalidInput(f"{_shown(model)} names a version, and `version` does too; give one of them")
    if not behind:
        raise InvalidInput(f"{_shown(model)} names no version behind the '@', a number or an alias")
    return name, behind


def check_job_id(job: object) -> str:
    """The id itself, or InvalidInput."""
    if not isinstance(job, str) or not _JOB_ID.fullmatch(job):
        raise InvalidInput(
            "a job's id is 1 to 128 letters, digits, '-', '_', '.' or ':', the first a letter or digit; "
            f"got {_shown(job)}"
        )
    return job


def _shown(value: object) -> str:
    return repr(value[:80]) if isinstance(value, str) else f"a {type(value).__name__}"


def queue_name(model: str) -> str:
    """The queue a model's jobs wait in, as Celery and kombu know it (`-Q predict.churn`)."""
    return _QUEUE_PREFIX + model


def model_name(queue: str) -> str | None:
    """The model a queue belongs to; None for a queue that is not ours."""
    return queue.removeprefix(_QUEUE_PREFIX) if queue.startswith(_QUEUE_PREFIX) else None


def priority_index(priority: int) -> int:
    """The index in PRIORITY_STEPS of the list that holds a priority, rounding down as kombu does."""
    return max(index for index, step in enumerate(PRIORITY_STEPS) if step <= priority)


class Keys(msgspec.Struct, frozen=True):
    """Names of keys and channels in Redis, under the prefix of this installation (kombu's `global_keyprefix`)."""

    prefix: str = ""

    def lists(self, queue: str) -> tuple[str, ...]:
        """The lists of a queue, highest priority first."""
        name = self.prefix + queue
        return tuple(name if step == 0 else f"{name}{_PRIORITY_SEPARATOR}{step}" for step in PRIORITY_STEPS)

    def job(self, job: str) -> str:
        """A string: what is known of a job besides its message (`headrace.submit.enqueue`).

        A UUID's dashes are left out: a name of 44 bytes takes 16 less of Redis' memory than one of 45.
        """
        if len(job) == 36 and job[8] == job[13] == job[18] == job[23] == "-":
            job = job[:8] + job[9:13] + job[14:18] + job[19:23] + job[24:]
        return f"{self.prefix}headrace:id:{job}"

    def result(self, job: str) -> str:
        """Celery's result key, a string; also the channel its arrival is published on."""
        return f"{self.prefix}celery-task-meta-{job}"

    def reply_channel(self, client: str) -> str:
        """A channel: outcomes of one client's jobs, many to a message, a line each."""
        return f"{self.prefix}headrace:replies:{client}"

    def contracts(self, model: str) -> str:
        """A hash: version -> contract (JSON), and `latest` -> version."""
        return f"{self.prefix}headrace:contracts:{model}"

    def aliases(self, model: str) -> str:
        """A hash: alias -> where it points (`headrace.catalog.aliases`)."""
        return f"{self.prefix}headrace:aliases:{model}"

    def alias_history(self, model: str) -> str:
        """A list: the moves of the model's aliases, the newest first."""
        return f"{self.prefix}headrace:alias-history:{model}"

    def loaded(self, model: str) -> str:
        """A hash: worker -> the versions it has in memory (`headrace.catalog.workers`)."""
        return f"{self.prefix}headrace:loaded:{model}"

    def refused(self, model: str) -> str:
        """A hash: version -> which worker will not serve it, and why (`headrace.catalog.workers`)."""
        return f"{self.prefix}headrace:refused:{model}"

    def version_stats(self, model: str, version: str) -> str:
        """A hash: what a version came to while another is tried beside it (counted by workers)."""
        return f"{self.prefix}headrace:version-stats:{model}:{version}"

    def drift(self, model: str, version: str, hour: int) -> str:
        """A string of 32-bit numbers: the rows of an hour since 1970 in each cell of the version's profile."""
        return f"{self.prefix}headrace:drift:{model}:{version}:{hour}"

    def isolated(self, queue: str) -> str:
        """A list: frames to run again, each alone."""
        return f"{self.prefix}headrace:isolated:{queue}"

    def sources(self, queue: str) -> tuple[str, ...]:
        """The lists that a claim takes a queue's jobs from: those to run alone, then the others by priority."""
        return (self.isolated(queue), *self.lists(queue))

    def delayed(self, queue: str) -> str:
        """A sorted set: frames not to be run before their score (unix milliseconds)."""
        return f"{self.prefix}headrace:delayed:{queue}"

    def lease(self, name: str) -> str:
        """A list: the frames of a claim, under the name of its lease."""
        return f"{self.prefix}headrace:lease:{name}"

    @property
    def leases(self) -> str:
        """A sorted set: every lease, by the moment (server's milliseconds) it lapses."""
        return f"{self.prefix}headrace:leases"

    @property
    def prediction_log(self) -> str:
        """A stream: the prediction log, a record (JSON) an entry, where a setting asks for it."""
        return f"{self.prefix}headrace:predictions"

    @property
    def dead(self) -> str:
        """A hash: letter id -> dead letter, as a line of JSON (`headrace.wire.dead_letter`)."""
        return f"{self.prefix}headrace:dead"

    @property
    def dead_messages(self) -> str:
        """A hash: letter id -> the message of the dead letter, byte for byte."""
        return f"{self.prefix}headrace:dead:messages"

    @property
    def dead_times(self) -> str:
        """A sorted set: letter id by the moment it died (the server's unix milliseconds)."""
        return f"{self.prefix}headrace:dead:times"

    @property
    def dead_dropped(self) -> str:
        """A string: how many dead letters were dropped because there were too many or they were too old."""
        return f"{self.prefix}headrace:dead:dropped"

    @property
    def cancelled(self) -> str:
        """A string that is there while some job was cancelled lately: workers then look before they predict."""
        return f"{self.prefix}headrace:cancelled"

    @property
    def models(self) -> str:
        """A set: the names of the models that have a contract published."""
        return f"{self.prefix}headrace:models"
