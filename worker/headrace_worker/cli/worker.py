"""`headrace worker`: `celery -A headrace_worker worker` with Headrace's defaults."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import redis

from headrace.connection.connect import connect
from headrace.connection.errors import is_permanent, translate_error
from headrace.errors import ModelError
from headrace.settings import load_settings
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Everything else goes to Celery as it is: see `celery worker --help`.",
)
@click.option(
    "--models", "served", metavar="NAME[,NAME]", help="Serve these models only; default: all of the store."
)
@click.option(
    "--store", metavar="STORE", help="The model store, a folder or URL.  [HEADRACE_MODELS, else ./models]"
)
@click.option("--url", metavar="URL", help="Redis.  [HEADRACE_REDIS_URL, else REDIS_URL]")
@click.option(
    "--time-limit",
    metavar="SECONDS",
    help="When to kill a pool process whose model has no limit.  [HEADRACE_TIME_LIMIT, else 3600]",
)
@click.option(
    "--memory-limit",
    metavar="BYTES",
    help="What a pool process may take.  [HEADRACE_MEMORY_LIMIT, else 0, no limit]",
)
@click.option(
    "--drain", metavar="SECONDS", help="How long jobs may run on after SIGTERM.  [HEADRACE_DRAIN, else 25]"
)
@click.option("-c", "--concurrency", type=click.IntRange(1), help="Pool processes; default: one for each core.")
@click.option("-l", "--loglevel", default="INFO", show_default=True, help="DEBUG, INFO, WARNING or ERROR.")
@click.argument("celery_options", nargs=-1, type=click.UNPROCESSED)
def worker(  # noqa: PLR0917  # click passes them by name
    served: str | None,
    store: str | None,
    url: str | None,
    time_limit: str | None,
    memory_limit: str | None,
    drain: str | None,
    concurrency: int | None,
    loglevel: str,
    celery_options: tuple[str, ...],
) -> None:
    """Run a worker until it is told to stop (SIGTERM, Ctrl-C). Told twice, it stops at once."""
    given = {
        "HEADRACE_SERVE": served,
        "HEADRACE_MODELS": store,
        "HEADRACE_REDIS_URL": url,
        "HEADRACE_TIME_LIMIT": time_limit,
        "HEADRACE_MEMORY_LIMIT": memory_limit,
        "HEADRACE_DRAIN": drain,
    }
    for name, value in given.items():
        if value:
            os.environ[name] = value
    _check(load_settings(WorkerSettings))
    # A program of its own takes this one's place: signals reach Celery, and its settings are read once.
    arguments = [sys.executable, "-m", "celery", "-A", "headrace_worker"]
    if not sys.stderr.isatty():
        arguments.append("--quiet")  # its banner is for people, and no line of a log
    arguments += ["worker", "--loglevel", loglevel]
    if concurrency:
        arguments += ["--concurrency", str(concurrency)]
    os.execv(sys.executable, [*arguments, *celery_options])  # noqa: S606  # our own arguments, no shell


def _check(settings: WorkerSettings) -> None:
    """Say in a sentence what no worker can run with: Celery would show a traceback, or try again for ever."""
    store = Store.from_settings(settings, cached=True)
    if (path := Path(store.title)).exists() and not path.is_dir():
        raise ModelError(f"the model store {store.title} is no folder; see HEADRACE_MODELS")
    for model in settings.serve.split(","):
        if model:
            store.latest(model)
    store.models()
    with connect(settings) as client:
        try:
            client.ping()
        except redis.RedisError as error:
            if is_permanent(error):
                raise translate_error(error, settings) from None
            click.echo(f"headrace: {translate_error(error, settings)}\nheadrace: waiting for it", err=True)
