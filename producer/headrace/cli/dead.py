"""`headrace dead`: look at the jobs that failed for good, send them again, or remove them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

import click
import msgspec

from headrace.cli import options
from headrace.cli.commands import ERROR, SOME_FAILED
from headrace.status_line import StatusLine
from headrace.wire.outcome import Reason

if TYPE_CHECKING:
    from headrace.client import DeadLetters
    from headrace.client.common import OnProgress
    from headrace.dead_letters.bulk import BulkResult
    from headrace.dead_letters.filter import DeadLetterFilter

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def dead() -> None:
    """Look at the jobs that failed for good, send them again, or remove them.

    The same filters everywhere: --model, --reason, --error, --older-than, --newer-than.
    """


def _which(command: F) -> F:
    """The options that choose letters by what they have in common."""
    for option in (
        click.option("--newer-than", type=options.AGE, metavar="AGE", help="Died so long ago or less."),
        click.option(
            "--older-than", type=options.AGE, metavar="AGE", help="Died so long ago or longer: 90s, 15m, 2h, 7d."
        ),
        click.option("--error", metavar="NAME", help="Name of the exception, as ValueError."),
        click.option("--reason", type=click.Choice(get_args(Reason)), help="Class of the failure."),
        click.option("--model", metavar="NAME", help="Jobs of this model."),
    ):
        command = option(command)
    return command


_letters = click.argument("ids", metavar="[ID...]", nargs=-1)
_every = click.option("--all", "every", is_flag=True, help="Every letter there is.")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")
_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")


@dead.command("list")
@_which
@click.option("--all", "each", is_flag=True, help="A line for each letter.")
@options.as_json
@options.url
def list_(*, each: bool, as_json: bool, url: str | None, **which: Any) -> None:
    """List dead letters: one line for those that are alike but for numbers and ids, or with --all one for each."""
    from headrace.cli import dead_letter_format

    with options.open_client(url) as client:
        count = client.dead_letters.count()
        if each:
            found = 0
            for found, letter in enumerate(client.dead_letters.list(**which), start=1):  # noqa: B007  # said below
                if as_json:
                    options.print_json(letter)
                else:
                    options.print_line(dead_letter_format.line(letter))
        else:
            storms = client.dead_letters.groups(**which)
            found = sum(storm.count for storm in storms)
            for line in dead_letter_format.storm_table(storms) if storms and not as_json else ():
                options.print_line(line)
            for storm in storms if as_json else ():
                options.print_json(storm)
    if not found:
        click.echo("no dead letter matches" if count.letters else "no dead letters", err=True)
    else:
        click.echo(dead_letter_format.letters(found), err=True)
    if count.dropped:
        click.echo(
            f"{dead_letter_format.letters(count.dropped)} dropped so far, by the limits of number and age",
            err=True,
        )


@dead.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--payload", is_flag=True, help="Show the instances too, or the first bytes of what is no job.")
@options.as_json
@options.url
def show(ids: tuple[str, ...], *, payload: bool, as_json: bool, url: str | None) -> None:
    """Show letters with their history: why, where, and what was tried."""
    from headrace.cli import dead_letter_format

    with options.open_client(url) as client:
        for place, name in enumerate(ids):
            kept = client.dead_letters.show(name)
            if as_json:
                options.print_json(dead_letter_format.details(kept, payload=payload))
                continue
            for line in ([""] if place else []) + list(dead_letter_format.page(kept, payload=payload)):
                options.print_line(line)


@dead.command()
@_letters
@_which
@_every
@click.option("--version", metavar="N", help="Version of the model to run; the one asked for without it.")
@click.option("--rate", type=float, metavar="N", help="Letters a second at the most.")
@_dry_run
@_yes
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
    **which: Any,
) -> None:
    """Send jobs again, by their ids (- reads them from standard input, one a line) or by what they have in common.

    A job keeps its id, and the outcome of the replay becomes the job's. Its letter is gone as it is back in
    its queue; if it fails again it gets another, with all of its history.
    """
    verb = "would be replayed" if dry_run else "replayed"
    with options.open_client(url) as client:
        letters = client.dead_letters

        def act(chosen: DeadLetterFilter, every: bool, on_progress: OnProgress) -> BulkResult:
            return letters.replay(
                version=version, rate=rate, dry_run=dry_run, every=every, on_progress=on_progress, **chosen
            )

        tally = _sweep(ctx, letters, act, verb, _chosen(ids, which), every=every, ask=not (yes or dry_run))
    _tell(ctx, tally, verb, as_json=as_json)


@dead.command()
@_letters
@_which
@_every
@_dry_run
@_yes
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
    **which: Any,
) -> None:
    """Remove letters for good, by their ids (- reads them from standard input) or by what they have in common.

    The outcomes of their jobs stay as long as outcomes do.
    """
    verb = "would be purged" if dry_run else "purged"
    with options.open_client(url) as client:
        letters = client.dead_letters

        def act(chosen: DeadLetterFilter, every: bool, on_progress: OnProgress) -> BulkResult:
            return letters.purge(dry_run=dry_run, every=every, on_progress=on_progress, **chosen)

        tally = _sweep(ctx, letters, act, verb, _chosen(ids, which), every=every, ask=not (yes or dry_run))
    _tell(ctx, tally, verb, as_json=as_json)


@dead.command()
@_letters
@_which
@click.option(
    "-o", "--output", "target", metavar="OUT", default="-", help="The file to write; else standard output."
)
@click.option("--force", is_flag=True, help="Overwrite OUT.")
@options.url
@click.pass_context
def export(
    ctx: click.Context, /, ids: tuple[str, ...], *, target: str, force: bool, url: str | None, **which: Any
) -> None:
    """Write letters with their messages as JSON lines; all of them without an id or filter.

    The message is in `payload`, as base64: `headrace.wire.dead_letter.decode_exported` reads a line.
    """
    from headrace.batch.writers import check_target, open_target
    from headrace.cli import dead_letter_format

    check_target(target, "-", force=force)
    chosen = _chosen(ids, which)
    asked, written = dict.fromkeys(chosen["ids"] or ()), 0
    with options.open_client(url) as client, open_target(target) as file:
        for kept in client.dead_letters.export(**chosen):
            file.write(msgspec.json.encode(kept) + b"\n")
            asked.pop(kept.id, None)
            written += 1
    click.echo(
        f"{dead_letter_format.letters(written)} exported" if written else "no dead letter matches", err=True
    )
    _tell_missing(ctx, tuple(asked))


#: Replays or purges the letters chosen, and tells of its progress.
Act = Callable[["DeadLetterFilter", bool, "OnProgress"], "BulkResult"]


def _sweep(
    ctx: click.Context,
    letters: DeadLetters,
    act: Act,
    verb: str,
    chosen: DeadLetterFilter,
    *,
    every: bool,
    ask: bool,
) -> BulkResult:
    """Replay or purge, after a look at what is meant where it is many; exits with what became of them."""
    from headrace.cli import dead_letter_format
    from headrace.dead_letters.filter import parse_filter

    sought = parse_filter(chosen)
    if sought.matches_all != every:
        raise click.UsageError("say which letters: by ID, by a filter, or --all for every one, and not both", ctx)
    if ask and sought.ids is None:
        chosen = _agreed(ctx, letters, verb, chosen)
    line = StatusLine(sys.stderr, terminal=sys.stderr.isatty() and os.environ.get("TERM") != "dumb")
    last: list[BulkResult] = []

    def progress(tally: BulkResult) -> None:
        last[:] = [tally]
        if line.elapsed_if_due() is not None:
            line.show(lambda width: f"{dead_letter_format.letters(tally.done)} {verb}"[:width])

    try:
        tally = act(chosen, every, progress)
    except BaseException:
        line.close()
        if last and last[0].done:
            click.echo(f"stopped: {dead_letter_format.letters(last[0].done)} {verb}", err=True)
        raise
    line.close()
    return tally


def _agreed(ctx: click.Context, letters: DeadLetters, verb: str, chosen: DeadLetterFilter) -> DeadLetterFilter:
    """What is chosen, as far as it was shown and agreed to: letters that die meanwhile are not meant."""
    from headrace.cli import dead_letter_format
    from headrace.dead_letters.filter import from_unix_ms

    storms = letters.groups(**chosen)
    if not storms:
        return chosen
    many = dead_letter_format.letters(sum(storm.count for storm in storms))
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(f"{many} would be {verb}; where nobody can be asked, say --yes", ctx)
    for line in dead_letter_format.storm_table(storms):
        click.echo(line, err=True)
    if not click.confirm(f"{many} to be {verb}. Go on?", err=True):
        click.echo(f"nothing was {verb}", err=True)
        ctx.exit(ERROR)
    return {**chosen, "older_than": from_unix_ms(max(storm.newest_ms for storm in storms))}


def _tell(ctx: click.Context, tally: BulkResult, verb: str, *, as_json: bool) -> None:
    """Say what a replay or purge has done, and exit with 1 or 3 where that is not all it was to do."""
    from headrace.cli import dead_letter_format

    if as_json:
        options.print_json(tally)
    if tally == type(tally)():
        click.echo(f"no dead letter matches: nothing was {verb}", err=True)
        return
    for line in dead_letter_format.tally(tally, verb):
        click.echo(line, err=True)
    _tell_missing(ctx, tally.missing)
    if tally.malformed or tally.id_in_use:
        ctx.exit(SOME_FAILED if tally.done else ERROR)


def _tell_missing(ctx: click.Context, missing: Sequence[str]) -> None:
    for name in missing:
        click.echo(f"there is no dead letter {options.printable(name)}", err=True)
    if missing:
        ctx.exit(ERROR)


def _chosen(ids: Sequence[str], which: dict[str, Any]) -> DeadLetterFilter:
    if tuple(ids) == ("-",):
        ids = [line.strip() for line in sys.stdin if line.strip()] if sys.stdin is not None else []
        return cast("DeadLetterFilter", {"ids": ids, **which})
    return cast("DeadLetterFilter", {"ids": ids or None, **which})
