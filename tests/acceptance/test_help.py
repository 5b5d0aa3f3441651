"""Every command has a help with examples that its parser accepts, and no list of commands is cut."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest

from headrace.cli import main
from headrace.cli.command import ExampleCommand, ExampleGroup
from tests.support.command import headrace


def walk(context: click.Context) -> Iterator[click.Context]:
    """Yield the context of a command, and those of all commands below it."""
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            assert command is not None
            yield from walk(click.Context(command, info_name=name, parent=context))


COMMANDS = {context.command_path: context for context in walk(click.Context(main, info_name="headrace"))}
GROUPS = [path for path, context in COMMANDS.items() if isinstance(context.command, click.Group)]


def examples_of(path: str) -> tuple[str, ...]:
    command = COMMANDS[path].command
    assert isinstance(command, ExampleCommand | ExampleGroup)
    return command.examples


def parse(arguments: list[str]) -> str:
    """Parse a command line as its command does, without running it. Return the path of the command."""
    context = click.Context(main, info_name="headrace")
    while isinstance(context.command, click.Group) and arguments:
        name, command, rest = context.command.resolve_command(context, arguments)
        assert command is not None
        context = command.make_context(name, rest, parent=context)
        arguments = [*context._protected_args, *context.args]
    return context.command_path


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_examples_of_its_own_in_its_help(path: str):
    examples = examples_of(path)
    assert examples
    shown = COMMANDS[path].get_help()
    for example in examples:
        assert f"\n  {example}\n" in f"{shown}\n"
        assert len(example) <= 98
        assert example.startswith(path) or path in GROUPS


@pytest.mark.parametrize(
    ("path", "example"), [(path, example) for path in COMMANDS for example in examples_of(path)]
)
def test_every_example_is_accepted_by_its_command(
    path: str, example: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path_factory.mktemp("files")
    for name in ("churn.skops", "customers.csv", "customers.json", "churn.bin", "release.key"):
        (folder / name).write_text("")  # the files of the examples
    monkeypatch.chdir(folder)
    program, *arguments = shlex.split(example)
    assert program == "headrace"
    if ">" in arguments:  # the rest is for the shell
        del arguments[arguments.index(">") :]
    assert parse(arguments).startswith(path)


@pytest.mark.parametrize("path", GROUPS)
def test_the_list_of_a_groups_commands_is_not_cut(path: str):
    shown = COMMANDS[path].get_help().partition("\nCommands:\n")[2].partition("\nExamples:\n")[0]
    assert shown
    assert "..." not in shown


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_is_printed(option: str):
    assert headrace(option).stdout.startswith("headrace 0.")


@pytest.mark.parametrize("names", [("status",), ("dead", "replay"), ()])
def test_headrace_help_prints_what_the_option_help_prints(names: tuple[str, ...]):
    result = headrace("help", *names)
    assert result.returncode == 0
    assert result.stdout == headrace(*names, "--help").stdout


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("ded",), "no command 'ded'; did you mean 'dead'?"),
        (("status", "x"), "`headrace status` has no commands"),
    ],
)
def test_help_for_an_unknown_command_is_an_error(names: tuple[str, ...], message: str):
    result = headrace("help", *names)
    assert result.returncode == 2
    assert result.stderr.startswith(f"headrace: {message}")
