"""`headrace dead`: list, show, replay, purge and export dead letters."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

import click
import msgspec

from headrace.cli import options
from headrace.cli.command import group
from headrace.cli.commands import ERROR, SOME_FAILED
from headrace.cli.completion import complete_models, complete_versions
from headrace.cli.tables import escape_unprintable, terminal_width
from headrace.clock import to_unix_ms, utc_now
from headrace.status_line import StatusLine
from headrace.text import plural
from headrace.wire.outcome import Reason

if TYPE_CHECKING:
    from headrace.client import DeadLetters
    from headrace.client.common import OnProgress
    from headrace.dead_letters.bulk import BulkResult
    from headrace.dead_letters.filter import DeadLetterFilter

F = TypeVar("F", bound=Callable[..., Any])

#: Replays or purges the letters of a filter. The second argument permits a filter without conditions.
BulkAction = Callable[["DeadLetterFilter", bool, "OnProgress"], "BulkResult"]


@group(examples=["headrace dead list", "headrace dead replay --model churn --error ValueError"])
def dead() -> None:
    """List dead letters, which are the jobs that failed for good; replay, purge or export them.

    All commands but `show` take the same filter: --model, --queue, --reason, --error, --older-than, --newer-than.
    """


def _add_filter_options(command: F) -> F:
    """Add the options of the filter to a command."""
    for option in (
        click.option("--newer-than", type=options.AGE, metavar="AGE", help="Letters of at most this age."),
        click.option(
            "--older-than",
            type=options.AGE,
            metavar="AGE",
            help="Letters of at least this age: seconds, or 90s, 15m, 2h, 7d.",
        ),
        click.option("--error", metavar="NAME", help="Name of the exception, such as ValueError."),
        click.option("--reason", type=click.Choice(get_args(Reason)), help="Reason of the failure."),
        click.option(
            "--queue",
            metavar="NAME",
            help="Letters of this queue; headrace.notify: notices, headrace.listen: ended jobs.",
        ),
        click.option("--model", metavar="NAME", shell_complete=complete_models, help="Jobs of this model."),
    ):
        command = option(command)
    return command


_ids_argument = click.argument("ids", metavar="[ID...]", nargs=-1)
_every_option = click.option("--all", "every", is_flag=True, help="All dead letters.")
_yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
_dry_run_option = click.option("--dry-run", is_flag=True, help="Print how many letters match, and change nothing.")


@dead.command(
    "list", examples=["headrace dead list --model churn --newer-than 2h", "headrace dead list --all --json"]
)
@_add_filter_options
@click.option("--all", "ungrouped", is_flag=True, help="Print a line for each letter.")
@options.as_json
@options.url
def list_(*, ungrouped: bool, as_json: bool, url: str | None, **conditions: Any) -> None:
    """List dead letters: a line for each group of letters that differ only in numbers and ids.

    With --all, print a line for each letter.
    """
    from headrace.cli import dead_letter_format

    with options.open_client(url) as client:
        stored = client.dead_letters.count()
        matching = 0
        if ungrouped:
            for letter in client.dead_letters.list(**conditions):
                matching += 1
                if as_json:
                    options.print_json(letter)
                else:
                    options.print_line(dead_letter_format.format_line(letter))
        else:
            groups = client.dead_letters.groups(**conditions)
            matching = sum(group.count for group in groups)
            width, now_ms = terminal_width(sys.stdout), to_unix_ms(utc_now())
            if groups and not as_json:
                for line in dead_letter_format.format_groups(groups, now_ms, width=width):
                    options.print_line(line)
            for group in groups if as_json else ():
                options.print_json(group)
    if matching:
        click.echo(_format_count(matching), err=True)
    else:
        click.echo("no dead letter matches" if stored.letters else "no dead letters", err=True)
    if stored.dropped:
        click.echo(f"{_format_count(stored.dropped)} dropped so far, by the limits of number and age", err=True)


@dead.command(examples=["headrace dead show nightly-17"])
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option(
    "--payload", is_flag=True, help="Print the instances too, or the first bytes of a malformed message."
)
@options.as_json
@options.url
def show(ids: tuple[str, ...], *, payload: bool, as_json: bool, url: str | None) -> None:
    """Show dead letters with their history: the error, the worker and all attempts."""
    from headrace.cli import dead_letter_format

    with options.open_client(url) as client:
        for number, letter_id in enumerate(ids):
            letter = client.dead_letters.show(letter_id)
            if as_json:
                options.print_json(dead_letter_format.to_json_object(letter, payload=payload))
                continue
            if number:
                options.print_line("")
            for line in dead_letter_format.format_letter(letter, payload=payload):
                options.print_line(line)


@dead.command(
    examples=["headrace dead replay nightly-17", "headrace dead replay --model churn --reason timeout --rate 50"]
)
@_ids_argument
@_add_filter_options
@_every_option
@click.option(
    "--version",
    metavar="N",
    shell_complete=complete_versions,
    help="Version of the model to run; default: the version each job names.",
)
@click.option("--rate", type=float, metavar="N", help="Replay at most N letters a second.")
@_dry_run_option
@_yes_option
@options.as_json
@options.url
@click.pass_context
def replay(
    ctx: click.Context,
    /,
    ids: tuple[str, ...],
    *,
    version: str | None,
    rate: float | None,
    every: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    url: str | None,
    **conditions: Any,
) -> None:
    """Run the jobs of dead letters again, by ID (- reads ids from standard input, one a line) or by a filter.

    A job keeps its id, and the outcome of the replay becomes the job's outcome. Its dead letter is removed when
    the job is back in its queue. A job that fails again gets a new dead letter, with all of its history.
    """
    verb = "would be replayed" if dry_run else "replayed"
    with options.open_client(url) as client:
        letters = client.dead_letters

        def action(conditions: DeadLetterFilter, every: bool, on_progress: OnProgress) -> BulkResult:
            return letters.replay(
                version=version, rate=rate, dry_run=dry_run, every=every, on_progress=on_progress, **conditions
            )

        confirm = not (yes or dry_run)
        result = _run(ctx, letters, action, verb, _to_filter(ids, conditions), every=every, confirm=confirm)
    _print_result(ctx, result, verb, as_json=as_json)


@dead.command(examples=["headrace dead purge --older-than 7d --dry-run", "headrace dead purge --all --yes"])
@_ids_argument
@_add_filter_options
@_every_option
@_dry_run_option
@_yes_option
@options.as_json
@options.url
@click.pass_context
def purge(
    ctx: click.Context,
    /,
    ids: tuple[str, ...],
    *,
    every: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    url: str | None,
    **conditions: Any,
) -> None:
    """Remove dead letters for good, by ID (- reads ids from standard input, one a line) or by a filter.

    The outcomes of their jobs are not removed.
    """
    verb = "would be purged" if dry_run else "purged"
    with options.open_client(url) as client:
        letters = client.dead_letters

        def action(conditions: DeadLetterFilter, every: bool, on_progress: OnProgress) -> BulkResult:
            return letters.purge(dry_run=dry_run, every=every, on_progress=on_progress, **conditions)

        confirm = not (yes or dry_run)
        result = _run(ctx, letters, action, verb, _to_filter(ids, conditions), every=every, confirm=confirm)
    _print_result(ctx, result, verb, as_json=as_json)


@dead.command(examples=["headrace dead export --model churn -o dead.jsonl"])
@_ids_argument
@_add_filter_options
@click.option(
    "-o", "--output", "target", metavar="OUT", default="-", help="The file to write; default: standard output."
)
@click.option("--force", is_flag=True, help="Overwrite OUT.")
@options.url
@click.pass_context
def export(
    ctx: click.Context, /, ids: tuple[str, ...], *, target: str, force: bool, url: str | None, **conditions: Any
) -> None:
    """Write dead letters with their messages as JSON lines; all letters without an ID or a filter.

    The message is in `payload`, as base64. `headrace.wire.dead_letter.decode_exported` reads a line.
    """
    from headrace.batch.writers import check_target, open_target

    check_target(target, "-", force=force)
    selected = _to_filter(ids, conditions)
    missing = dict.fromkeys(selected["ids"] or ())
    exported = 0
    with options.open_client(url) as client, open_target(target) as part_file:
        for letter in client.dead_letters.export(**selected):
            part_file.file.write(msgspec.json.encode(letter) + b"\n")
            missing.pop(letter.id, None)
            exported += 1
    click.echo(f"{_format_count(exported)} exported" if exported else "no dead letter matches", err=True)
    _report_missing(ctx, tuple(missing))


def _run(
    ctx: click.Context,
    letters: DeadLetters,
    action: BulkAction,
    verb: str,
    conditions: DeadLetterFilter,
    *,
    every: bool,
    confirm: bool,
) -> BulkResult:
    """Replay or purge with a progress line, after a confirmation where letters are chosen by a filter."""
    from headrace.dead_letters.filter import parse_filter

    checked = parse_filter(conditions)
    if checked.matches_all != every:
        raise click.UsageError("say which letters: by ID, by a filter, or all of them with --all; not both", ctx)
    if confirm and checked.ids is None:
        conditions = _confirm(ctx, letters, verb, conditions)
    status_line = StatusLine(sys.stderr, terminal=sys.stderr.isatty() and os.environ.get("TERM") != "dumb")
    done = 0

    def show_progress(result: BulkResult) -> None:
        nonlocal done
        done = result.done
        if status_line.elapsed_if_due() is not None:
            status_line.show(lambda width: f"{_format_count(done)} {verb}"[:width])

    try:
        result = action(conditions, every, show_progress)
    except BaseException:
        status_line.close()
        if done:
            click.echo(f"stopped: {_format_count(done)} {verb}", err=True)
        raise
    status_line.close()
    return result


def _confirm(
    ctx: click.Context, letters: DeadLetters, verb: str, conditions: DeadLetterFilter
) -> DeadLetterFilter:
    """Show the matching groups and ask for confirmation; exit if it is refused.

    The filter returned excludes letters that die after they were shown.
    """
    from headrace.cli import dead_letter_format
    from headrace.clock import from_unix_ms

    groups = letters.groups(**conditions)
    if not groups:
        return conditions
    count = _format_count(sum(group.count for group in groups))
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(f"{count} would be {verb}; without a terminal to confirm on, pass --yes", ctx)
    now_ms = to_unix_ms(utc_now())
    for line in dead_letter_format.format_groups(groups, now_ms, width=terminal_width(sys.stderr)):
        click.echo(line, err=True)
    if not click.confirm(f"{count} will be {verb}. Continue?", err=True):
        click.echo(f"nothing was {verb}", err=True)
        ctx.exit(ERROR)
    return {**conditions, "older_than": from_unix_ms(max(group.newest_ms for group in groups))}


def _print_result(ctx: click.Context, result: BulkResult, verb: str, *, as_json: bool) -> None:
    """Print the result of a replay or purge; exit with 1 or 3 if not all letters were handled."""
    from headrace.cli import dead_letter_format

    if as_json:
        options.print_json(result)
    if result == type(result)():
        click.echo(f"no dead letter matches: nothing was {verb}", err=True)
        return
    for line in dead_letter_format.format_result(result, verb):
        click.echo(line, err=True)
    _report_missing(ctx, result.missing)
    if result.malformed or result.id_in_use:
        ctx.exit(SOME_FAILED if result.done else ERROR)


def _report_missing(ctx: click.Context, missing: Sequence[str]) -> None:
    for letter_id in missing:
        click.echo(f"there is no dead letter {escape_unprintable(letter_id)}", err=True)
    if missing:
        ctx.exit(ERROR)


def _to_filter(ids: Sequence[str], conditions: dict[str, Any]) -> DeadLetterFilter:
    if tuple(ids) == ("-",):
        ids = [line.strip() for line in sys.stdin if line.strip()] if sys.stdin is not None else []
        return cast("DeadLetterFilter", {"ids": ids, **conditions})
    return cast("DeadLetterFilter", {"ids": ids or None, **conditions})


def _format_count(letters: int) -> str:
    return plural(letters, "dead letter")
