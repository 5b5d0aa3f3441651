"""`headrace models drift`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

from headrace.catalog.aliases import PRODUCTION
from headrace.cli import options
from headrace_worker.cli import store as stores

if TYPE_CHECKING:
    from headrace_worker.drift.psi import ColumnDrift

#: What is printed first.
_WORST = ("drifted", "moved", "too few rows", "stable")


@click.command()
@click.argument("model", metavar="MODEL[@VERSION]")
@click.option("--hours", type=click.IntRange(1, 48), default=24, show_default=True, help="How far to look back.")
@stores.option
@options.url
@options.as_json
def drift(*, model: str, hours: int, store: str | None, url: str | None, as_json: bool) -> None:
    """Say how far what jobs hold, and what is predicted, has moved from what a version was packaged with.

    By the population stability index of each feature and prediction: above 0.1 it moved, above 0.25 it drifted.
    Without VERSION it is the one that production points to, else the newest.
    """
    from headrace.catalog.aliases import decode_aliases, read_aliases
    from headrace.connection.commands import execute
    from headrace.connection.connect import connect
    from headrace.connection.errors import translate_errors
    from headrace.errors import ModelError
    from headrace.wire.keys import Keys
    from headrace_worker.drift import psi as drifts

    opened, settings = stores.opened(store), stores.settings(store)
    if url:
        settings = msgspec.structs.replace(settings, redis_url=url)
    keys = Keys(settings.key_prefix)
    name, _, version = model.partition("@")
    latest = opened.latest(name)
    with translate_errors(settings), connect(settings) as client:
        by_name = decode_aliases(name, execute(client, read_aliases(keys, name))).by_name
        serving = by_name[PRODUCTION].version if PRODUCTION in by_name else latest
        manifest = opened.read_manifest(name, version or serving)
        seconds, _ = client.time()
        now = datetime.fromtimestamp(int(seconds), UTC)
        found = drifts.measure_drift(client, keys, manifest, now, hours=hours)
    if found is None:
        raise ModelError(
            f"{manifest.title} was added without a profile, which takes 100 instances or more: "
            "add it again with --profile FILE"
        )
    if as_json:
        for one in found:
            options.print_json({"model": name, "version": manifest.version, **msgspec.to_builtins(one)})
        return
    for line in options.table([_TITLES, *map(_row, sorted(found, key=_order))], right={2, 3, 5, 6}):
        options.print_line(line)
    click.echo(f"{manifest.title}, the jobs of the last {hours} hours; a sample of them is counted", err=True)


_TITLES = ("NAME", "", "ROWS", "PSI", "", "MISSING", "WHEN ADDED")


def _row(one: ColumnDrift) -> tuple[str, ...]:
    return (
        options.printable(one.name),
        one.column_kind,
        f"{one.rows:,}",
        "-" if one.psi is None else f"{one.psi:.3f}",
        one.verdict,
        f"{one.missing:.1%}",
        f"{one.missing_in_profile:.1%}",
    )


def _order(one: ColumnDrift) -> tuple[int, float]:
    return _WORST.index(one.verdict), -(one.psi or 0.0)
