"""The command `headrace dev`: Redis, a worker, Flower and a gateway on this machine, until Ctrl-C."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace.errors import HeadraceError
from headrace_worker.local.ports import free_port, is_free

if TYPE_CHECKING:
    from headrace_worker.local.stack import Child

#: Preferred ports, so that the addresses are the same in every run.
_REDIS_PORT, _FLOWER_PORT, _GATEWAY_PORT = 6390, 5555, 8080


@click.command()
@click.option("--store", type=click.Path(path_type=Path), help="Model store to serve.  [demonstration models]")
@click.option("--concurrency", "-c", type=click.IntRange(1), default=2, show_default=True, help="Pool processes.")
@click.option(
    "--flower-port", type=click.IntRange(1, 65535), help="Port of Flower.  [5555, or another if 5555 is in use]"
)
@click.option(
    "--gateway-port",
    type=click.IntRange(1, 65535),
    help="Port of the HTTP API.  [8080, or another if 8080 is in use]",
)
def dev(store: Path | None, concurrency: int, flower_port: int | None, gateway_port: int | None) -> None:
    """Run Redis, a worker and Flower on this machine until Ctrl-C. All of them listen on loopback only.

    The HTTP API runs too, if headrace-gateway is installed.
    """
    for port, option in ((flower_port, "--flower-port"), (gateway_port, "--gateway-port")):
        if port is not None and not is_free(port):
            raise HeadraceError(f"port {port} is in use; give another with {option}")
    # Imported late, so that `headrace --help` does not load scikit-learn.
    from headrace_worker.local.demo_models import add_demo_models
    from headrace_worker.local.embedded_redis import EmbeddedRedis
    from headrace_worker.local.stack import (
        has_gateway,
        interruptible_stack,
        start_flower,
        start_gateway,
        start_worker,
    )
    from headrace_worker.store.store import Store

    with interruptible_stack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-dev-")))
        redis = stack.enter_context(EmbeddedRedis(port=free_port(_REDIS_PORT)))
        if store is None:
            store = folder / "models"
            click.echo("training demonstration models ...", err=True)
            add_demo_models(Store(store))
        worker = start_worker(redis.url, store, folder, concurrency=concurrency)
        stack.callback(worker.stop)
        flower_port = flower_port or free_port(_FLOWER_PORT)
        flower = start_flower(redis.url, folder, port=flower_port)
        stack.callback(flower.stop)
        children, api = [worker, flower], None
        if has_gateway():
            gateway_port = gateway_port or free_port(_GATEWAY_PORT)
            gateway = start_gateway(redis.url, folder, port=gateway_port)
            stack.callback(gateway.stop)
            children, api = [*children, gateway], f"http://127.0.0.1:{gateway_port}"
        click.echo(_welcome(redis.url, flower_port, api, folder, Store(store).models()))
        with contextlib.suppress(KeyboardInterrupt):
            _supervise(*children)
        click.echo("stopping ...", err=True)


def _supervise(*children: Child) -> None:
    """Check the processes until one of them exits. Raises HeadraceError then."""
    while True:
        for child in children:
            child.check()
        time.sleep(0.5)


def _welcome(url: str, flower_port: int, api: str | None, folder: Path, models: list[str]) -> str:
    from headrace_worker.local.http_example import curl_line

    address = api or "none; it comes with `pip install headrace-gateway`"
    over_http = f"\n\nOver HTTP, from any language:\n\n  {curl_line(api)}" if api else ""
    return f"""Headrace runs on this machine, on loopback only.

  Redis    {url}
  Flower   http://127.0.0.1:{flower_port}
  API      {address}
  models   {", ".join(models) or "none yet"}
  logs     {folder}

Try it in another terminal:

  export HEADRACE_REDIS_URL={url}
  headrace submit churn '{{"age": 41, "plan": "gold"}}' --wait{over_http}

Ctrl-C stops everything and removes its data."""
