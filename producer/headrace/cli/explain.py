"""`headrace explain`: print the history of jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from headrace.cli import options
from headrace.cli.command import command
from headrace.cli.commands import ERROR
from headrace.cli.json_objects import ExplainedRun
from headrace.cli.tables import escape_unprintable
from headrace.clock import from_unix_ms, to_unix_ms, utc_now
from headrace.errors import InvalidInput, UnknownRun
from headrace.text import plural

if TYPE_CHECKING:
    from headrace.bulk.explain import RunExplanation
    from headrace.client import Client
    from headrace.inspection.timeline import Step, Timeline


@command(examples=["headrace explain nightly-17"])
@options.jobs
@options.as_json
@options.url
@click.pass_context
def explain(ctx: click.Context, /, jobs: tuple[str, ...], *, as_json: bool, url: str | None) -> None:
    """Print the history of each JOB: submission, attempts, claim, prediction and outcome, or where it waits.

    Times are UTC. For a job without an outcome, the last line is its present place. The exit code is 1 if a job is
    unknown or lost. JOB may be the name of a bulk run: then its state and what it waits for are printed.
    """
    any_missing = False
    with options.open_client(url) as client:
        for job in jobs:
            timeline = client.job(job).explain()
            if timeline.status == "unknown" and (run := _explain_run(client, job)) is not None:
                _print_run(run, as_json=as_json)
                continue
            any_missing |= timeline.status in {"unknown", "lost"}
            if as_json:
                options.print_json(timeline)
            else:
                for line in format_timeline(timeline):
                    options.print_line(line)
    if any_missing:
        ctx.exit(ERROR)


def _explain_run(client: Client, name: str) -> RunExplanation | None:
    """Return what is known of a bulk run; None if there is none of this name."""
    try:
        return client.bulk_run(name).explain()
    except (UnknownRun, InvalidInput):
        return None


def _print_run(run: RunExplanation, *, as_json: bool) -> None:
    from headrace.cli.bulk_format import format_run

    if as_json:
        options.print_json(ExplainedRun.from_progress(run.progress, notes=run.notes))
        return
    for line in format_run(run.progress, to_unix_ms(utc_now())):
        options.print_line(line)
    for note in run.notes:
        options.print_line(f"  {escape_unprintable(note)}")


def format_timeline(timeline: Timeline) -> Iterator[str]:
    """Yield a timeline as lines: the first step with its moment, the others with the seconds since the first."""
    model = f" of {timeline.model}" if timeline.model else ""
    runs = timeline.attempts or 0
    attempts = f", {plural(runs, 'attempt')}" if runs > 1 else ""
    yield f"job {timeline.job}{model}: {timeline.status}{attempts}"
    moments = [step.at_ms for step in timeline.steps if step.at_ms is not None]
    first_ms = moments[0] if moments else 0
    for step in timeline.steps:
        yield f"  {_format_time(step.at_ms, first_ms)}  {escape_unprintable(_format_step(step))}"
    for name, value in (timeline.metadata or {}).items():
        yield f"  metadata: {escape_unprintable(f'{name}={value}')}"
    if timeline.note:
        yield f"  {escape_unprintable(timeline.note)}"


def _format_step(step: Step) -> str:
    if step.kind == "delayed" and step.due_ms is not None:
        return f"delayed until {_format_moment(step.due_ms)}"
    return step.text


def _format_time(at_ms: int | None, first_ms: int) -> str:
    if at_ms is None:
        return "now".rjust(23)
    if at_ms == first_ms:
        return _format_moment(at_ms)
    return f"{(from_unix_ms(at_ms) - from_unix_ms(first_ms)).total_seconds():+.3f} s".rjust(23)


def _format_moment(unix_ms: int) -> str:
    return f"{from_unix_ms(unix_ms):%Y-%m-%d %H:%M:%S}.{unix_ms % 1000:03d}"
