"""The command `headrace worker`: `celery -A headrace_worker worker` with Headrace's defaults."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import redis

from headrace.cli.command import command
from headrace.cli.completion import complete_models
from headrace.cli.signals import hold_sigterm_as_process_1
from headrace.connection.connect import connect
from headrace.connection.errors import is_permanent, translate_error
from headrace.connection.url import describe_server
from headrace.errors import ModelError, SettingError
from headrace.settings import load_settings
from headrace_worker.process.pool_kinds import check_pool, find_pool
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store


@command(
    examples=[
        "headrace worker --store ./models",
        "headrace worker --models churn,fraud --concurrency 4 --max-tasks-per-child 1000",
    ],
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="All other options are passed to Celery: see `celery worker --help`.",
)
@click.option(
    "--models",
    "served",
    metavar="NAME[,NAME]",
    shell_complete=complete_models,
    help="Serve only these models.  [HEADRACE_SERVE, else all of the store]",
)
@click.option(
    "--store", metavar="STORE", help="The model store, a folder or URL.  [HEADRACE_MODELS, else ./models]"
)
@click.option("--url", metavar="URL", help="Redis.  [HEADRACE_REDIS_URL, else REDIS_URL]")
@click.option(
    "--time-limit",
    metavar="SECONDS",
    help="Time limit of a run, for models without their own.  [HEADRACE_TIME_LIMIT, else 3600]",
)
@click.option(
    "--memory-limit",
    metavar="BYTES",
    help="Memory limit of a pool process.  [HEADRACE_MEMORY_LIMIT, else 0, no limit]",
)
@click.option(
    "--drain",
    metavar="SECONDS",
    help="How long running jobs may continue after SIGTERM.  [HEADRACE_DRAIN, else 25]",
)
@click.option("--bulk", is_flag=True, help="Run the jobs of bulk runs only.  [HEADRACE_BULK_ONLY]")
@click.option("-c", "--concurrency", type=click.IntRange(1), help="Pool processes.  [the cores it may use]")
@click.option(
    "-l", "--loglevel", default="INFO", show_default=True, help="Log level: DEBUG, INFO, WARNING or ERROR."
)
@click.argument("celery_options", nargs=-1, type=click.UNPROCESSED)
def worker(  # noqa: PLR0917  # click passes them by name
    served: str | None,
    store: str | None,
    url: str | None,
    time_limit: str | None,
    memory_limit: str | None,
    drain: str | None,
    bulk: bool,
    concurrency: int | None,
    loglevel: str,
    celery_options: tuple[str, ...],
) -> None:
    """Run a worker until SIGTERM or Ctrl-C; a second signal stops it at once."""
    check_pool(find_pool(celery_options))  # Celery would import gevent before it loads this package
    settings = {
        "HEADRACE_SERVE": served,
        "HEADRACE_MODELS": store,
        "HEADRACE_REDIS_URL": url,
        "HEADRACE_TIME_LIMIT": time_limit,
        "HEADRACE_MEMORY_LIMIT": memory_limit,
        "HEADRACE_DRAIN": drain,
        "HEADRACE_BULK_ONLY": "true" if bulk else None,
    }
    for name, value in settings.items():
        if value:
            os.environ[name] = value
    settings_of_worker = load_settings(WorkerSettings)
    if sys.stderr.isatty():  # at once: a person should not wait for imports without a word
        click.echo(
            f"headrace: starting a worker for the models of {settings_of_worker.models}, "
            f"with Redis at {describe_server(settings_of_worker)}",
            err=True,
        )
    _check(settings_of_worker)
    # Celery replaces this process, so that signals reach it and settings are read once.
    arguments = [sys.executable, "-m", "celery", "-A", "headrace_worker"]
    if not sys.stderr.isatty():
        arguments.append("--quiet")  # the banner is for terminals; in a log it is noise
    arguments += ["worker", "--loglevel", loglevel]
    if concurrency:
        arguments += ["--concurrency", str(concurrency)]
    hold_sigterm_as_process_1()
    os.execv(sys.executable, [*arguments, *celery_options])  # noqa: S606  # our own arguments, no shell


def _check(settings: WorkerSettings) -> None:
    """Raise for a store, model or Redis that no worker can use: Celery would print a traceback or retry for ever.

    A Redis that does not answer is only reported: the worker waits for it. Raises ModelError, SettingError,
    BrokerUnavailable.
    """
    if settings.bulk_only and not settings.locations:
        raise SettingError("HEADRACE_BULK_ONLY needs HEADRACE_LOCATIONS: bulk jobs read and write there")
    store = Store.from_settings(settings, cached=True)
    if (path := Path(store.title)).exists() and not path.is_dir():
        raise ModelError(f"the model store {store.title} is not a folder; see HEADRACE_MODELS")
    for model in settings.serve.split(","):
        if model:
            store.latest(model)
    store.models()
    with connect(settings, retries=0) as client:  # the worker itself repeats it, and opens its probes first
        try:
            client.ping()
        except redis.RedisError as error:
            if is_permanent(error):
                raise translate_error(error, settings) from None
            click.echo(f"headrace: {translate_error(error, settings)}\nheadrace: waiting for it", err=True)
