"""The command `headrace flower`: Flower with the pages of Headrace."""

from __future__ import annotations

import importlib.util
import os
import sys

import click

from headrace.cli.command import command
from headrace.connection.connect import connect
from headrace.errors import HeadraceError
from headrace.settings import load_settings
from headrace_worker.settings import WorkerSettings

_COLUMNS = "uuid,model,version,instances,state,attempts,received,wait,runtime,worker"


@command(
    examples=["headrace flower --port 5555"],
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="All other options are passed to Flower: see `celery flower --help`.",
)
@click.option("--url", metavar="URL", help="Redis.  [HEADRACE_REDIS_URL, else REDIS_URL]")
@click.option(
    "--address",
    default="127.0.0.1",
    show_default=True,
    envvar="FLOWER_ADDRESS",
    help="Address to listen on.  [FLOWER_ADDRESS]",
)
@click.option(
    "--port", default=5555, show_default=True, envvar="FLOWER_PORT", help="Port to listen on.  [FLOWER_PORT]"
)
@click.option("--open", "unlocked", is_flag=True, help="Serve without a login.  [HEADRACE_FLOWER_OPEN]")
@click.option(
    "--allow-actions",
    is_flag=True,
    help="Allow users to replay, purge and revoke jobs, and to stop workers.  [HEADRACE_FLOWER_ACTIONS]",
)
@click.argument("flower_options", nargs=-1, type=click.UNPROCESSED)
def flower(  # noqa: PLR0917  # click passes them by name
    url: str | None,
    address: str,
    port: int,
    unlocked: bool,
    allow_actions: bool,
    flower_options: tuple[str, ...],
) -> None:
    """Serve web pages of jobs, queues, models and dead letters.

    The pages require the login in HEADRACE_FLOWER_LOGIN (user:password), and are read-only by default.
    """
    if importlib.util.find_spec("flower") is None:
        raise HeadraceError("Flower is not installed: pip install 'headrace-worker[flower]'")
    if url:
        os.environ["HEADRACE_REDIS_URL"] = url
    if unlocked:
        os.environ["HEADRACE_FLOWER_OPEN"] = "true"
    if allow_actions:
        os.environ["HEADRACE_FLOWER_ACTIONS"] = "true"
    connect(load_settings(WorkerSettings)).close()  # opens no connection; raises SettingError
    arguments = [sys.executable, "-m", "celery", "-A", "headrace_worker.dashboard", "flower"]
    os.environ.setdefault("FLOWER_TASKS_COLUMNS", _COLUMNS)
    arguments += [f"--address={address}", f"--port={port}", *flower_options]
    os.execv(sys.executable, arguments)  # noqa: S606  # our own arguments, no shell
