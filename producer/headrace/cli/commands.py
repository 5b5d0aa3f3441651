"""The group of all commands: imported when called for, and the one place where errors become exit codes.

The producer's own commands are in the table below. Other distributions add theirs by entry points of the
group `headrace.commands`; headrace-worker does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import click

from headrace.errors import HeadraceError, JobFailed, ResultTimeout
from headrace.text import did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

#: Exit codes.
ERROR, USAGE, SOME_FAILED, TIMED_OUT, INTERRUPTED = 1, 2, 3, 4, 130

#: The producer's commands: a module of this package that holds the command under its own name, and a line of help.
_OWN = {
    "batch": "Predict the rows of a file, and write them with their predictions.",
    "cancel": "Cancel jobs that have no outcome yet.",
    "dead": "Look at the jobs that failed for good, send them again, or remove them.",
    "doctor": "Check whether Redis and what is installed can keep what is promised.",
    "explain": "Tell what became of jobs.",
    "queues": "Show how many jobs wait for each model.",
    "result": "Wait for jobs and print their predictions.",
    "status": "Show where jobs are.",
    "submit": "Put a job on a model's queue.",
    "top": "Show queues, workers, rates and failures, live.",
}

#: Commands of headrace-worker. Their help stands here so that listing them imports no scikit-learn.
_WORKER = {
    "demo": "Run the whole story once: train, register, serve, predict a file.",
    "dev": "Run Redis, a worker and Flower here until Ctrl-C.",
    "exporter": "Show queues and dead letters to Prometheus.",
    "flower": "Run the Flower dashboard.",
    "health": "Say whether the worker on this machine lives.",
    "models": "Add, list and show the models of the store.",
    "worker": "Run a worker that serves models.",
}


class Commands(click.Group):
    """A click group that knows its commands by name and imports them when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Names of all commands that are installed."""
        return sorted({*_OWN, *_entry_points()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's
        """A command by its name, imported now."""
        if cmd_name in _OWN:
            return _command(getattr(import_module(f"headrace.cli.{cmd_name}"), cmd_name))
        if entry := _entry_points().get(cmd_name):
            return _command(entry.load())
        if cmd_name in _WORKER:
            raise HeadraceError(f"`headrace {cmd_name}` comes with the worker: pip install headrace-worker")
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the near name where there is none of that name."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            hint = did_you_mean(name, [*self.list_commands(ctx), *_WORKER])
            raise click.UsageError(f"no command {name[:64]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, out of the tables: nothing is imported for it."""
        known = {**_OWN, **_WORKER}
        entries = _entry_points()
        rows = [
            (name, known[name] if name in known else f"(from {_origin(entries[name])})")
            for name in self.list_commands(ctx)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
        if "worker" not in entries:
            formatter.write_paragraph()
            formatter.write_text("Models and workers come with `pip install headrace-worker`.")

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]  # always ends the process, as click's does by default
        """Run a command and exit with its code; an error is one line on standard error."""
        extra["standalone_mode"] = False
        code: Any
        try:
            code = super().main(args, prog_name or "headrace", **extra)
            if sys.stdout is not None:  # a daemon may have closed it
                sys.stdout.flush()
        except (click.Abort, KeyboardInterrupt):
            _say("interrupted")
            code = INTERRUPTED
        except BrokenPipeError:
            code = ERROR  # whoever read our output has enough
        except Exception as error:  # noqa: BLE001  # nobody is shown a traceback
            code = _told(error)
        _let_go_of_stdout()
        sys.exit(code if isinstance(code, int) else 0)


def _let_go_of_stdout() -> None:
    """Python flushes once more at its end; where that cannot be, it would change our exit code to 120."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _command(found: Any) -> click.Command:
    if not isinstance(found, click.Command):
        raise HeadraceError(f"{found!r} is no click command, though it is registered as one")
    return found


def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group="headrace.commands")}


def _origin(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value


def _told(error: Exception) -> int:
    """Say an error in one line; its exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    if isinstance(error, click.ClickException):
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
        hint = f" (see `{command} --help`)" if command else ""
        _say(f"{error.format_message()}{hint}")
        return error.exit_code
    if isinstance(error, HeadraceError):
        _say(str(error))
        if isinstance(error, JobFailed):
            return SOME_FAILED
        return TIMED_OUT if isinstance(error, ResultTimeout) else ERROR
    if isinstance(error, OSError) and error.strerror:
        _say(f"{error.filename or 'input or output'}: {error.strerror}")
        return ERROR
    if os.environ.get("HEADRACE_DEBUG"):
        raise error
    # The message of an error we did not foresee may hold anything, also values of an instance.
    _say(f"an unexpected {type(error).__name__}: please report it; HEADRACE_DEBUG=1 shows where it was raised")
    return ERROR


def _say(message: str) -> None:
    click.echo(f"headrace: {' '.join(message.split())}", err=True)
