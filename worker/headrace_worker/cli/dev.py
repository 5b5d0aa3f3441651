"""`headrace dev`: Redis, a worker and Flower on this machine, until Ctrl-C."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from headrace_worker.local.stack import Child

#: Tried first, so that the addresses stay the same from one run to the next.
_REDIS_PORT, _FLOWER_PORT = 6390, 5555


@click.command()
@click.option("--store", type=click.Path(path_type=Path), help="Models to serve; default: demonstration models.")
@click.option("--concurrency", "-c", type=click.IntRange(1), default=2, show_default=True, help="Pool processes.")
@click.option("--flower-port", type=click.IntRange(1, 65535), help="Default: 5555, another where that is taken.")
def dev(store: Path | None, concurrency: int, flower_port: int | None) -> None:
    """Run the whole stack here until Ctrl-C: Redis, a worker, Flower. Nothing leaves loopback."""
    if flower_port is not None and not _free(flower_port):
        raise HeadraceError(f"port {flower_port} is taken; give another with --flower-port")
    # Here, so that `headrace --help` does not load scikit-learn.
    from headrace_worker.local.demo_models import add_demo_models
    from headrace_worker.local.embedded_redis import EmbeddedRedis
    from headrace_worker.local.stack import start_flower, start_worker, until_interrupted
    from headrace_worker.store.store import Store

    with until_interrupted() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-dev-")))
        redis = stack.enter_context(EmbeddedRedis(port=_port(_REDIS_PORT)))
        if store is None:
            store = folder / "models"
            click.echo("training demonstration models ...", err=True)
            add_demo_models(Store(store))
        worker = start_worker(redis.url, store, folder, concurrency=concurrency)
        stack.callback(worker.stop)
        flower_port = flower_port or _port(_FLOWER_PORT)
        flower = start_flower(redis.url, folder, port=flower_port)
        stack.callback(flower.stop)
        click.echo(_welcome(redis.url, flower_port, folder, Store(store).models()))
        with contextlib.suppress(KeyboardInterrupt):
            _watch(worker, flower)
        click.echo("stopping ...", err=True)


def _watch(*children: Child) -> None:
    while True:
        for child in children:
            child.check()
        time.sleep(0.5)


def _port(wanted: int) -> int:
    """The port wanted, or one that is free."""
    if _free(wanted):
        return wanted
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _welcome(url: str, flower_port: int, folder: Path, models: list[str]) -> str:
    return f"""Headrace is up, on this machine alone.

  Redis    {url}
  Flower   http://127.0.0.1:{flower_port}
  models   {", ".join(models) or "none yet"}
  logs     {folder}

In another terminal:

  export HEADRACE_REDIS_URL={url}
  headrace submit churn '{{"age": 41, "plan": "gold"}}' --wait

Ctrl-C stops it all and removes its data."""
