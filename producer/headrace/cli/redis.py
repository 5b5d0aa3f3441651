"""`headrace redis`: prepare a Redis."""

from __future__ import annotations

import click

from headrace.cli import options
from headrace.cli.command import group
from headrace.text import plural


@group(examples=["headrace redis install"])
def redis() -> None:
    """Prepare a Redis for users with few permissions."""


@redis.command(examples=["headrace redis install --prune --url redis://admin@localhost/0"])
@click.option(
    "--prune", is_flag=True, help="Remove the functions of other releases, once no client or worker of them runs."
)
@options.as_json
@options.url
def install(*, prune: bool, as_json: bool, url: str | None) -> None:
    """Load the functions of this release, which users call in place of EVAL. Redis 7 or later.

    It needs a user who may FUNCTION LOAD, FUNCTION LIST and, for --prune, FUNCTION DELETE. Functions of other
    releases stay, so old workers go on; functions that are loaded already stay too. In a cluster, every primary
    gets them.
    """
    from functools import partial

    from redis.exceptions import ResponseError

    from headrace.client.common import resolve_settings
    from headrace.connection.commands import execute, run
    from headrace.connection.connect import connect_to_primaries
    from headrace.connection.errors import translate_errors
    from headrace.connection.functions import install_functions, merge_changes
    from headrace.connection.script_calls import is_function_missing
    from headrace.connection.url import describe_server
    from headrace.doctor.functions import load_scripts
    from headrace.errors import HeadraceError

    settings = resolve_settings(url, None)
    with translate_errors(settings):
        try:
            changes = merge_changes(
                [
                    run(partial(execute, client), install_functions(load_scripts(), prune=prune))
                    for client in connect_to_primaries(settings)
                ]
            )
        except ResponseError as error:
            if not is_function_missing(error):
                raise
            raise HeadraceError(
                f"Redis at {describe_server(settings)} has no functions, as it is older than 7; "
                "clients and workers use EVAL there"
            ) from None
    if as_json:
        options.print_json(changes)
    else:
        for change in ("added", "replaced", "removed"):
            for function in getattr(changes, change):
                options.print_line(f"{change} {function}")
    total = len(changes.added) + len(changes.replaced) + len(changes.present)
    click.echo(f"{plural(total, 'function')} loaded, {len(changes.present):,} of them before", err=True)
