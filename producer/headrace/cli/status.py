"""`headrace status`: print the status of jobs."""

from __future__ import annotations

from headrace.cli import options
from headrace.cli.command import command
from headrace.cli.json_objects import JobStatus


@command(examples=["headrace status nightly-17"])
@options.jobs
@options.as_json
@options.url
def status(jobs: tuple[str, ...], *, as_json: bool, url: str | None) -> None:
    """Print the status of each JOB: waiting, running, success, failure, cancelled, expired, lost or unknown.

    A lost job is in no place, as its list was deleted. Submit it again, under the same id.
    """
    with options.open_client(url) as client:
        for job_id in jobs:
            job = client.job(job_id)
            job_status = job.status()
            if job_status == "waiting":  # look for it
                job_status = job.explain().status
            if as_json:
                options.print_json(JobStatus(id=job_id, status=job_status))
            else:
                options.print_line(job_status if len(jobs) == 1 else f"{job_id}\t{job_status}")
