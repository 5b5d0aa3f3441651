"""`headrace completion`: a script that makes a shell complete commands, options, and names that are in Redis.

The shell runs `headrace` at each Tab, with the words so far in its environment. So completion is quick: it asks
Redis with a short timeout, and without Redis it completes nothing and prints nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    add_completion_class,
    get_completion_class,
)

from headrace.cli.command import command
from headrace.cli.commands import COMPLETE_VARIABLE

if TYPE_CHECKING:
    from headrace.connection.commands import Command
    from headrace.wire.keys import Keys

#: Seconds that a person waits at most after a Tab while Redis does not answer.
_TIMEOUT = 0.5
_SHELLS = ("bash", "zsh", "fish")


class _Bash(BashComplete):
    """Bash inserts completions as they are: a value with spaces needs escapes."""

    name = "bash"

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Return the line for the script, of which `read` takes away one of two backslashes."""
        return super().format_completion(CompletionItem(item.value.replace(" ", r"\\ "), type=item.type))


class _Fish(FishComplete):
    """The script for fish, which must not split a value with commas."""

    name = "fish"
    source_template = FishComplete.source_template.replace('string split ","', 'string split --max 1 ","')


add_completion_class(_Bash)
add_completion_class(_Fish)


@command(
    examples=["headrace completion bash > ~/.local/share/bash-completion/completions/headrace"],
    short_help="Print a script that completes commands in a shell.",
)
@click.argument("shell", metavar="|".join(_SHELLS), type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, /, shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print a script that completes commands, options, models, versions, aliases and reasons in a shell.

    For this shell only: source <(headrace completion bash), or headrace completion fish | source. For all later
    shells: see the example for bash; for zsh, write it to a file _headrace in a folder of $fpath; for fish, to
    ~/.config/fish/completions/headrace.fish.
    """
    root = ctx.find_root().command
    click.echo(get_completion_class(shell)(root, {}, "headrace", COMPLETE_VARIABLE).source(), nl=False)


def answer_shell(root: click.Command, instruction: str) -> None:
    """Print the completions that a shell asks for; nothing after an error, as a person is typing."""
    shell = get_completion_class(instruction.partition("_")[0])
    if shell is None:
        return
    with contextlib.suppress(Exception), contextlib.redirect_stderr(None):
        words, _ = shell(root, {}, "headrace", COMPLETE_VARIABLE).get_completion_args()
        click.echo(shell(root, {"obj": words}, "headrace", COMPLETE_VARIABLE).complete())


def complete_models(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Complete the name of a model, also the last one of a list with commas."""
    from headrace.catalog.published import decode_model_names, read_model_names

    former, comma, start = incomplete.rpartition(",")
    reply = _ask(ctx, read_model_names)
    names = decode_model_names(reply) if reply is not None else []
    return [CompletionItem(f"{former}{comma}{name}") for name in names if name.startswith(start)]


def complete_versions(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Complete a version, or an alias of one, of the model that is named before."""
    from headrace.catalog.aliases import is_version
    from headrace.catalog.published import version_order

    model = _named_model(ctx)
    reply = _ask(ctx, lambda keys: _hash_names(keys.contracts(model))) if model else None
    numbers = [name for name in _decode(reply or []) if is_version(name)]
    return [
        *complete_aliases(ctx, _, incomplete),
        *_starting(sorted(numbers, key=version_order, reverse=True), incomplete),
    ]


def complete_aliases(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Complete an alias of the model that is named before."""
    from headrace.catalog.aliases import check_alias
    from headrace.errors import InvalidInput

    model = _named_model(ctx)
    reply = _ask(ctx, lambda keys: _hash_names(keys.aliases(model))) if model else None
    names = []
    for name in _decode(reply or []):
        with contextlib.suppress(InvalidInput):  # others may have written anything
            names.append(check_alias(name))
    return _starting(sorted(names), incomplete)


def complete_files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Leave a file to the shell."""
    return [CompletionItem(incomplete, type="file")]


def _named_model(ctx: click.Context) -> str:
    return str(_read_params(ctx).get("model") or "")


def _read_params(ctx: click.Context) -> dict[str, Any]:
    """Return the parameters before the cursor.

    The parser reads no argument if the last word is an option without its value, which is where the cursor is.
    Then the words before that option are parsed.
    """
    words = ctx.find_root().obj or []
    if not words or not words[-1].startswith("-") or ctx.info_name not in words:
        return ctx.params
    before = words[words.index(ctx.info_name) + 1 : -1]
    return ctx.command.make_context(ctx.info_name, before, parent=ctx.parent, resilient_parsing=True).params


def _hash_names(key: str) -> Command:
    from headrace.connection.commands import Command

    return Command(("HKEYS", key))


def _decode(names: Iterable[bytes]) -> list[str]:
    return [name.decode(errors="replace") for name in names]


def _starting(names: Iterable[str], incomplete: str) -> list[CompletionItem[str]]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _ask(ctx: click.Context, make_command: Callable[[Keys], Command]) -> Any:
    """Return Redis's reply to a command that is made from the keys; None if there is none in time."""
    import msgspec
    from redis.exceptions import RedisError

    from headrace.client.common import resolve_settings
    from headrace.connection.commands import execute
    from headrace.connection.connect import connect
    from headrace.errors import HeadraceError
    from headrace.wire.keys import Keys

    settings = resolve_settings(_read_params(ctx).get("url"), None)
    settings = msgspec.structs.replace(settings, connect_timeout=_TIMEOUT, command_timeout=_TIMEOUT)
    try:
        with connect(settings, retries=0) as client:
            return execute(client, make_command(Keys(settings.key_prefix)))
    except (RedisError, HeadraceError):
        return None
