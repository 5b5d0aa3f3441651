"""The command `headrace models compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from headrace.catalog.aliases import CANARY, PRODUCTION, SHADOW
from headrace.cli import options
from headrace.cli.command import command
from headrace.cli.tables import escape_unprintable, print_table
from headrace_worker.cli.models_rollout import open_promoter
from headrace_worker.cli.store_options import store_option

if TYPE_CHECKING:
    from headrace_worker.rollout.version_stats import VersionStats


class ComparedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of the version of an alias, since the canary or the shadow was promoted."""

    alias: str
    version: str
    jobs: int
    failed: int
    #: The share of jobs that failed, from 0 to 1.
    failure_rate: float
    #: The median and the 99th percentile of the time of a job. Null: no job yet.
    p50_seconds: float | None
    p99_seconds: float | None
    #: For a shadow: predictions compared with production, and those of them that differ.
    compared: int
    differing: int
    mean_difference: float | None
    largest_difference: float | None
    #: Batches that a shadow did not predict, to use no more time than production.
    skipped: int


@command(examples=["headrace models compare churn"])
@options.model
@store_option
@options.url
@options.as_json
def compare(*, model: str, store: str | None, url: str | None, as_json: bool) -> None:
    """Compare MODEL's canary and shadow with production: failures, times and differences of predictions.

    Counts jobs since the canary or the shadow was promoted.
    """
    with open_promoter(store, url) as promoter:
        versions = promoter.compare_versions(model)
        if not versions:
            promoter.check_model_exists(model)
    if as_json:
        for name, version, stats in versions:
            options.print_json(_to_json_object(name, version, stats))
        return
    aliases = {name for name, _, _ in versions}
    if not aliases & {CANARY, SHADOW}:
        click.echo(f"{escape_unprintable(model)} has neither a canary nor a shadow", err=True)
        return
    rows = [(name, f"{model}@{version}", *_cells(name, stats)) for name, version, stats in versions]
    titles = ("ALIAS", "VERSION", "JOBS", "FAILED", "P50", "P99", "COMPARED", "DIFFERING", "MEAN", "LARGEST")
    drops = {1: 8, 8: 7, 9: 6, 6: 5, 4: 4, 5: 3, 7: 2}
    print_table([titles, *rows], right=range(2, 10), drops=drops)
    if PRODUCTION not in aliases:
        click.echo("no version is promoted to production: the newest serves, and is not counted", err=True)
    for name, version, stats in versions:
        if stats.skipped:
            click.echo(
                f"{name} {model}@{version} skipped {stats.skipped} batches, to use no more time than production",
                err=True,
            )


def _to_json_object(alias: str, version: str, stats: VersionStats) -> ComparedVersion:
    return ComparedVersion(
        alias=alias,
        version=version,
        jobs=stats.jobs,
        failed=stats.failed,
        failure_rate=stats.failure_rate,
        p50_seconds=stats.quantile_seconds(0.5),
        p99_seconds=stats.quantile_seconds(0.99),
        compared=stats.compared,
        differing=stats.differing,
        mean_difference=stats.difference_sum / stats.compared if stats.compared else None,
        largest_difference=stats.largest_difference if stats.compared else None,
        skipped=stats.skipped,
    )


def _cells(name: str, stats: VersionStats) -> tuple[str, ...]:
    compared = name == SHADOW and stats.compared
    return (
        f"{stats.jobs:,}",
        f"{stats.failure_rate:.2%}",
        _milliseconds(stats.quantile_seconds(0.5)),
        _milliseconds(stats.quantile_seconds(0.99)),
        f"{stats.compared:,}" if compared else "",
        f"{stats.differing / stats.compared:.2%}" if compared else "",
        f"{stats.difference_sum / stats.compared:.3g}" if compared else "",
        f"{stats.largest_difference:.3g}" if compared else "",
    )


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1_000 * seconds:.3g} ms"
