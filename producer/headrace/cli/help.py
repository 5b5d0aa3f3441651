"""`headrace help`: print the help of a command."""

from __future__ import annotations

import click

from headrace.cli.command import command


@command(examples=["headrace help submit", "headrace help dead replay"])
@click.argument("names", metavar="[COMMAND]...", nargs=-1)
@click.pass_context
def help(ctx: click.Context, /, names: tuple[str, ...]) -> None:  # noqa: A001  # the name of the command
    """Print the help of COMMAND, or of all commands."""
    context = ctx.find_root()
    for name in names:
        parent = context.command
        if not isinstance(parent, click.Group):
            raise click.UsageError(f"`{context.command_path}` has no commands", context)
        _, entry, _ = parent.resolve_command(context, [name])
        if entry is not None:
            context = click.Context(entry, info_name=name, parent=context)
    click.echo(context.get_help())
