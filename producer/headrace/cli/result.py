"""`headrace result`: wait for jobs and print their predictions."""

from __future__ import annotations

import time

import click

from headrace.cli import options
from headrace.cli.command import command
from headrace.cli.commands import SOME_FAILED
from headrace.cli.json_objects import JobFailure, JobPrediction
from headrace.errors import HeadraceError, JobFailed, ResultTimeout


@command(examples=["headrace result nightly-17 --timeout 30"])
@options.jobs
@click.option("--timeout", type=options.SECONDS, help="Seconds to wait for all jobs together; default: no limit.")
@options.as_json
@options.url
@click.pass_context
def result(
    ctx: click.Context, /, jobs: tuple[str, ...], *, timeout: float | None, as_json: bool, url: str | None
) -> None:
    """Wait for each JOB and print its predictions, one a line, in the order of the ids.

    The exit code is 3 if a job failed, and 4 if a job had no outcome in time.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    failed = timed_out = 0
    with options.open_client(url) as client:
        for job_id in jobs:
            job = client.job(job_id)
            if timeout is None and job.status() == "unknown":
                raise HeadraceError(
                    f"job {job_id} is unknown, or its outcome has expired; use --timeout to wait for it"
                )
            try:
                # After the deadline, outcomes that are already published are still read.
                prediction = job.result(None if deadline is None else max(0.05, deadline - time.monotonic()))
            except ResultTimeout:
                timed_out += 1
                click.echo(f"job {job_id} has no outcome yet", err=True)
            except JobFailed as error:
                failed += 1
                click.echo(str(error), err=True)
                if as_json:
                    options.print_json(JobFailure(id=job_id, reason=error.reason, error=error.error))
            else:
                if as_json:
                    options.print_json(JobPrediction.from_prediction(job_id, prediction))
                else:
                    options.print_predictions(prediction)
    if timed_out:
        raise ResultTimeout(f"{timed_out} of {len(jobs)} jobs had no outcome within {timeout:g} s")
    if failed:
        ctx.exit(SOME_FAILED)
