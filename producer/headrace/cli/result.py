"""`headrace result`."""

from __future__ import annotations

import time

import click
import msgspec

from headrace.cli import options
from headrace.cli.commands import SOME_FAILED
from headrace.errors import HeadraceError, JobFailed, ResultTimeout


@click.command()
@options.jobs
@click.option(
    "--timeout", type=options.SECONDS, help="Seconds to wait for all of them; without it as long as it takes."
)
@options.as_json
@options.url
@click.pass_context
def result(
    ctx: click.Context, /, jobs: tuple[str, ...], *, timeout: float | None, as_json: bool, url: str | None
) -> None:
    """Wait for each JOB and print its predictions, one a line, in the order of the ids.

    The exit code is 3 if a job failed, and 4 if one had no outcome in time.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    failed = late = 0
    with options.open_client(url) as client:
        for name in jobs:
            job = client.job(name)
            if timeout is None and job.status() == "unknown":
                raise HeadraceError(
                    f"no job {name} is known, or its outcome is forgotten; with --timeout it is waited for"
                )
            try:
                # Past the deadline, what is there already is still read.
                prediction = job.result(None if deadline is None else max(0.05, deadline - time.monotonic()))
            except ResultTimeout:
                late += 1
                click.echo(f"job {name} has no outcome yet", err=True)
            except JobFailed as error:
                failed += 1
                click.echo(str(error), err=True)
                if as_json:
                    options.print_json({"id": name, "reason": error.reason, "error": error.error})
            else:
                if as_json:
                    options.print_json({"id": name, **msgspec.to_builtins(prediction)})
                else:
                    for one in prediction.predictions:
                        options.print_line(options.format_prediction(one))
    if late:
        raise ResultTimeout(f"{late} of {len(jobs)} jobs had no outcome within {timeout:g} s")
    if failed:
        ctx.exit(SOME_FAILED)
