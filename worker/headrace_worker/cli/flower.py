"""`headrace flower`: the dashboard, on the worker's broker."""

from __future__ import annotations

import importlib.util
import os
import sys

import click

from headrace.connection.connect import connect
from headrace.errors import HeadraceError
from headrace.settings import load_settings
from headrace_worker.settings import WorkerSettings

_COLUMNS = "uuid,model,version,instances,state,attempts,received,wait,runtime,worker"

#: Jobs Flower keeps, unless told otherwise: each takes 5 kB.
_MAX_TASKS = 50_000


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Everything else goes to Flower as it is: see `celery flower --help`.",
)
@click.option("--url", metavar="URL", help="Redis.  [HEADRACE_REDIS_URL, else REDIS_URL]")
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5555, show_default=True, help="Port to listen on.")
@click.option("--open", "unlocked", is_flag=True, help="Ask for no login.  [HEADRACE_FLOWER_OPEN]")
@click.option(
    "--allow-actions",
    is_flag=True,
    help="Let who may look also replay, purge, revoke, and stop workers.  [HEADRACE_FLOWER_ACTIONS]",
)
@click.argument("flower_options", nargs=-1, type=click.UNPROCESSED)
def flower(  # noqa: PLR0917  # click gives each by its name
    url: str | None,
    address: str,
    port: int,
    unlocked: bool,
    allow_actions: bool,
    flower_options: tuple[str, ...],
) -> None:
    """Show jobs, queues, models and dead letters in a browser.

    It asks for the login in HEADRACE_FLOWER_LOGIN (user:password), and changes nothing, unless told otherwise.
    """
    if importlib.util.find_spec("flower") is None:
        raise HeadraceError("Flower is not installed: pip install 'headrace-worker[flower]'")
    if url:
        os.environ["HEADRACE_REDIS_URL"] = url
    if unlocked:
        os.environ["HEADRACE_FLOWER_OPEN"] = "true"
    if allow_actions:
        os.environ["HEADRACE_FLOWER_ACTIONS"] = "true"
    connect(load_settings(WorkerSettings)).close()  # opens none, but a URL that cannot be is said in one sentence
    arguments = [sys.executable, "-m", "celery", "-A", "headrace_worker.dashboard", "flower"]
    arguments += [f"--address={address}", f"--port={port}", f"--tasks_columns={_COLUMNS}"]
    arguments += [f"--max_tasks={_MAX_TASKS}", *flower_options]
    os.execv(sys.executable, arguments)  # noqa: S606  # our own arguments, no shell
