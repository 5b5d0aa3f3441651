"""Celery's remote control, for jobs as well as for tasks: a worker runs many jobs in one task, their claim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from celery.utils.functional import maybe_list
from celery.worker import control, state

from headrace.wire.queues import TASK
from headrace_worker.process.running_jobs import find_jobs

_celery_revoke, _celery_query_task = control.revoke, control.query_task


def cancel_on_revoke(cancel: Callable[[Sequence[str]], None]) -> None:
    """Make `celery control revoke ID` cancel jobs as well, in whatever queue they wait."""

    @control.control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")  # type: ignore[untyped-decorator]  # Celery's
    def revoke(of_worker: Any, task_id: Any, terminate: bool = False, **options: Any) -> Any:
        """Cancel jobs and revoke tasks by id."""
        ids = [str(each) for each in maybe_list(task_id) or []]
        cancel(ids)
        if terminate:  # for an ordinary task; for a job it would also end the other jobs of its claim
            return _celery_revoke(of_worker, ids, terminate=True, **options)
        state.revoked.update(ids)
        return {"ok": f"cancelled, or flagged as revoked: {', '.join(ids)}"}


@control.inspect_command(variadic="ids", signature="[id1 [id2 [... [idN]]]]")  # type: ignore[untyped-decorator]  # Celery's
def query_task(of_worker: Any, ids: Any, **options: Any) -> dict[str, Any]:
    """Find jobs and tasks that this worker has, by id. A job is shown as its claim: model and number of jobs."""
    sought = {str(each) for each in maybe_list(ids) or []}
    replies: dict[str, Any] = dict(_celery_query_task(of_worker, list(sought), **options))
    for request in list(state.requests.values()):
        for job in sought.intersection(find_jobs(request)):
            status, info = _celery_query_task(of_worker, [request.id], **options)[request.id]
            replies[job] = (status, {**info, "id": job, "name": TASK, "claim": request.id})
    return replies
