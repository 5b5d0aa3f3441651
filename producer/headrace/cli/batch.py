"""`headrace batch`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from headrace.batch.file import IN_FLIGHT, ROWS_PER_JOB
from headrace.batch.reader import Format
from headrace.cli import options
from headrace.cli.commands import SOME_FAILED
from headrace.errors import ResultTimeout
from headrace.wire.keys import BATCH_PRIORITY

_DELIMITERS = {"tab": "\t", "\\t": "\t"}


@click.command()
@click.argument("model")
@click.argument("source", metavar="IN")
@click.option(
    "-o", "--output", "target", metavar="OUT", required=True, help="The file to write; - is standard output."
)
@options.version
@options.method
@options.priority(BATCH_PRIORITY)
@click.option(
    "--rows-per-job",
    type=click.IntRange(1, 100_000),
    default=ROWS_PER_JOB,
    show_default=True,
    help="Rows in a job.",
)
@click.option(
    "--in-flight",
    type=click.IntRange(1, 10_000),
    default=IN_FLIGHT,
    show_default=True,
    help="Jobs under way at a time.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "jsonl"]),
    help="Format of what has no telling file ending, as -.",
)
@click.option("--delimiter", metavar="CHAR", help="What is between the cells of a CSV; found out without it.")
@click.option(
    "--column",
    "columns",
    metavar="NAME",
    multiple=True,
    help="For models that take lists or texts: a column to send. Several times for a list, in order.",
)
@options.durable
@click.option("--timeout", type=options.SECONDS, help="Seconds for the whole file.")
@click.option("--force", is_flag=True, help="Overwrite OUT.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on standard output.")
@options.url
@click.pass_context
def batch(
    ctx: click.Context,
    /,
    model: str,
    source: str,
    target: str,
    *,
    kind: Format | None,
    delimiter: str | None,
    as_json: bool,
    url: str | None,
    **rest: Any,
) -> None:
    """Predict the rows of IN, a CSV or JSON lines file (- is standard input), and write them to OUT.

    The rows keep their order and their columns; behind them come `prediction` (one for each class or output
    where there are several) and `error`. When some rows failed the exit code is 3. OUT appears when it is
    whole; Ctrl-C cancels the jobs that wait and leaves none.
    """
    from headrace.batch import predict_file
    from headrace.batch.progress import ProgressMeter

    if as_json and target == "-":
        raise click.UsageError("--json prints the report on standard output, which -o - gives to the rows", ctx)
    delimiter = _DELIMITERS.get(delimiter or "", delimiter)
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n\0 '):
        raise click.UsageError("--delimiter is one character, or `tab`", ctx)
    meter = ProgressMeter(sys.stderr, size=_size(source), terminal=_has_terminal(target))
    signal.signal(signal.SIGTERM, _end)
    with options.open_client(url) as client:
        try:
            report = predict_file(
                client,
                model,
                source,
                target,
                format=kind,
                delimiter=delimiter,
                on_progress=meter.show,
                **rest,
            )
        except (KeyboardInterrupt, SystemExit):
            meter.close()
            click.echo(f"stopped: {_left(target)}", err=True)
            raise
        except ResultTimeout as error:
            raise ResultTimeout(f"{error}; {_left(target)}") from None
        finally:
            meter.close()
    if as_json:
        options.print_json(report)
    rate = report.rows / report.seconds if report.seconds else 0
    click.echo(
        f"{report.rows:,} rows predicted by {report.model}@{report.version} in {report.seconds:.1f} s "
        f"({rate:,.0f} rows/s), {report.failed:,} failed",
        err=True,
    )
    if report.failed:
        ctx.exit(SOME_FAILED)


def _left(target: str) -> str:
    written = "what was done is on standard output" if target == "-" else f"{target} was not written"
    return f"jobs without an outcome were cancelled, {written}"


def _end(number: int, _: object) -> None:
    # What a shell reports of a process ended by a signal; the exception lets the jobs be cancelled first.
    raise SystemExit(128 + number)


def _size(source: str) -> int | None:
    path = Path(source)
    return path.stat().st_size if source != "-" and path.is_file() else None


def _has_terminal(target: str) -> bool:
    # A bar among rows on the same screen would spoil both.
    mixed = target == "-" and sys.stdout.isatty()
    return sys.stderr.isatty() and not mixed and os.environ.get("TERM") != "dumb"
