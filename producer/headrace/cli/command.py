"""Commands and groups of commands whose help has examples, and whose lists are not cut.

`@command(examples=[...])` and `@group()` take the place of click's decorators; so does `@some_group.command(...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

#: More characters than the first sentence of any help text. Click cuts it after 45 otherwise.
_NO_LIMIT = 1_000


class ExampleCommand(click.Command):
    """A click command with examples, which are command lines that a shell accepts."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, and then the epilog."""
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:  # as they are: a wrapped one could not be copied
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")
        super().format_epilog(ctx, formatter)


class ExampleGroup(ExampleCommand, click.Group):
    """A click group with examples, which lists its commands with a whole sentence each."""

    command_class = ExampleCommand

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, entry.get_short_help_str(_NO_LIMIT)) for name, entry in commands if entry is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def command(
    name: str | None = None, *, examples: Sequence[str], **options: Any
) -> Callable[[Callable[..., Any]], ExampleCommand]:
    """Return a decorator that makes a function a command. `options` are those of `click.command`."""
    return click.command(name, cls=ExampleCommand, examples=examples, **options)


def group(
    name: str | None = None, *, examples: Sequence[str] = (), **options: Any
) -> Callable[[Callable[..., Any]], ExampleGroup]:
    """Return a decorator that makes a function a group of commands. `options` are those of `click.group`."""
    return click.group(name, cls=ExampleGroup, examples=examples, **options)
