"""`headrace status`."""

from __future__ import annotations

import click

from headrace.cli import options


@click.command()
@options.jobs
@options.as_json
@options.url
def status(jobs: tuple[str, ...], *, as_json: bool, url: str | None) -> None:
    """Show where each JOB is: queued, running, success, failure, cancelled, expired, or unknown."""
    with options.open_client(url) as client:
        for name in jobs:
            job = client.job(name)
            found = job.status()
            if as_json:
                options.print_json({"id": name, "status": found})
            else:
                options.print_line(found if len(jobs) == 1 else f"{name}\t{found}")
