"""The command `headrace gateway`."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from headrace.cli.command import command
from headrace.settings import load_settings
from headrace_gateway.settings import GatewaySettings


@command(examples=["headrace gateway --address 0.0.0.0 --port 8080 --processes 2"])
@click.option("--address", "gateway_address", help="Address of the API, over HEADRACE_GATEWAY_ADDRESS.")
@click.option("--port", "gateway_port", type=click.IntRange(0, 65_535), help="Its port.")
@click.option("--processes", "gateway_processes", type=click.IntRange(1, 256), help="Processes on the port.")
def gateway(**options: Any) -> None:
    """Serve the HTTP API until Ctrl-C."""
    from headrace_gateway.serve import serve

    chosen = {name: value for name, value in options.items() if value is not None}
    settings = msgspec.structs.replace(load_settings(GatewaySettings), **chosen)
    click.echo(f"API on http://{settings.gateway_address}:{settings.gateway_port}", err=True)
    serve(settings)
