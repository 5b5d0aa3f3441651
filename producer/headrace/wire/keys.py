"""Names of keys and channels in Redis."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

import msgspec

from headrace.wire.queues import foreign_list_names, list_names

#: A key prefix whose hash tag decides the slot of every key in a Redis Cluster.
_HASH_TAG = re.compile(r"[^{]*\{[^}]+\}")


def has_hash_tag(prefix: str) -> bool:
    """Decide whether all keys with a prefix lie in one slot of a Redis Cluster."""
    return _HASH_TAG.match(prefix) is not None


def _digest(queues: Iterable[str]) -> str:
    return hashlib.sha1(" ".join(sorted(queues)).encode(), usedforsecurity=False).hexdigest()[:16]


class Keys(msgspec.Struct, frozen=True):
    """Names of keys and channels in Redis, under the prefix of an installation (kombu's `global_keyprefix`)."""

    prefix: str = ""

    def lists(self, queue: str) -> tuple[str, ...]:
        """Return the lists of a queue, highest priority first."""
        return list_names(self.prefix + queue)

    def foreign_lists(self, queue: str) -> tuple[tuple[str, str], ...]:
        """Return the lists of kombu clients with other options, each with the list that takes its jobs.

        Workers move the jobs in these lists to those of `lists`.
        """
        return foreign_list_names(self.prefix + queue)

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
        return list_names(f"{self.prefix}headrace:retried:{queue}")

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
