"""What several commands have in common: options, their types, and the client."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

if TYPE_CHECKING:
    from headrace.client import Client

F = TypeVar("F", bound=Callable[..., Any])


class _Seconds(click.ParamType[float]):
    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """A number of seconds above 0."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < 1e9:
            self.fail("must be a number of seconds above 0", param, ctx)
        return seconds


SECONDS = _Seconds()

url = click.option("--url", metavar="URL", help="Where Redis is; else HEADRACE_REDIS_URL, else REDIS_URL.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
version = click.option("--version", metavar="N", help="Version of the model; the newest without it.")
method = click.option(
    "--method", metavar="NAME", help="Method of the model, as predict_proba; its default without it."
)
jobs = click.argument("jobs", metavar="JOB...", nargs=-1, required=True)


def priority(default: int) -> Callable[[F], F]:
    """The option --priority."""
    return click.option(
        "--priority",
        type=click.IntRange(0, 9),
        default=default,
        show_default=True,
        help="0 is taken first, 9 last.",
    )


def connect(at: str | None) -> Client:
    """A client of the Redis the command was pointed at."""
    from headrace.client import Client

    return Client(at)


def print_json(value: Any) -> None:
    """A value as one line of JSON on standard output."""
    click.echo(msgspec.json.encode(value))


def print_line(text: str) -> None:
    """A line on standard output."""
    click.echo(text)


def shown(value: Any) -> str:
    """A prediction for people and shells: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
