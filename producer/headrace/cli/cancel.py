"""`headrace cancel`: cancel jobs."""

from __future__ import annotations

import click

from headrace.cli import options
from headrace.cli.command import command
from headrace.cli.commands import ERROR
from headrace.cli.json_objects import JobCancellation


@command(examples=["headrace cancel nightly-17 nightly-18"])
@options.jobs
@click.option(
    "--unknown",
    is_flag=True,
    help="Cancel ids that Redis does not know, too: jobs of plain Celery clients, and jobs that arrive later.",
)
@options.as_json
@options.url
@click.pass_context
def cancel(ctx: click.Context, /, jobs: tuple[str, ...], *, unknown: bool, as_json: bool, url: str | None) -> None:
    """Cancel each JOB that has no outcome yet. The exit code is 1 if a job had an outcome, or is unknown."""
    all_cancelled = True
    with options.open_client(url) as client:
        for job_id in jobs:
            job = client.job(job_id)
            cancelled = job.cancel(unknown=unknown)
            status = job.status()
            all_cancelled = all_cancelled and status == "cancelled"
            if as_json:
                options.print_json(JobCancellation(id=job_id, cancelled=cancelled, status=status))
            else:
                options.print_line(status if len(jobs) == 1 else f"{job_id}\t{status}")
    if not all_cancelled:
        ctx.exit(ERROR)
