"""What several commands have in common: options, their types, and the client."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Sequence
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


class _Age(click.ParamType[float]):
    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds, out of a number of them, or of minutes, hours or days: `90`, `90s`, `15m`, `2h`, `7d`."""
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhd]?)", str(value))
        if found is None:
            self.fail("must be a number with s, m, h or d behind it, such as 90s, 15m, 2h or 7d", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
AGE = _Age()

url = click.option("--url", metavar="URL", help="Where Redis is; else HEADRACE_REDIS_URL, else REDIS_URL.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
version = click.option("--version", metavar="N", help="Version or alias; production without it, else the newest.")
method = click.option(
    "--method", metavar="NAME", help="Method of the model, as predict_proba; its default without it."
)
durable = click.option(
    "--durable", is_flag=True, help="Wait until neither a restart of Redis nor a failover can lose a job."
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


def open_client(at: str | None) -> Client:
    """A client of the Redis the command was pointed at."""
    from headrace.client import Client

    return Client(at)


def print_json(value: Any) -> None:
    """A value as one line of JSON on standard output."""
    click.echo(msgspec.json.encode(value))


def print_line(text: str) -> None:
    """A line on standard output."""
    click.echo(text)


def format_prediction(value: Any) -> str:
    """A prediction for people and shells: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def table(rows: Sequence[Sequence[str]], *, right: Container[int] = ()) -> list[str]:
    """Rows as lines of columns that stand under each other; those numbered in `right` end together."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def printable(text: str) -> str:
    """Text of others on one line of a terminal: what is no character to be seen is written as its escape."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
