"""The command `headrace models drift`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, Self

import click
import msgspec

from headrace.catalog.aliases import PRODUCTION
from headrace.cli import options
from headrace.cli.command import command
from headrace.cli.completion import complete_models
from headrace.cli.tables import escape_unprintable, print_table
from headrace_worker.cli.store_options import open_store, store_option, worker_settings

if TYPE_CHECKING:
    from headrace_worker.drift.psi import ColumnDrift


class DriftedColumn(msgspec.Struct, frozen=True, kw_only=True):
    """The drift of one column: a feature, or a number of the predictions."""

    model: str
    version: str
    name: str
    column_kind: Literal["feature", "prediction"]
    #: Rows counted.
    rows: int
    #: The population stability index, 0 or more. Null: too few rows.
    psi: float | None
    verdict: Literal["stable", "moved", "drifted", "too few rows"]
    #: The share of rows without a value, from 0 to 1: in the profile, and in the rows counted.
    missing_in_profile: float
    missing: float

    @classmethod
    def from_drift(cls, model: str, version: str, column: ColumnDrift) -> Self:
        """Return the object of a column of a version."""
        fields = {name: getattr(column, name) for name in column.__struct_fields__}
        return cls(model=model, version=version, **fields)


#: Verdicts in the order in which their columns are printed.
_ORDER = ("drifted", "moved", "too few rows", "stable")


@command(examples=["headrace models drift churn"])
@click.argument("model", metavar="MODEL[@VERSION]", shell_complete=complete_models)
@click.option(
    "--hours", type=click.IntRange(1, 48), default=24, show_default=True, help="Hours of jobs to include."
)
@store_option
@options.url
@options.as_json
def drift(*, model: str, hours: int, store: str | None, url: str | None, as_json: bool) -> None:
    """Compare the inputs and predictions of recent jobs with the instances a version was packaged with.

    Prints the population stability index of each feature and prediction: above 0.1 it moved, above 0.25 it
    drifted. The default VERSION is the one in production, else the newest.
    """
    from headrace.catalog.aliases import decode_aliases, read_aliases
    from headrace.connection.commands import execute
    from headrace.connection.connect import connect
    from headrace.connection.errors import translate_errors
    from headrace.connection.server_time import decode_server_time
    from headrace.errors import ModelError
    from headrace.wire.keys import Keys
    from headrace_worker.drift.psi import measure_drift

    opened, settings = open_store(store), worker_settings(store, url)
    keys = Keys(settings.key_prefix)
    name, _, version = model.partition("@")
    latest = opened.latest(name)
    with translate_errors(settings), connect(settings) as client:
        by_name = decode_aliases(name, execute(client, read_aliases(keys, name))).by_name
        serving = by_name[PRODUCTION].version if PRODUCTION in by_name else latest
        manifest = opened.read_manifest(name, version or serving)
        now = datetime.fromtimestamp(decode_server_time(client.time()) / 1000, UTC)
        columns = measure_drift(client, keys, manifest, now, hours=hours)
    if columns is None:
        raise ModelError(
            f"{manifest.title} was added without a profile, which takes 100 instances or more: "
            "add it again with --profile FILE"
        )
    if as_json:
        for column in columns:
            options.print_json(DriftedColumn.from_drift(name, manifest.version, column))
        return
    rows = [_TITLES, *map(_row, sorted(columns, key=_sort_key))]
    print_table(rows, right={2, 3, 5, 6}, drops={6: 4, 1: 3, 2: 2, 5: 1})
    click.echo(f"{manifest.title}: a sample of the jobs of the last {hours} hours", err=True)


_TITLES = ("NAME", "", "ROWS", "PSI", "", "MISSING", "WHEN ADDED")


def _row(column: ColumnDrift) -> tuple[str, ...]:
    return (
        escape_unprintable(column.name),
        column.column_kind,
        f"{column.rows:,}",
        "-" if column.psi is None else f"{column.psi:.3f}",
        column.verdict,
        f"{column.missing:.1%}",
        f"{column.missing_in_profile:.1%}",
    )


def _sort_key(column: ColumnDrift) -> tuple[int, float]:
    return _ORDER.index(column.verdict), -(column.psi or 0.0)
