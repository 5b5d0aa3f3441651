"""The command `headrace dev`: Redis, a worker and Flower on this machine, until Ctrl-C."""

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

#: Preferred ports, so that the addresses are the same in every run.
_REDIS_PORT, _FLOWER_PORT = 6390, 5555


@click.command()
@click.option("--store", type=click.Path(path_type=Path), help="Model store to serve.  [demonstration models]")
@click.option("--concurrency", "-c", type=click.IntRange(1), default=2, show_default=True, help="Pool processes.")
@click.option(
    "--flower-port", type=click.IntRange(1, 65535), help="Port of Flower.  [5555, or another if 5555 is in use]"
)
def dev(store: Path | None, concurrency: int, flower_port: int | None) -> None:
    """Run Redis, a worker and Flower on this machine until Ctrl-C. All of them listen on loopback only."""
    if flower_port is not None and not _is_free(flower_port):
        raise HeadraceError(f"port {flower_port} is in use; give another with --flower-port")
    # Imported late, so that `headrace --help` does not load scikit-learn.
    from headrace_worker.local.demo_models import add_demo_models
    from headrace_worker.local.embedded_redis import EmbeddedRedis
    from headrace_worker.local.stack import interruptible_stack, start_flower, start_worker
    from headrace_worker.store.store import Store

    with interruptible_stack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-dev-")))
        redis = stack.enter_context(EmbeddedRedis(port=_free_port(_REDIS_PORT)))
        if store is None:
            store = folder / "models"
            click.echo("training demonstration models ...", err=True)
            add_demo_models(Store(store))
        worker = start_worker(redis.url, store, folder, concurrency=concurrency)
        stack.callback(worker.stop)
        flower_port = flower_port or _free_port(_FLOWER_PORT)
        flower = start_flower(redis.url, folder, port=flower_port)
        stack.callback(flower.stop)
        click.echo(_welcome(redis.url, flower_port, folder, Store(store).models()))
        with contextlib.suppress(KeyboardInterrupt):
            _supervise(worker, flower)
        click.echo("stopping ...", err=True)


def _supervise(*children: Child) -> None:
    """Check the processes until one of them exits. Raises HeadraceError then."""
    while True:
        for child in children:
            child.check()
        time.sleep(0.5)


def _free_port(preferred: int) -> int:
    """Return the preferred port if it is free, else any free port."""
    if _is_free(preferred):
        return preferred
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _welcome(url: str, flower_port: int, folder: Path, models: list[str]) -> str:
    return f"""Headrace runs on this machine, on loopback only.

  Redis    {url}
  Flower   http://127.0.0.1:{flower_port}
  models   {", ".join(models) or "none yet"}
  logs     {folder}

Try it in another terminal:

  export HEADRACE_REDIS_URL={url}
  headrace submit churn '{{"age": 41, "plan": "gold"}}' --wait

Ctrl-C stops everything and removes its data."""
