"""`headrace cancel`."""

from __future__ import annotations

import click

from headrace.cli import options
from headrace.cli.commands import ERROR


@click.command()
@options.jobs
@options.as_json
@options.url
@click.pass_context
def cancel(ctx: click.Context, /, jobs: tuple[str, ...], *, as_json: bool, url: str | None) -> None:
    """Cancel each JOB that has no outcome yet. The exit code is 1 if one had, or is not known."""
    late = False
    with options.open_client(url) as client:
        for name in jobs:
            job = client.job(name)
            # To cancel an id nobody submitted would end a job that may yet come.
            known = job.status() != "unknown"
            cancelled = known and job.cancel()
            found = job.status()
            late = late or found != "cancelled"
            if as_json:
                options.print_json({"id": name, "cancelled": cancelled, "status": found})
            else:
                options.print_line(found if len(jobs) == 1 else f"{name}\t{found}")
    if late:
        ctx.exit(ERROR)
