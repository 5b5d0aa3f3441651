"""Names of queues and of their lists, and of the Celery task.

A queue has kombu's Redis layout: four lists, one for each priority step. Jobs are pushed on the left and taken
from the right. The list of priority 0 has the plain name of the queue.

Jobs that run again wait in lists of their own, `isolated` and `retried`, which producers cannot write. Only there
does the history in front of a message count (`headrace.wire.attempts`).
"""

from __future__ import annotations

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


def list_names(name: str) -> tuple[str, ...]:
    """Return the names of four lists, one for each priority step, as kombu names them."""
    return tuple(name if step == 0 else f"{name}{_PRIORITY_SEPARATOR}{step}" for step in PRIORITY_STEPS)


def foreign_list_names(name: str) -> tuple[tuple[str, str], ...]:
    """Return the lists of kombu clients with other options, each with the list that takes its jobs.

    Celery's documentation tells to set `priority_steps` to all ten priorities, and `sep` to `:`. `name` is that of
    the queue, as in `list_names`.
    """
    lists = list_names(name)
    return tuple(
        (f"{name}{separator}{priority}", lists[priority_index(priority)])
        for separator in (_PRIORITY_SEPARATOR, _OTHER_SEPARATOR)
        for priority in _PRIORITIES
        if separator == _OTHER_SEPARATOR or priority not in PRIORITY_STEPS
    )
