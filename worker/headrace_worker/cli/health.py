"""`headrace health`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from headrace.errors import HeadraceError
from headrace.settings import load_settings
from headrace_worker.settings import WorkerSettings
from headrace_worker.telemetry.health import read_status


@click.command()
@click.option("--ready", is_flag=True, help="Whether it is ready, too: its models are proven.")
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="What the worker writes.  [HEADRACE_HEALTH_FILE]",
)
def health(*, ready: bool, path: Path | None) -> None:
    """Say how the worker on this machine is; exits with 1 when it does not live. For a container's health check.

    A worker that waits for Redis lives. One that hangs does not, and neither does one that is not there.
    """
    path = path or Path(load_settings(WorkerSettings).health_file)
    if path == Path():
        raise HeadraceError("set HEADRACE_HEALTH_FILE, for the worker too: it says there how it is")
    verdict = read_status(path, time.time())
    if not (verdict.ready if ready else verdict.live):
        raise HeadraceError(verdict.reason)
    click.echo(verdict.reason)
