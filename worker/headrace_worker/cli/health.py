"""The command `headrace health`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from headrace.cli.command import command
from headrace.errors import HeadraceError
from headrace.settings import load_settings
from headrace_worker.settings import WorkerSettings
from headrace_worker.telemetry.health import read_status


@command(examples=["headrace health --ready --file /run/headrace/health"])
@click.option("--ready", is_flag=True, help="Check readiness instead: all models of the worker are loaded.")
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The worker's health file.  [HEADRACE_HEALTH_FILE]",
)
def health(*, ready: bool, path: Path | None) -> None:
    """Check the worker on this machine, for a container's health check; exit with 1 if it is not healthy.

    A worker that waits for Redis is healthy. One that hangs or does not run is not.
    """
    path = path or Path(load_settings(WorkerSettings).health_file)
    if path == Path():
        raise HeadraceError("set HEADRACE_HEALTH_FILE, for the worker too: it writes its state to that file")
    status = read_status(path, time.time())
    if not (status.ready if ready else status.live):
        raise HeadraceError(status.reason)
    click.echo(status.reason)
