"""Options, parameter types and output functions that several commands share."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from headrace.catalog.class_labels import by_label, name_labels
from headrace.cli.completion import complete_models, complete_versions
from headrace.terminal import escape_controls, escape_json, write_control

if TYPE_CHECKING:
    from headrace.client import Client
    from headrace.wire.outcome import Prediction

F = TypeVar("F", bound=Callable[..., Any])


class _Seconds(click.ParamType[float]):
    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return a number of seconds above 0."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < 1e9:
            self.fail("must be a number of seconds above 0", param, ctx)
        return seconds


SECONDS = _Seconds()


class _Age(click.ParamType[float]):
    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds from a number of seconds, minutes, hours or days: `90`, `90s`, `15m`, `2h`, `7d`."""
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhd]?)", str(value))
        if match is None:
            self.fail("must be a number followed by s, m, h or d, such as 90s, 15m, 2h or 7d", param, ctx)
        return float(match[1]) * _UNIT_SECONDS[match[2]]


_UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
AGE = _Age()


class _Duration(_Age):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds of an age above 0."""
        seconds = super().convert(value, param, ctx)
        if not seconds:
            self.fail("must be above 0", param, ctx)
        return seconds


DURATION = _Duration()

url = click.option("--url", metavar="URL", help="Redis URL; default: HEADRACE_REDIS_URL, then REDIS_URL.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
model = click.argument("model", shell_complete=complete_models)
version = click.option(
    "--version",
    metavar="N",
    shell_complete=complete_versions,
    help="Version or alias; default: the alias production, else the newest version.",
)
method = click.option(
    "--method", metavar="NAME", help="Method of the model, such as predict_proba; default: the model's default."
)
durable = click.option(
    "--durable", is_flag=True, help="Wait until neither a restart of Redis nor a failover can lose a job."
)
jobs = click.argument("jobs", metavar="JOB...", nargs=-1, required=True)


def priority(default: int) -> Callable[[F], F]:
    """Return the option --priority with this default."""
    return click.option(
        "--priority",
        type=click.IntRange(0, 9),
        default=default,
        show_default=True,
        help="0 is claimed first, 9 last.",
    )


def open_client(redis_url: str | None) -> Client:
    """Return a client of the Redis at a URL; None for the URL of the settings."""
    from headrace.client import Client

    return Client(redis_url)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON on standard output."""
    click.echo(escape_json(msgspec.json.encode(value).decode()))


def print_line(text: str) -> None:
    """Print a line for people on standard output."""
    click.echo(escape_controls(text))


def print_styled(line: str) -> None:
    """Print a line with styles of our own on standard output. Everything else in it must be escaped."""
    if sys.stdout.isatty():
        write_control(sys.stdout, f"{line}\n")
    else:
        click.echo(line)


def print_predictions(prediction: Prediction) -> None:
    """Print predictions as people and shells read them, one a line: text as it is, everything else as JSON.

    Values of classes become an object of them. A terminal gets text escaped, a pipe or a file gets it as it is.
    """
    labels = name_labels(prediction.classes)
    for value in prediction.predictions:
        if isinstance(value, str):
            click.echo(value, color=True)  # or click would strip colours
        else:
            print_json(by_label(labels, value))
