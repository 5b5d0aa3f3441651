"""The command `headrace exporter`."""

from __future__ import annotations

import threading

import click
import msgspec
from prometheus_client import CollectorRegistry

from headrace.cli import options
from headrace.connection.connect import connect
from headrace.settings import Settings, load_settings
from headrace_worker.telemetry.http_server import HttpServer
from headrace_worker.telemetry.queue_metrics import QueueCollector


@click.command()
@options.url
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=9465, show_default=True, help="Port to listen on.")
def exporter(url: str | None, address: str, port: int) -> None:
    """Serve metrics of queues, leases, dead letters and models to Prometheus on /metrics, until Ctrl-C.

    One exporter is enough for a Redis. It reads Redis at each scrape and stores nothing.
    """
    settings = load_settings(Settings)
    if url:
        settings = msgspec.structs.replace(settings, redis_url=url)
    connect(settings).close()  # opens no connection, but raises SettingError for an invalid URL
    registry = CollectorRegistry()
    registry.register(QueueCollector(lambda: connect(settings), settings.key_prefix))
    server = HttpServer(address, port, registry)
    click.echo(f"metrics on http://{address}:{server.port}/metrics", err=True)
    threading.Event().wait()
