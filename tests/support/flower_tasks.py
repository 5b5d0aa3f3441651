"""Events of jobs, as workers send them, for Flower's store of tasks."""

from __future__ import annotations

from typing import Any

from headrace.wire.queues import TASK
from headrace_worker.dashboard.tasks import JobsState

#: The moment in the ids of the jobs: unix time in seconds.
SUBMITTED = 0x0199A2B48C00 / 1000


def job_id(number: int) -> str:
    """Return the id of a job that was submitted at the moment SUBMITTED."""
    return f"0199a2b4-8c00-7000-8000-{number:012}"


def send(state: JobsState, kind: str, job: str, moment: float = SUBMITTED, **fields: Any) -> Any:
    """Store an event of a job, and return the job."""
    common = {
        "hostname": "w@h",
        "timestamp": moment,
        "local_received": moment,
        "clock": 1,
        "model": "churn",
        "version": "3",
    }
    state.event({"type": f"task-{kind}", "uuid": job, "name": TASK, **common, **fields})
    return state.tasks[job]
