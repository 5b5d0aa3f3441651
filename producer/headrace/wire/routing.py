"""A router for Celery's setting `task_routes`: the queue of a job that is sent without naming one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.errors import InvalidInput
from headrace.wire.names import check_model_name, split_version
from headrace.wire.queues import TASK, queue_name


def route_job(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], *_: Any, **__: Any
) -> dict[str, str] | None:
    """Return the queue of the model that a task `headrace.predict` names; None for other tasks.

        app.conf.task_routes = (headrace.route_job,)

    Celery calls it with the name and the arguments of a task, unless the sender names a queue.
    """
    if name != TASK:
        return None
    model = kwargs.get("model") or (args[0] if args else None)
    try:
        return {"queue": queue_name(check_model_name(split_version(model)[0]))}
    except InvalidInput:
        return None
