"""The group of all commands. It imports a command when it is used, and turns errors into messages and exit codes.

The commands of this distribution are in a table below. Other distributions, such as headrace-worker, register
theirs as entry points of the group `headrace.commands`.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import click

from headrace.cli.command import ExampleGroup
from headrace.errors import HeadraceError, JobFailed, ResultTimeout, RunFailed
from headrace.terminal import plain_streams
from headrace.text import did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from click.shell_completion import CompletionItem

#: Exit codes of all commands.
ERROR, USAGE, SOME_FAILED, TIMED_OUT, INTERRUPTED = 1, 2, 3, 4, 130

#: The variable in which a shell asks for completions, such as `bash_complete`.
COMPLETE_VARIABLE = "_HEADRACE_COMPLETE"

#: The commands of this distribution, with a line of help. Each is in the module of its name in this package.
_CLIENT_COMMANDS = {
    "batch": "Predict the rows of a file, and write them with their predictions.",
    "bulk": "Predict tables that workers read and write themselves.",
    "cancel": "Cancel jobs that have no outcome yet.",
    "completion": "Print a script that completes commands in a shell.",
    "dead": "List dead letters; replay, purge or export them.",
    "doctor": "Check Redis, workers and Flower, and print fixes.",
    "explain": "Print the history of jobs.",
    "help": "Print the help of a command.",
    "keys": "Add, list, change, rotate and revoke keys of the HTTP gateway.",
    "plan": "Print the workers that models need, by backlog and rates.",
    "queues": "Print how many jobs of each model wait; pause, resume or purge them.",
    "redis": "Load the functions that users call in place of EVAL.",
    "result": "Wait for jobs and print their predictions.",
    "status": "Print the status of jobs.",
    "submit": "Put a job on a model's queue.",
    "top": "Show queues, workers, rates and failures, live.",
}

#: The commands of headrace-worker. Their help is here, so that listing the commands does not import scikit-learn.
_WORKER_COMMANDS = {
    "demo": "Train, register and serve a model, and predict a file.",
    "dev": "Run Redis, a worker and Flower on this machine until Ctrl-C.",
    "exporter": "Export queues and dead letters to Prometheus.",
    "flower": "Run the Flower dashboard.",
    "health": "Check the worker on this machine.",
    "models": "Add, list and show the models of the store.",
    "worker": "Run a worker that serves models.",
}

#: The commands of headrace-gateway, in the same way.
_GATEWAY_COMMANDS = {
    "gateway": "Serve the HTTP API until Ctrl-C.",
    "notify": "Tell endpoints how jobs ended, until Ctrl-C.",
}


class Commands(ExampleGroup):
    """A click group that imports its commands when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Return the names of all installed commands."""
        return sorted({*_CLIENT_COMMANDS, *_load_entry_points()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's
        """Import a command; None for an unknown name."""
        if cmd_name in _CLIENT_COMMANDS:
            return _check_command(getattr(import_module(f"headrace.cli.{cmd_name}"), cmd_name))
        if entry := _load_entry_points().get(cmd_name):
            return _check_command(entry.load())
        if cmd_name in _WORKER_COMMANDS:
            raise HeadraceError(f"`headrace {cmd_name}` comes with the worker: install headrace-worker")
        if cmd_name in _GATEWAY_COMMANDS:
            raise HeadraceError(f"`headrace {cmd_name}` comes with the gateway: install headrace-gateway")
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command in the arguments. The error for an unknown name suggests a similar one."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            hint = did_you_mean(name, [*self.list_commands(ctx), *_WORKER_COMMANDS, *_GATEWAY_COMMANDS])
            raise click.UsageError(f"no command {name[:64]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Complete the name of a command or an option. No command is imported for it."""
        from click.shell_completion import CompletionItem

        help_lines = {**_CLIENT_COMMANDS, **_WORKER_COMMANDS, **_GATEWAY_COMMANDS}
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        commands = [CompletionItem(name, help=help_lines.get(name)) for name in names]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands. Commands in the tables are not imported for it."""
        help_lines = {**_CLIENT_COMMANDS, **_WORKER_COMMANDS, **_GATEWAY_COMMANDS}
        entries = _load_entry_points()
        rows = [
            (name, help_lines[name] if name in help_lines else f"(from {_name_distribution(entries[name])})")
            for name in self.list_commands(ctx)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
        if "worker" not in entries:
            formatter.write_paragraph()
            formatter.write_text("Models and workers come with headrace-worker.")
        if "gateway" not in entries:
            formatter.write_paragraph()
            formatter.write_text("The HTTP API comes with headrace-gateway.")

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]  # always ends the process, as click's does by default
        """Run a command and exit with its code. An error is printed as one line on standard error."""
        extra["standalone_mode"] = False
        if os.getpid() == 1:  # of a container: the kernel ends it by no signal that it does not handle
            signal.signal(signal.SIGTERM, exit_on_signal)
        with plain_streams():
            code = self._run(args, prog_name or "headrace", extra)
        _close_stdout()
        sys.exit(code if isinstance(code, int) else 0)

    def _run(self, args: Sequence[str] | None, prog_name: str, extra: dict[str, Any]) -> Any:
        """Run a command and return its exit code, after an error has been printed."""
        code: Any
        if instruction := os.environ.get(COMPLETE_VARIABLE):
            from headrace.cli.completion import answer_shell

            answer_shell(self, instruction)
            return 0
        try:
            code = super().main(args, prog_name, **extra)
            if sys.stdout is not None:  # a daemon may have closed it
                sys.stdout.flush()
        except (click.Abort, KeyboardInterrupt):
            _print_error("interrupted")
            code = INTERRUPTED
        except BrokenPipeError:
            code = ERROR  # the reader of standard output has closed it
        except Exception as error:  # noqa: BLE001  # users see no traceback
            is_encoding = isinstance(error, UnicodeEncodeError)
            code = _report((is_encoding and _find_undecodable(sys.argv[1:] if args is None else args)) or error)
        return code


def exit_on_signal(number: int, _: object) -> NoReturn:
    """Exit with the code of shells for a process ended by a signal. As an exception, it lets a command tidy up."""
    raise SystemExit(128 + number)


def _close_stdout() -> None:
    """Redirect a broken standard output: Python's flush at exit would fail and set the exit code to 120."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_command(command: Any) -> click.Command:
    if not isinstance(command, click.Command):
        raise HeadraceError(f"{command!r} is registered as a command, but is no click command")
    return command


def _load_entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group="headrace.commands")}


def _name_distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value


def _find_undecodable(arguments: Sequence[str]) -> click.UsageError | None:
    """Return the error for an argument that is not UTF-8. Only the name of a file may be such."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            return click.UsageError(f"an argument is not UTF-8: {argument[:64]!a}")
    return None


def _report(error: Exception) -> int:
    """Print an error as one line, and return its exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    if isinstance(error, click.ClickException):
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
        hint = f" (see `{command} --help`)" if command else ""
        _print_error(f"{error.format_message()}{hint}")
        return error.exit_code
    if isinstance(error, HeadraceError):
        if os.environ.get("HEADRACE_DEBUG") and error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        _print_error(str(error))
        if isinstance(error, JobFailed | RunFailed):
            return SOME_FAILED
        return TIMED_OUT if isinstance(error, ResultTimeout) else ERROR
    if isinstance(error, OSError) and error.strerror:
        _print_error(f"{error.filename or 'input or output'}: {error.strerror}")
        return ERROR
    if os.environ.get("HEADRACE_DEBUG"):
        traceback.print_exception(error)
        return ERROR
    # The message of an unexpected error may contain anything, also values of an instance.
    _print_error(f"unexpected {type(error).__name__}: please report it; HEADRACE_DEBUG=1 shows its traceback")
    return ERROR


def _print_error(message: str) -> None:
    click.echo(f"headrace: {' '.join(message.split())}", err=True)
