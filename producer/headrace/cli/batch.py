"""`headrace batch`: predict the rows of a file."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from headrace.batch.blocks import MAX_BLOCK_BYTES
from headrace.batch.file import IN_FLIGHT
from headrace.batch.forms import ROWS_PER_JOB
from headrace.batch.reader import Format
from headrace.cli import options
from headrace.cli.command import command
from headrace.cli.commands import SOME_FAILED, exit_on_signal
from headrace.cli.completion import complete_files
from headrace.errors import ResultTimeout
from headrace.wire.queues import BATCH_PRIORITY

#: Delimiters that a shell cannot easily write.
_DELIMITER_NAMES = {"tab": "\t", "\\t": "\t"}


@command(
    examples=[
        "headrace batch churn customers.csv -o predicted.csv",
        "headrace batch churn customers.jsonl -o - --method predict_proba",
    ]
)
@options.model
@click.argument("source", metavar="IN", shell_complete=complete_files)
@click.option(
    "-o", "--output", "target", metavar="OUT", required=True, help="The file to write; - is standard output."
)
@options.version
@options.method
@options.priority(BATCH_PRIORITY)
@click.option(
    "--rows-per-job",
    type=click.IntRange(1, 100_000),
    help=f"Most rows in a job; default: {ROWS_PER_JOB['arrow']:,} in Arrow columns, {ROWS_PER_JOB['json']:,} in "
    f"JSON columns, else {ROWS_PER_JOB['rows']}. A job stays within {MAX_BLOCK_BYTES // 1024**2} MB of the file, "
    "HEADRACE_MAX_JOB_BYTES and HEADRACE_MAX_JOB_VALUES.",
)
@click.option(
    "--in-flight",
    type=click.IntRange(1, 10_000),
    default=IN_FLIGHT,
    show_default=True,
    help="Most jobs under way at a time; fewer if they hold much of the file.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["csv", "jsonl"]),
    help="Format of a file whose name has no known ending, and of standard input and output.",
)
@click.option("--delimiter", metavar="CHAR", help="Delimiter of a CSV; default: detected in the first line.")
@click.option(
    "--column",
    "columns",
    metavar="NAME",
    multiple=True,
    help="A column to send, for models that take lists or texts. For a list, repeat it in order.",
)
@options.durable
@click.option("--timeout", type=options.SECONDS, help="Seconds for the whole file.")
@click.option("--force", is_flag=True, help="Overwrite OUT.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on where a run for OUT has ended or was killed, and keep the finished rows if this one ends.",
)
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
    file_format: Format | None,
    delimiter: str | None,
    as_json: bool,
    url: str | None,
    **batch_options: Any,
) -> None:
    """Predict the rows of IN, a CSV or JSON lines file (- is standard input), and write them to OUT.

    The rows keep their order and their columns, followed by `prediction` (a column for each class or output where
    there are several) and `error`. The exit code is 3 if some rows failed. OUT is created when it is complete;
    Ctrl-C cancels the waiting jobs and creates no file.
    """
    from headrace.batch import predict_file
    from headrace.batch.progress import ProgressMeter

    if as_json and target == "-":
        raise click.UsageError("--json prints the report on standard output, which -o - uses for the rows", ctx)
    delimiter = _DELIMITER_NAMES.get(delimiter or "", delimiter)
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n\0 '):
        raise click.UsageError("--delimiter is one character, or `tab`", ctx)
    meter = ProgressMeter(sys.stderr, size=_get_file_size(source), terminal=_has_terminal(target))
    signal.signal(signal.SIGTERM, exit_on_signal)  # cancels the jobs
    with options.open_client(url) as client:
        try:
            report = predict_file(
                client,
                model,
                source,
                target,
                format=file_format,
                delimiter=delimiter,
                on_progress=meter.show,
                **batch_options,
            )
        except (KeyboardInterrupt, SystemExit):
            meter.close()
            click.echo(f"stopped: {_describe_stop(target, resume=batch_options['resume'])}", err=True)
            raise
        except ResultTimeout as error:
            raise ResultTimeout(f"{error}; {_describe_stop(target, resume=batch_options['resume'])}") from None
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
    wished_rows = batch_options["rows_per_job"]
    if wished_rows is not None and report.largest_job < min(wished_rows, report.rows - report.failed):
        click.echo(
            f"a job held {report.largest_job:,} rows at most, not {wished_rows:,}: its limits are "
            f"{MAX_BLOCK_BYTES // 1024**2} MB of the file, HEADRACE_MAX_JOB_BYTES and HEADRACE_MAX_JOB_VALUES",
            err=True,
        )
    if report.failed:
        ctx.exit(SOME_FAILED)


def _describe_stop(target: str, *, resume: bool) -> str:
    written = "finished rows are on standard output" if target == "-" else f"{target} was not written"
    if resume:
        written += "; the same command goes on from the finished rows"
    return f"jobs without an outcome were cancelled, {written}"


def _get_file_size(source: str) -> int | None:
    path = Path(source)
    return path.stat().st_size if source != "-" and path.is_file() else None


def _has_terminal(target: str) -> bool:
    # A progress bar must not mix with rows on the same terminal.
    rows_on_terminal = target == "-" and sys.stdout.isatty()
    return sys.stderr.isatty() and not rows_on_terminal and os.environ.get("TERM") != "dumb"
