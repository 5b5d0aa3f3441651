"""`headrace bulk`: submit, show, wait for, cancel and resume bulk runs, and show their failures."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import options
from headrace.cli.command import group
from headrace.cli.commands import ERROR, SOME_FAILED
from headrace.cli.completion import complete_models
from headrace.cli.json_objects import BulkRun
from headrace.cli.tables import terminal_width
from headrace.clock import to_unix_ms, utc_now

if TYPE_CHECKING:
    from headrace.client import RunHandle
    from headrace.wire.bulk import RunProgress

_name = click.argument("name", metavar="RUN")
_names = click.argument("names", metavar="RUN...", nargs=-1, required=True)
_timeout = click.option("--timeout", type=options.SECONDS, help="Wait at most this number of seconds.")


@group(examples=["headrace bulk submit churn in:2026-11 -o out:scores --wait"])
def bulk() -> None:
    """Predict tables of any size: workers read, predict and write them, and no row passes through Redis.

    IN and OUT are references: the name of a location, a colon and a path below it. The workers' setting
    HEADRACE_LOCATIONS says which folder or bucket a location is.
    """


@bulk.command(
    examples=["headrace bulk submit churn 'in:2026-11/*.parquet' -o out:scores/2026-11 --name nightly-29"],
    short_help="Submit a run, and print its name.",
)
@options.model
@click.argument("source", metavar="IN")
@click.option(
    "-o",
    "--output",
    "target",
    metavar="OUT",
    required=True,
    help="The folder of the parts, as out:scores/2026-11.",
)
@click.option(
    "--name", metavar="NAME", help="The run's name: submitting it again resumes the run; default: a new one."
)
@options.version
@options.method
@click.option("--key", metavar="COLUMN", help="The column that identifies a row in the errors.")
@click.option("--keep", metavar="A,B|none", help="Columns of the input that the output has too; default: all.")
@click.option(
    "--max-failed", metavar="N|P%", help="End the run when more rows fail: a number, or a share such as 1%."
)
@click.option("--wait", is_flag=True, help="Wait for the end of the run.")
@click.option(
    "--timeout", type=options.SECONDS, help="Wait for the end of the run, at most this number of seconds."
)
@options.as_json
@options.url
@click.pass_context
def submit(
    ctx: click.Context,
    /,
    model: str,
    source: str,
    target: str,
    *,
    keep: str | None,
    wait: bool,
    timeout: float | None,
    as_json: bool,
    url: str | None,
    **run_options: Any,
) -> None:
    """Submit a run that predicts the table IN with MODEL, and print its name.

    IN is a file, a folder or a glob, such as 'in:2026-11/*.parquet': Parquet, CSV or JSON lines. OUT is a folder.
    The run goes on without this command. A run of the same name that has failed or was cancelled is resumed; with
    other arguments, it is an error.
    """
    columns = None if keep is None else _parse_columns(ctx, keep)
    with options.open_client(url) as client:
        run = client.bulk(model, source, target, keep=columns, **run_options)
        if wait or timeout:
            click.echo(f"run {run.name}", err=True)
            _wait(ctx, run, timeout, as_json=as_json)
            return
        progress = run.status()
    if as_json:
        _print_json(progress)
    else:
        options.print_line(run.name)
    if progress.round > 1 or progress.state != "planning":
        from headrace.cli.bulk_format import describe_rows

        rows = "" if progress.started_ms is None else f", {describe_rows(progress)}"
        rounds = progress.round - 1
        resumed = f", and resumed {'once' if rounds == 1 else f'{rounds} times'}" if rounds else ""
        click.echo(f"the run was submitted before{resumed}: {progress.state}{rows}", err=True)


@bulk.command(examples=["headrace bulk status nightly-29"], short_help="Print what is known of runs.")
@_names
@options.as_json
@options.url
def status(names: tuple[str, ...], *, as_json: bool, url: str | None) -> None:
    """Print what is known of each RUN: its state, rows, chunks, pace and error."""
    from headrace.cli.bulk_format import format_run

    with options.open_client(url) as client:
        for name in names:
            progress = client.bulk_run(name).status()
            if as_json:
                _print_json(progress)
                continue
            for line in format_run(progress, to_unix_ms(utc_now())):
                options.print_line(line)


@bulk.command("list", examples=["headrace bulk list --model churn --limit 5"], short_help="List the newest runs.")
@click.option("--model", metavar="NAME", shell_complete=complete_models, help="Runs of this model.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, metavar="N", help="Runs to list."
)
@options.as_json
@options.url
def list_(*, model: str | None, limit: int, as_json: bool, url: str | None) -> None:
    """List the newest runs, the newest first. A run is forgotten 30 days after its last change."""
    from headrace.cli.bulk_format import format_runs

    with options.open_client(url) as client:
        runs = client.bulk_runs(model, limit=limit)
    if as_json:
        for progress in runs:
            _print_json(progress)
        return
    if not runs:
        click.echo("no bulk run" if model is None else f"no bulk run of {model[:64]}", err=True)
        return
    for line in format_runs(runs, to_unix_ms(utc_now()), width=terminal_width(sys.stdout)):
        options.print_line(line)


@bulk.command(examples=["headrace bulk wait nightly-29 --timeout 3600"], short_help="Wait for the end of a run.")
@_name
@_timeout
@options.as_json
@options.url
@click.pass_context
def wait(ctx: click.Context, /, name: str, *, timeout: float | None, as_json: bool, url: str | None) -> None:
    """Wait for the end of RUN, with a progress bar on a terminal and a line every five seconds elsewhere.

    The exit code is 0 if all rows were predicted, 3 if rows failed or the run failed or was cancelled, and 4 if it
    goes on after the timeout. Ctrl-C ends the wait, and not the run.
    """
    with options.open_client(url) as client:
        _wait(ctx, client.bulk_run(name), timeout, as_json=as_json)


@bulk.command(examples=["headrace bulk cancel nightly-29"], short_help="Cancel runs.")
@_names
@options.as_json
@options.url
@click.pass_context
def cancel(ctx: click.Context, /, names: tuple[str, ...], *, as_json: bool, url: str | None) -> None:
    """Cancel each RUN that goes on. The exit code is 1 if a run ended otherwise.

    Chunks under way end within about a second. Parts that are written stay, and `resume` continues from them.
    """
    with options.open_client(url) as client:
        all_cancelled = True
        for name in names:
            run = client.bulk_run(name)
            all_cancelled &= run.cancel()
            _print_state(run.status(), alone=len(names) == 1, as_json=as_json)
    if not all_cancelled:
        ctx.exit(ERROR)


@bulk.command(
    examples=["headrace bulk resume nightly-29"], short_help="Continue runs that failed or were cancelled."
)
@_names
@options.as_json
@options.url
def resume(names: tuple[str, ...], *, as_json: bool, url: str | None) -> None:
    """Continue each RUN that failed or was cancelled: predict the chunks that are not done.

    A run that goes on, or is a success, stays as it is.
    """
    with options.open_client(url) as client:
        for name in names:
            run = client.bulk_run(name)
            run.resume()
            _print_state(run.status(), alone=len(names) == 1, as_json=as_json)


@bulk.command(
    examples=["headrace bulk failures nightly-29"], short_help="Print why rows and chunks of a run failed."
)
@_name
@options.as_json
@options.url
def failures(name: str, *, as_json: bool, url: str | None) -> None:
    """Print why rows of RUN failed, by reason, and which chunks failed as a whole.

    The rows themselves are in the folder `errors` of the output.
    """
    from headrace.cli import bulk_format

    with options.open_client(url) as client:
        run = client.bulk_run(name)
        failed, progress = run.failures(), run.status()
    if as_json:
        options.print_json(failed)
        return
    if not (failed.reasons or failed.chunks):
        click.echo("no row failed" if progress.error is None else f"no row failed: {progress.error}", err=True)
        return
    for line in bulk_format.format_failures(failed, width=terminal_width(sys.stdout)):
        options.print_line(line)
    for line in bulk_format.advise_on_failures(progress, failed):
        click.echo(line, err=True)


def _wait(ctx: click.Context, run: RunHandle, timeout: float | None, *, as_json: bool) -> None:
    """Wait for a run with its progress on standard error; exit with 3 if rows failed. Raises RunFailed."""
    from headrace.cli.bulk_format import format_end
    from headrace.cli.bulk_progress import RunMeter
    from headrace.errors import RunFailed

    meter = RunMeter(sys.stderr, terminal=sys.stderr.isatty() and os.environ.get("TERM") != "dumb")
    try:
        progress = run.wait(timeout, on_progress=meter.show)
    except RunFailed:
        if as_json:
            _print_json(run.status())
        raise
    except KeyboardInterrupt:
        meter.close()
        click.echo(f"run {run.name} goes on; `headrace bulk cancel {run.name}` cancels it", err=True)
        raise
    finally:
        meter.close()
    if as_json:
        _print_json(progress)
    click.echo(format_end(progress), err=True)
    if progress.rows_failed:
        click.echo(f"`headrace bulk failures {run.name}` says why", err=True)
        ctx.exit(SOME_FAILED)


def _print_state(progress: RunProgress, *, alone: bool, as_json: bool) -> None:
    if as_json:
        _print_json(progress)
    else:
        options.print_line(progress.state if alone else f"{progress.run.name}\t{progress.state}")


def _print_json(progress: RunProgress) -> None:
    options.print_json(BulkRun.from_progress(progress))


def _parse_columns(ctx: click.Context, text: str) -> list[str]:
    """Return the columns of --keep; none for `none`."""
    columns = [] if text.strip() == "none" else [column.strip() for column in text.split(",")]
    if not all(columns):
        raise click.UsageError("--keep is names of columns with commas between them, or none", ctx)
    return columns
