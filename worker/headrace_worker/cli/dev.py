"""The command `headrace dev`: Redis, a worker, Flower and a gateway on this machine, until Ctrl-C."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from headrace.cli.command import command
from headrace.errors import HeadraceError
from headrace.text import format_duration
from headrace_worker.local.ports import free_port, is_free

if TYPE_CHECKING:
    from headrace_worker.local.job_stream import JobStream
    from headrace_worker.local.stack import Child
    from headrace_worker.store.store import Store

F = TypeVar("F", bound=Callable[..., Any])

#: Preferred ports, so that the addresses are the same in every run.
_REDIS_PORT, _FLOWER_PORT, _GATEWAY_PORT = 6390, 5555, 8080
#: Seconds between two looks at the worker's log and at the processes.
_LOOK_SECONDS = 0.2


class _Ports(NamedTuple):
    redis: int
    flower: int
    gateway: int


def _port_option(option: str, server: str, preferred: int) -> Callable[[F], F]:
    return click.option(
        option,
        type=click.IntRange(1, 65535),
        help=f"Port of {server}.  [{preferred}, or another if {preferred} is in use]",
    )


@command(examples=["headrace dev", "headrace dev --store ./models --redis-port 6380"])
@click.option("--store", type=click.Path(path_type=Path), help="Model store to serve.  [demonstration models]")
@click.option("--concurrency", "-c", type=click.IntRange(1), default=2, show_default=True, help="Pool processes.")
@_port_option("--redis-port", "Redis", _REDIS_PORT)
@_port_option("--flower-port", "Flower", _FLOWER_PORT)
@_port_option("--gateway-port", "the HTTP API", _GATEWAY_PORT)
def dev(
    store: Path | None,
    concurrency: int,
    redis_port: int | None,
    flower_port: int | None,
    gateway_port: int | None,
) -> None:
    """Run Redis, a worker and Flower on this machine until Ctrl-C. All of them listen on loopback only.

    The HTTP API runs too, if headrace-gateway is installed. Jobs have a line as they end. Models and jobs are gone
    at the end; the logs are kept.
    """
    ports = {"--redis-port": redis_port, "--flower-port": flower_port, "--gateway-port": gateway_port}
    for option, port in ports.items():
        if port is not None and not is_free(port):
            raise HeadraceError(f"port {port} is in use; give another with {option}")
    from headrace_worker.local.stack import interruptible_stack

    with interruptible_stack() as stack:
        folder = stack.enter_context(_kept_logs())
        chosen = _Ports(
            redis_port or free_port(_REDIS_PORT),
            flower_port or free_port(_FLOWER_PORT),
            gateway_port or free_port(_GATEWAY_PORT),
        )
        _run(stack, folder, store, chosen, concurrency)


def _run(stack: contextlib.ExitStack, folder: Path, store: Path | None, ports: _Ports, concurrency: int) -> None:
    """Start everything, and watch it until Ctrl-C."""
    with _step("loading libraries"):  # late, so that `headrace --help` does not load scikit-learn
        from headrace_worker.local.demo_models import add_demo_models
        from headrace_worker.local.embedded_redis import EmbeddedRedis
        from headrace_worker.local.job_stream import JobStream
        from headrace_worker.local.stack import (
            has_gateway,
            hold_interrupts,
            start_flower,
            start_gateway,
            start_worker,
        )
        from headrace_worker.store.store import Store

    with _step(f"starting Redis on port {ports.redis}"), hold_interrupts():
        redis = stack.enter_context(EmbeddedRedis(port=ports.redis))
    if store is None:
        store = folder / "models"
        with _step("training demonstration models"):
            add_demo_models(Store(store), on_start=lambda name: click.echo(f"  training {name}", err=True))
    with _step(f"starting a worker for the models of {store}"):
        worker = start_worker(redis.url, store, folder, concurrency=concurrency, HEADRACE_LOG_JOBS="true")
        stack.callback(worker.stop)
    stream = JobStream(worker.log)
    with _step(f"starting Flower on port {ports.flower}"):
        flower = start_flower(redis.url, folder, port=ports.flower)
        stack.callback(flower.stop)
    children, api = [worker, flower], None
    if has_gateway():
        with _step(f"starting the HTTP API on port {ports.gateway}"):
            gateway = start_gateway(redis.url, folder, port=ports.gateway)
            stack.callback(gateway.stop)
        children.append(gateway)
        api = f"http://127.0.0.1:{ports.gateway}"
    click.echo(_welcome(redis.url, ports.flower, api, folder, Store(store)))
    with contextlib.suppress(KeyboardInterrupt):
        _supervise(children, stream)
    _print_jobs(stream)
    click.echo("stopping ...", err=True)


@contextlib.contextmanager
def _step(text: str) -> Iterator[None]:
    """Print a step of the start before it begins, and its time if it took a second or more."""
    click.echo(f"{text} ...", err=True)
    started_at = time.monotonic()
    yield
    if (seconds := time.monotonic() - started_at) >= 1:
        click.echo(f"  done in {format_duration(1000 * seconds)}", err=True)


@contextlib.contextmanager
def _kept_logs() -> Iterator[Path]:
    """Make a folder for models and logs. At the end only the logs remain, and their place is printed."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-dev-"))
    try:
        yield folder
    finally:
        for entry in folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.suffix != ".log":
                entry.unlink()
        if any(folder.iterdir()):
            click.echo(f"the logs are in {folder}", err=True)
        else:
            folder.rmdir()


def _print_jobs(stream: JobStream) -> None:
    for line in stream.read():
        click.echo(line, err=True)


def _supervise(children: list[Child], stream: JobStream) -> None:
    """Print the jobs of the worker until a process exits. Raises HeadraceError then."""
    from headrace_worker.local.stack import raise_if_interrupted

    while True:
        _print_jobs(stream)
        for child in children:
            child.check()
        raise_if_interrupted()
        time.sleep(_LOOK_SECONDS)


def _welcome(url: str, flower_port: int, api: str | None, folder: Path, store: Store) -> str:
    from headrace_worker.local.first_commands import describe_first_commands

    address = api or "none; it comes with headrace-gateway"
    return f"""
Headrace runs on this machine, on loopback only.

  Redis    {url}
  Flower   http://127.0.0.1:{flower_port}
  API      {address}
  models   {", ".join(store.models()) or "none yet"}
  logs     {folder}

Try it in another terminal:

  export HEADRACE_REDIS_URL={url}
{describe_first_commands(store, api, folder)}

Jobs have a line here as they end. Ctrl-C stops everything and removes its data, except the logs."""
