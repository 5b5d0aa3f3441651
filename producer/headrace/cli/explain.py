"""`headrace explain`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
import msgspec

from headrace.cli import options
from headrace.cli.commands import ERROR
from headrace.cli.options import printable

if TYPE_CHECKING:
    from headrace.inspection.timeline import Step, Timeline


@click.command()
@options.jobs
@options.as_json
@options.url
@click.pass_context
def explain(ctx: click.Context, /, jobs: tuple[str, ...], *, as_json: bool, url: str | None) -> None:
    """Tell what became of each JOB: submitted, claimed, predicted, tried again, ended; or where it waits.

    Moments are UTC; of a job that has not ended, the last line says what goes on. The exit code is 1 if a job is
    not known.
    """
    unknown = False
    with options.open_client(url) as client:
        for name in jobs:
            found = client.job(name).explain()
            unknown |= found.status == "unknown"
            if as_json:
                options.print_json(msgspec.to_builtins(found))
            else:
                for line in page(found):
                    options.print_line(line)
    if unknown:
        ctx.exit(ERROR)


def page(found: Timeline) -> Iterator[str]:
    """A timeline in lines: the first step with its moment, the others by the seconds since."""
    of = f" of {found.model}" if found.model else ""
    yield f"job {found.job}{of}: {found.status}"
    moments = [step.at_ms for step in found.steps if step.at_ms is not None]
    for step in found.steps:
        yield f"  {_when(step.at_ms, moments[0] if moments else 0)}  {printable(_said(step))}"
    for name, value in (found.metadata or {}).items():
        yield f"  metadata: {printable(f'{name}={value}')}"
    if found.note:
        yield f"  {found.note}"


def _said(step: Step) -> str:
    if step.kind == "delayed" and step.due_ms is not None:
        return f"{step.text}: {_clock(step.due_ms)}"
    return step.text


def _when(at_ms: int | None, first: int) -> str:
    if at_ms is None:
        return "now".rjust(23)
    if at_ms == first:
        return _clock(at_ms)
    return f"{(at_ms - first) / 1000:+.3f} s".rjust(23)


def _clock(ms: int) -> str:
    from headrace.dead_letters.filter import from_unix_ms

    return f"{from_unix_ms(ms):%Y-%m-%d %H:%M:%S}.{ms % 1000:03d}"
