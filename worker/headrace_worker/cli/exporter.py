"""The command `headrace exporter`."""

from __future__ import annotations

import threading

import click
import msgspec
from prometheus_client import CollectorRegistry

from headrace.bulk import list_runs
from headrace.cli import options
from headrace.cli.command import command
from headrace.connection.connect import connect
from headrace.errors import HeadraceError
from headrace.wire.names import check_model_name
from headrace_worker.cli.store_options import store_option, worker_settings
from headrace_worker.store.store import Store
from headrace_worker.telemetry.http_server import HttpServer
from headrace_worker.telemetry.queue_metrics import QueueCollector
from headrace_worker.telemetry.stored_models import StoredModels
from headrace_worker.telemetry.worker_classes import parse_classes

#: Seconds that Redis may take for a reply, twice at most: Prometheus gives up a scrape after 10 s.
_REDIS_SECONDS = 2.0


@command(examples=["headrace exporter --port 9465"])
@options.url
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=9465, show_default=True, help="Port to listen on.")
@click.option(
    "--models",
    "named",
    metavar="NAME[,NAME]",
    help="Models to show besides those in Redis and in the store.  [HEADRACE_SERVE]",
)
@store_option
@click.option(
    "--class",
    "classes",
    metavar="NAME=MODEL,MODEL",
    multiple=True,
    help="Workers that serve these models; show the sum of their backlogs. NAME= sums every model. Repeatable.",
)
def exporter(
    *, url: str | None, address: str, port: int, named: str | None, store: str | None, classes: tuple[str, ...]
) -> None:
    """Serve metrics of queues, leases, dead letters, models and bulk runs to Prometheus on /metrics, until Ctrl-C.

    One exporter is enough for a Redis. It reads Redis at each scrape and stores nothing. A model is shown from the
    start, with a backlog of 0, if it is in the store or is named here; other models once a worker or `headrace
    models publish` has published them.
    """
    settings = worker_settings(store, url)
    seconds = min(settings.connect_timeout, settings.command_timeout, _REDIS_SECONDS)
    settings = msgspec.structs.replace(settings, connect_timeout=seconds, command_timeout=seconds)
    connect(settings).close()  # opens no connection, but raises SettingError for an invalid URL
    try:
        worker_classes = parse_classes(classes)
        models = {check_model_name(model) for model in (named or settings.serve).split(",") if model}
    except HeadraceError as error:
        raise click.UsageError(str(error)) from None
    stored = StoredModels(Store.from_settings(settings).models)
    registry = CollectorRegistry()
    registry.register(
        QueueCollector(
            lambda: connect(settings, retries=1),
            settings.key_prefix,
            list_models=lambda: models | stored.names(),
            classes=worker_classes,
            list_runs=list_runs,
        )
    )
    stored.start()
    server = HttpServer(address, port, registry)
    click.echo(f"metrics on http://{address}:{server.port}/metrics", err=True)
    threading.Event().wait()
