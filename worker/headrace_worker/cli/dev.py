"""`headrace dev`: Redis, a worker and Flower on this machine, until Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from headrace_worker.stack import Child

#: Tried first, so that the address stays the same from one run to the next.
_REDIS_PORT = 6390


@click.command()
@click.option("--store", type=click.Path(path_type=Path), help="Models to serve; default: demonstration models.")
@click.option("--concurrency", "-c", type=click.IntRange(1), default=2, show_default=True, help="Pool processes.")
@click.option("--flower-port", default=5555, show_default=True)
def dev(store: Path | None, concurrency: int, flower_port: int) -> None:
    """Run the whole stack here until Ctrl-C: Redis, a worker, Flower. Nothing leaves loopback."""
    # Here, so that `headrace --help` does not load scikit-learn.
    from headrace_worker.demo_models import add_demo_models
    from headrace_worker.embedded import EmbeddedRedis
    from headrace_worker.models.store import Store
    from headrace_worker.stack import sigterm_as_interrupt, start_flower, start_worker

    with contextlib.ExitStack() as stack:
        stack.enter_context(sigterm_as_interrupt())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-dev-")))
        redis = stack.enter_context(EmbeddedRedis(port=_REDIS_PORT if _free(_REDIS_PORT) else None))
        if store is None:
            store = folder / "models"
            click.echo("training demonstration models ...", err=True)
            add_demo_models(Store(store))
        worker = start_worker(redis.url, store, folder, concurrency=concurrency)
        stack.callback(worker.stop)
        flower = start_flower(redis.url, folder, port=flower_port)
        stack.callback(flower.stop)
        click.echo(_welcome(redis.url, flower_port, folder, Store(store).models()))
        with contextlib.suppress(KeyboardInterrupt):
            _watch(worker, flower)
        click.echo("stopping ...", err=True)
        # A second Ctrl-C while children end must not leave one behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _watch(*children: Child) -> None:
    while True:
        for child in children:
            child.check()
        time.sleep(0.5)


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
