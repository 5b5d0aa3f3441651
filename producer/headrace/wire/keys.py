"""Names of queues, keys, channels and the Celery task.

A queue has kombu's Redis layout: four lists, one for each priority step. Jobs are pushed on the left and taken
from the right. The list of priority 0 has the plain name of the queue.

Jobs that run again wait in lists of their own, `isolated` and `retried`, which producers cannot write. Only there
does the history in front of a message count (`headrace.wire.attempts`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

import msgspec

#: The Celery task that every job is a message to.
TASK = "headrace.predict"

#: kombu rounds a priority down to one of these steps. Jobs of step 0 are taken first.
PRIORITY_STEPS = (0, 3, 6, 9)

#: Priority of jobs whose caller waits, and of jobs of a file.
ONLINE_PRIORITY, BATCH_PRIORITY = 0, 9

_QUEUE_PREFIX, _BULK_PREFIX = "predict.", "bulk."
#: The separator of a queue's name and a priority step; kombu's default, and the one of Celery's documentation.
_PRIORITY_SEPARATOR, _OTHER_SEPARATOR = "\x06\x16", ":"
#: The priorities that have a list beside that of priority 0, if `priority_steps` has all of them.
_PRIORITIES = range(1, 10)
#: A key prefix whose hash tag decides the slot of every key in a Redis Cluster.
_HASH_TAG = re.compile(r"[^{]*\{[^}]+\}")


def has_hash_tag(prefix: str) -> bool:
    """Decide whether all keys with a prefix lie in one slot of a Redis Cluster."""
    return _HASH_TAG.match(prefix) is not None


def queue_name(model: str) -> str:
    """Return the name of a model's queue, as Celery and kombu know it (`-Q predict.churn`)."""
    return _QUEUE_PREFIX + model


def bulk_queue_name(model: str) -> str:
    """Return the name of the queue of a model's bulk jobs (`headrace.wire.bulk`)."""
    return _BULK_PREFIX + model


def queue_names(model: str) -> tuple[str, str]:
    """Return the names of a model's queues: of its online jobs, and of its bulk jobs."""
    return queue_name(model), bulk_queue_name(model)


def model_name(queue: str) -> str | None:
    """Return the model that a queue belongs to, or None if it is no queue of Headrace."""
    if queue.startswith(_QUEUE_PREFIX):
        return queue.removeprefix(_QUEUE_PREFIX)
    return queue.removeprefix(_BULK_PREFIX) if queue.startswith(_BULK_PREFIX) else None


def is_bulk_queue(queue: str) -> bool:
    """Decide whether the jobs of a queue are those of bulk runs."""
    return queue.startswith(_BULK_PREFIX)


def priority_index(priority: int) -> int:
    """Return the index in PRIORITY_STEPS of the list for a priority, rounding down as kombu does."""
    return max(index for index, step in enumerate(PRIORITY_STEPS) if step <= priority)


#: The index in `Keys.sources` of the isolated jobs, and those of priority 0 among the lists and the retried jobs.
ISOLATED_SOURCE, FIRST_SOURCE = 0, 1
FIRST_RETRIED_SOURCE = FIRST_SOURCE + len(PRIORITY_STEPS)
#: The sources in the order in which a claim takes from them: isolated jobs, then by priority, in turn the retried
#: and the others first.
CLAIM_ORDER = (
    ISOLATED_SOURCE,
    *(source + step for step in range(len(PRIORITY_STEPS)) for source in (FIRST_RETRIED_SOURCE, FIRST_SOURCE)),
)


def holds_histories(source: int) -> bool:
    """Return whether the messages of a source may have a history: producers cannot write that list.

    `source` is an index in `Keys.sources`.
    """
    return source == ISOLATED_SOURCE or source >= FIRST_RETRIED_SOURCE


def _by_priority(name: str) -> tuple[str, ...]:
    """Return the names of four lists, one for each priority step, as kombu names them."""
    return tuple(name if step == 0 else f"{name}{_PRIORITY_SEPARATOR}{step}" for step in PRIORITY_STEPS)


def _digest(queues: Iterable[str]) -> str:
    return hashlib.sha1(" ".join(sorted(queues)).encode(), usedforsecurity=False).hexdigest()[:16]


class Keys(msgspec.Struct, frozen=True):
    """Names of keys and channels in Redis, under the prefix of an installation (kombu's `global_keyprefix`)."""

    prefix: str = ""

    def lists(self, queue: str) -> tuple[str, ...]:
        """Return the lists of a queue, highest priority first."""
        return _by_priority(self.prefix + queue)

    def foreign_lists(self, queue: str) -> tuple[tuple[str, str], ...]:
        """Return the lists of kombu clients with other options, each with the list that takes its jobs.

        Celery's documentation tells to set `priority_steps` to all ten priorities, and `sep` to `:`. Workers move
        the jobs in these lists to those of `lists`, rounding the priority down.
        """
        name, lists = self.prefix + queue, self.lists(queue)
        return tuple(
            (f"{name}{separator}{priority}", lists[priority_index(priority)])
            for separator in (_PRIORITY_SEPARATOR, _OTHER_SEPARATOR)
            for priority in _PRIORITIES
            if separator == _OTHER_SEPARATOR or priority not in PRIORITY_STEPS
        )

    def job(self, job: str) -> str:
        """Return the key of a job's record (`headrace.wire.record`), a string.

        The dashes of a UUID are left out: a key of 44 bytes takes 16 bytes less memory than a key of 45.
        """
        if len(job) == 36 and job[8] == job[13] == job[18] == job[23] == "-":
            job = job[:8] + job[9:13] + job[14:18] + job[19:23] + job[24:]
        return f"{self.prefix}headrace:id:{job}"

    def result(self, job: str) -> str:
        """Return Celery's result key of a job, a string; also the channel on which its outcome is announced."""
        return f"{self.prefix}celery-task-meta-{job}"

    def reply_channel(self, client: str) -> str:
        """Return the channel of one client. A message on it holds outcomes of the client's jobs, one a line."""
        return f"{self.prefix}headrace:replies:{client}"

    def contracts(self, model: str) -> str:
        """Return the key of a model's contracts, a hash: version -> contract (JSON), and `latest` -> version."""
        return f"{self.prefix}headrace:contracts:{model}"

    def aliases(self, model: str) -> str:
        """Return the key of a model's aliases, a hash: alias -> `headrace.catalog.aliases.Alias`."""
        return f"{self.prefix}headrace:aliases:{model}"

    def alias_history(self, model: str) -> str:
        """Return the key of the changes of a model's aliases, a list with the newest first."""
        return f"{self.prefix}headrace:alias-history:{model}"

    def loaded(self, model: str) -> str:
        """Return the key of the versions workers have loaded, a hash: worker -> `catalog.workers.WorkerStatus`."""
        return f"{self.prefix}headrace:loaded:{model}"

    def refused(self, model: str) -> str:
        """Return the key of the versions workers refuse, a hash: version -> `catalog.workers.LoadError`."""
        return f"{self.prefix}headrace:refused:{model}"

    def version_stats(self, model: str, version: str) -> str:
        """Return the key of a version's statistics during a canary or shadow rollout, a hash."""
        return f"{self.prefix}headrace:version-stats:{model}:{version}"

    def drift(self, model: str, version: str, hour: int) -> str:
        """Return the key of a version's drift counts, a string of 32-bit numbers.

        `hour` is counted from 1970. There is a number for each cell of the version's profile.
        """
        return f"{self.prefix}headrace:drift:{model}:{version}:{hour}"

    def isolated(self, queue: str) -> str:
        """Return the key of the queued messages that run first and alone, a list."""
        return f"{self.prefix}headrace:isolated:{queue}"

    def retried(self, queue: str) -> tuple[str, ...]:
        """Return the lists of jobs that run again: retried, requeued or replayed. Highest priority first."""
        return _by_priority(f"{self.prefix}headrace:retried:{queue}")

    def sources(self, queue: str) -> tuple[str, ...]:
        """Return the lists that a claim takes jobs from, in the order by which leases count them.

        They are the isolated jobs, the lists by priority, and the retried jobs by priority.
        """
        return (self.isolated(queue), *self.lists(queue), *self.retried(queue))

    def delayed(self, queue: str) -> str:
        """Return the key of the queued messages that are not due yet, a sorted set by unix milliseconds."""
        return f"{self.prefix}headrace:delayed:{queue}"

    def lease(self, name: str) -> str:
        """Return the key of the queued messages of a claim, a list. `name` is the name of its lease.

        A blocking claim that was ended empty leaves a string there, which expires: no late BLMOVE gets past it.
        """
        return f"{self.prefix}headrace:lease:{name}"

    def grace(self, lease: str) -> str:
        """Return the key of the grace that an empty lease of a blocking claim had, a string that expires.

        The value is the time to which the lease was extended, as in `leases`.
        """
        return f"{self.prefix}headrace:grace:{lease}"

    @property
    def leases(self) -> str:
        """The key of all leases, a sorted set by the moment they expire: unix milliseconds, the server's clock."""
        return f"{self.prefix}headrace:leases"

    @property
    def follow_ups(self) -> str:
        """The key of what follows outcomes and is not sent yet, a sorted set: JSON by unix milliseconds.

        From that moment, by the server's clock, any worker may send it.
        """
        return f"{self.prefix}headrace:follow-ups"

    @property
    def notices_open(self) -> str:
        """The key of the jobs under way whose outcome is to be notified, a sorted set: id by unix milliseconds."""
        return f"{self.prefix}headrace:notify:open"

    @property
    def notices(self) -> str:
        """The key of the notices that are not delivered, a hash: id -> notice (`headrace.wire.notice`)."""
        return f"{self.prefix}headrace:notify:notices"

    @property
    def notices_due(self) -> str:
        """The key of the next attempts of notices, a sorted set: id by unix milliseconds, the server's clock."""
        return f"{self.prefix}headrace:notify:due"

    @property
    def endpoints(self) -> str:
        """The key of the last errors of endpoints, a hash: name -> `results.notice_scripts.EndpointError`."""
        return f"{self.prefix}headrace:notify:endpoints"

    @property
    def listen_open(self) -> str:
        """The key of the jobs under way that have listeners, a sorted set: id by unix milliseconds."""
        return f"{self.prefix}headrace:listen:open"

    @property
    def listen_due(self) -> str:
        """The key of the ended jobs that listeners have not handled, a sorted set (`headrace.wire.listening`)."""
        return f"{self.prefix}headrace:listen:due"

    def listen_channel(self, name: str) -> str:
        """Return the channel of the listeners of a name. A message on it is empty: another job has ended."""
        return f"{self.prefix}headrace:listen:{name}"

    @property
    def prediction_log(self) -> str:
        """The key of the prediction log, a stream with a record (JSON) an entry, if a setting asks for it."""
        return f"{self.prefix}headrace:predictions"

    @property
    def dead(self) -> str:
        """The key of the dead letters, a hash: letter id -> line of JSON (`headrace.wire.dead_letter`)."""
        return f"{self.prefix}headrace:dead"

    @property
    def dead_messages(self) -> str:
        """The key of the dead letters' messages, a hash: letter id -> message, byte for byte."""
        return f"{self.prefix}headrace:dead:messages"

    @property
    def dead_times(self) -> str:
        """The key of the dead letters' times, a sorted set: letter id by unix milliseconds, the server's clock."""
        return f"{self.prefix}headrace:dead:times"

    def dead_share(self, queue: str, *, malformed: bool) -> str:
        """Return the key of the dead letters that share a limit, a sorted set as `dead_times`.

        They are the jobs of a queue, or its malformed messages.
        """
        return f"{self.prefix}headrace:dead:{'malformed' if malformed else 'jobs'}:{queue}"

    @property
    def dead_trimmed(self) -> str:
        """The key that a worker sets before it deletes old dead letters, so that the others need not."""
        return f"{self.prefix}headrace:dead:trimmed"

    @property
    def dead_dropped(self) -> str:
        """The key of the number of dead letters dropped because they were too many or too old, a string."""
        return f"{self.prefix}headrace:dead:dropped"

    @property
    def cancelled(self) -> str:
        """The key that exists after a job was cancelled. Workers then look for outcomes before they predict."""
        return f"{self.prefix}headrace:cancelled"

    @property
    def callers(self) -> str:
        """The key of the gateway's callers, a hash: name -> `headrace.catalog.callers.RegisteredCaller` (JSON).

        It is not under `headrace:`, where a worker may write.
        """
        return f"{self.prefix}headrace.callers"

    def rate(self, caller: str) -> str:
        """Return the key of the rate of a caller, a string that expires (`headrace.catalog.rate`)."""
        return f"{self.prefix}headrace:rate:{caller}"

    @property
    def paused(self) -> str:
        """The key of the paused models, a hash: model -> `headrace.catalog.pauses.Pause` (JSON)."""
        return f"{self.prefix}headrace:paused"

    @property
    def oldest(self) -> str:
        """The key of reports on the oldest waiting jobs, a hash: model -> report (`inspection.oldest`)."""
        return f"{self.prefix}headrace:oldest"

    @property
    def cancel_requests(self) -> str:
        """The key of the jobs that workers are asked to cancel, a sorted set: job id by unix seconds."""
        return f"{self.prefix}headrace:cancel-requests"

    @property
    def changes(self) -> str:
        """The key of the number of changes of aliases and pauses, a string. Workers read both when it changes."""
        return f"{self.prefix}headrace:changes"

    @property
    def workers(self) -> str:
        """The key of the workers that run, a sorted set by their last sign of life, unix milliseconds."""
        return f"{self.prefix}headrace:workers"

    def keeper(self, queues: Iterable[str]) -> str:
        """Return the key of the worker that keeps these queues for all workers of the same queues, a string."""
        return f"{self.prefix}headrace:keeper:{_digest(queues)}"

    def watch(self, queues: Iterable[str]) -> str:
        """Return the key of the idle worker that listens for all workers of the same queues, a string."""
        return f"{self.prefix}headrace:watch:{_digest(queues)}"

    def tokens(self, queue: str) -> str:
        """Return the key of the token that wakes a worker for a queue, a list of at most one."""
        return f"{self.prefix}headrace:tokens:{queue}"

    @property
    def runs(self) -> str:
        """The key of the bulk runs, a sorted set: name by the time of submission, unix milliseconds."""
        return f"{self.prefix}headrace:runs"

    def run(self, run: str) -> str:
        """Return the key of a bulk run, a hash with the fields of `headrace.wire.bulk.RunProgress`."""
        return f"{self.prefix}headrace:run:{run}"

    def receipts(self, run: str) -> str:
        """Return the key of the receipts of a run, a hash: number of the chunk -> `headrace.wire.bulk.Receipt`."""
        return f"{self.prefix}headrace:receipts:{run}"

    @property
    def models(self) -> str:
        """The key of the names of models with a published contract, a set."""
        return f"{self.prefix}headrace:models"
