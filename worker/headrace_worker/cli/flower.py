"""`headrace flower`: the dashboard, on the worker's broker."""

from __future__ import annotations

import importlib.util
import os
import sys

import click

from headrace import broker
from headrace.errors import HeadraceError
from headrace.settings import load
from headrace_worker.settings import WorkerSettings

#: A job is known by its model (in its arguments) and version (in its result); the task is always the same.
_COLUMNS = "uuid,args,result,state,received,runtime,worker"


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Everything else goes to Flower as it is: see `celery flower --help`.",
)
@click.option("--url", metavar="URL", help="Redis.  [HEADRACE_REDIS_URL, else REDIS_URL]")
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5555, show_default=True, help="Port to listen on.")
@click.argument("flower_options", nargs=-1, type=click.UNPROCESSED)
def flower(url: str | None, address: str, port: int, flower_options: tuple[str, ...]) -> None:
    """Show jobs and workers in a browser. Anyone who reaches the address sees them: it is loopback by default."""
    if importlib.util.find_spec("flower") is None:
        raise HeadraceError("Flower is not installed: pip install 'headrace-worker[flower]'")
    if url:
        os.environ["HEADRACE_REDIS_URL"] = url
    broker.connect(load(WorkerSettings)).close()  # opens none, but a URL that cannot be is said in one sentence
    arguments = [sys.executable, "-m", "celery", "-A", "headrace_worker.dashboard", "flower"]
    arguments += [f"--address={address}", f"--port={port}", f"--tasks_columns={_COLUMNS}", *flower_options]
    os.execv(sys.executable, arguments)  # noqa: S606  # our own arguments, no shell
