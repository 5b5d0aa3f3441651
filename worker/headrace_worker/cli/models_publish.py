"""The command `headrace models publish`."""

from __future__ import annotations

import click

from headrace.cli import options
from headrace.cli.command import command
from headrace.cli.commands import ERROR
from headrace.cli.completion import complete_models
from headrace.cli.tables import escape_unprintable
from headrace.connection.connect import connect
from headrace.connection.errors import translate_errors
from headrace.text import plural
from headrace.wire.keys import Keys
from headrace_worker.cli.store_options import open_store, store_option, worker_settings


@command(examples=["headrace models publish churn"])
@click.argument("models", metavar="[MODEL...]", shell_complete=complete_models, nargs=-1)
@store_option
@options.url
@options.as_json
@click.pass_context
def publish(
    ctx: click.Context, /, *, models: tuple[str, ...], store: str | None, url: str | None, as_json: bool
) -> None:
    """Publish the contracts of all models of the store, or of each MODEL, without a worker.

    Producers can then check and submit jobs before any worker has run. A worker publishes what it serves by
    itself. Publishing again changes nothing. Exits with 1 if a version must not serve; the others are published.
    """
    from headrace_worker.rollout.publication import publish_contracts

    settings, opened, problems = worker_settings(store, url), open_store(store), 0
    for model in models:
        opened.latest(model)  # raises UnknownModel with similar names
    names = dict.fromkeys(models or opened.models())
    with translate_errors(settings), connect(settings) as client:
        for publication in publish_contracts(client, Keys(settings.key_prefix), opened, names):
            problems += bool(publication.problem)
            if as_json:
                options.print_json(publication)
                continue
            title = f"{publication.model}@{publication.version}" if publication.version else publication.model
            options.print_line(f"{title}  {escape_unprintable(publication.problem) or 'published'}")
    if not names:
        click.echo(f"no models in {opened.title}", err=True)
    if problems:
        click.echo(f"{plural(problems, 'version')} not published", err=True)
        ctx.exit(ERROR)
