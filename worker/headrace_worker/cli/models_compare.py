"""`headrace models compare`: what the versions that are tried come to, beside the one that serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headrace.catalog.aliases import CANARY, PRODUCTION, SHADOW
from headrace.cli import options
from headrace_worker.cli import models_rollout
from headrace_worker.cli import store as stores

if TYPE_CHECKING:
    from headrace_worker.rollout.version_stats import VersionStats


@click.command()
@click.argument("model")
@stores.option
@options.url
@options.as_json
def compare(*, model: str, store: str | None, url: str | None, as_json: bool) -> None:
    """Say how MODEL's canary and shadow do beside production: failures, times, and how far predictions differ.

    Counted since the canary or the shadow was promoted.
    """
    with models_rollout.promoter(store, url) as promoter:
        found = promoter.compare_versions(model)
        if not found:
            promoter.check_model_exists(model)
    if as_json:
        for name, version, one in found:
            options.print_json({"alias": name, "version": version, **_numbers(one)})
        return
    tried = [name for name, _, _ in found if name in {CANARY, SHADOW}]
    if not tried:
        click.echo(f"{options.printable(model)} has neither a canary nor a shadow", err=True)
        return
    rows = [(name, f"{model}@{version}", *_cells(name, one)) for name, version, one in found]
    titles = ("ALIAS", "VERSION", "JOBS", "FAILED", "P50", "P99", "COMPARED", "DIFFERING", "MEAN", "LARGEST")
    for line in options.table([titles, *rows], right=set(range(2, 10))):
        options.print_line(line)
    if PRODUCTION not in {name for name, _, _ in found}:
        click.echo("no version is promoted to production: the newest serves, and is not counted", err=True)
    for name, version, one in found:
        if one.skipped:
            click.echo(
                f"{name} {model}@{version} left {one.skipped} batches out, not to take more time than production",
                err=True,
            )


def _numbers(one: VersionStats) -> dict[str, object]:
    return {
        "jobs": one.jobs,
        "failed": one.failed,
        "failure_rate": one.failure_rate,
        "p50_seconds": one.quantile_seconds(0.5),
        "p99_seconds": one.quantile_seconds(0.99),
        "compared": one.compared,
        "differing": one.differing,
        "mean_difference": one.difference_sum / one.compared if one.compared else None,
        "largest_difference": one.largest_difference if one.compared else None,
        "skipped": one.skipped,
    }


def _cells(name: str, one: VersionStats) -> tuple[str, ...]:
    compared = name == SHADOW and one.compared
    return (
        f"{one.jobs:,}",
        f"{one.failure_rate:.2%}",
        _milliseconds(one.quantile_seconds(0.5)),
        _milliseconds(one.quantile_seconds(0.99)),
        f"{one.compared:,}" if compared else "",
        f"{one.differing / one.compared:.2%}" if compared else "",
        f"{one.difference_sum / one.compared:.3g}" if compared else "",
        f"{one.largest_difference:.3g}" if compared else "",
    )


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1_000 * seconds:.3g} ms"
