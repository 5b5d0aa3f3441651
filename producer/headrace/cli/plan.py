"""`headrace plan`: print the workers that each model has, and the workers it needs for a wait."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import options
from headrace.cli.command import command
from headrace.cli.completion import complete_models
from headrace.cli.tables import print_table
from headrace.errors import UnknownModel
from headrace.text import did_you_mean, format_duration

if TYPE_CHECKING:
    from headrace.monitor.overview import Monitor, Overview
    from headrace.monitor.plan import ModelPlan

#: Seconds of listening before the measurement: workers learn of a new listener within half a second.
_WARM_UP_SECONDS = 1.0
_NOT_MEASURED = "not measured yet"


class _PerSecond(click.FloatRange):
    """A number of jobs a second."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; fail for one that is none (NaN), which is in every range."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail("must be a number", param, ctx)
        return number


@command(examples=["headrace plan --wait 5s", "headrace plan --model churn --arrivals 200 --rate 50"])
@click.option(
    "--model",
    "names",
    metavar="NAME",
    multiple=True,
    shell_complete=complete_models,
    help="Plan this model.  [all models]  Repeatable.",
)
@click.option(
    "--wait", type=options.DURATION, default="5s", show_default=True, help="How long a job may wait: 0.5s, 5s, 2m."
)
@click.option(
    "--measure",
    type=options.DURATION,
    default="10s",
    show_default=True,
    help="How long to count jobs that come and finish.",
)
@click.option(
    "--arrivals", type=_PerSecond(0, 1e9), metavar="N", help="Jobs a second that will come, in place of measuring."
)
@click.option(
    "--rate",
    type=_PerSecond(0, 1e9, min_open=True),
    metavar="N",
    help="Jobs a second that one pool process runs, in place of measuring.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Pool processes of a worker.  [as workers report]",
)
@options.as_json
@options.url
def plan(
    *,
    names: tuple[str, ...],
    wait: float,
    measure: float,
    arrivals: float | None,
    rate: float | None,
    processes: int | None,
    as_json: bool,
    url: str | None,
) -> None:
    """Print the workers that each model has, and the workers it NEEDS so that a job waits at most --wait.

    BACKLOG is the number of jobs that want a worker. For --measure, ARRIVALS/S counts the jobs that come, and
    RATE/S the jobs that one pool process runs in a second of its time, from the events of workers. Nothing is
    guessed: what was not measured is called so.
    """
    from headrace.client.common import resolve_settings
    from headrace.monitor.overview import Monitor
    from headrace.monitor.plan import Assumptions, plan_models, read_workers

    is_given = arrivals is not None and rate is not None
    if (arrivals is not None or rate is not None) and len(names) != 1:
        raise click.UsageError("--arrivals and --rate are those of one model; name it with --model")
    assumptions = Assumptions(
        wait=wait, arrivals_per_second=arrivals, rate_per_process=rate, processes_per_worker=processes
    )
    with Monitor(resolve_settings(url, None)) as monitor:
        before, after = _measure(monitor, 0.0 if is_given else measure)
        models = _select_models(after, names)
        plans = plan_models(before, after, monitor.run(read_workers(monitor.keys, models)), assumptions)
    if as_json:
        for model_plan in plans:
            options.print_json(model_plan)
        return
    if not plans:
        click.echo("no model has a queue yet: a worker that serves a model publishes it", err=True)
        return
    print_table(_rows(plans), right=range(1, 7), drops={4: 4, 5: 3, 3: 2, 2: 1})
    note = f"NEEDED is the workers for a wait of {format_duration(wait * 1000)}"
    if not is_given:
        note += f", by what was measured in {format_duration(measure * 1000)}"
        if after.models is None:
            note = "this Redis user may not listen to events, so nothing is measured: give --arrivals and --rate"
    click.echo(note, err=True)


def _measure(monitor: Monitor, seconds: float) -> tuple[Overview, Overview]:
    """Return two overviews, and count the events of `seconds` between them; 0 measures nothing."""
    if not seconds:
        overview = monitor.read()
        return overview, overview
    monitor.listen(time.monotonic() + _WARM_UP_SECONDS)
    monitor.restart(window=seconds)
    before = monitor.read()
    monitor.listen(time.monotonic() + seconds)
    return before, monitor.read()


def _select_models(overview: Overview, names: Sequence[str]) -> list[str]:
    """Return the models to plan. Raises UnknownModel for a name without a published contract."""
    published = [depth.model for depth in overview.queues if not depth.is_bulk]
    for name in names:
        if name not in published:
            raise UnknownModel(f"no model {name[:64]!r} is published{did_you_mean(name, published)}")
    return [model for model in published if not names or model in names]


def _rows(plans: Sequence[ModelPlan]) -> list[list[str]]:
    header = ["MODEL", "BACKLOG", "ARRIVALS/S", "RATE/S", "PROCESSES", "WORKERS", "NEEDED"]
    return [header, *map(_row, plans)]


def _row(model_plan: ModelPlan) -> list[str]:
    needed = "-"
    if model_plan.workers_needed is not None:
        needed = f"{model_plan.workers_needed:,}"
    elif model_plan.processes_needed is not None:  # no worker tells how many processes it has
        needed = f"{model_plan.processes_needed:,} pool processes"
    per_worker = model_plan.processes_per_worker
    return [
        f"{model_plan.model}{' (paused)' if model_plan.paused else ''}",
        f"{model_plan.backlog:,}",
        _format_rate(model_plan.arrivals_per_second),
        _format_rate(model_plan.rate_per_process),
        "-" if per_worker is None else f"{per_worker:g}",
        f"{model_plan.workers:,}",
        needed,
    ]


def _format_rate(rate: float | None) -> str:
    if rate is None:
        return _NOT_MEASURED
    return f"{rate:,.0f}" if rate >= 100 or rate == 0 else f"{rate:.3g}"
