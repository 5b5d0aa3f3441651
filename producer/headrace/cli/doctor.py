"""`headrace doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
import msgspec

from headrace.cli import options
from headrace.cli.commands import ERROR

if TYPE_CHECKING:
    from headrace.doctor.redis import Finding
    from headrace.settings import Settings

_SAYS = {
    "stops": "STOPS JOBS",
    "breaks": "BREAKS A PROMISE",
    "weakens": "mind",
    "unknown": "cannot be told",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON, one object a line.")
@click.option("--flower", metavar="URL", help="Look at the Flower there too, as a stranger would.")
@options.url
@click.pass_context
def doctor(ctx: click.Context, /, *, as_json: bool, flower: str | None, url: str | None) -> None:
    """Check whether Redis, workers and what is installed here can keep what is promised; say what to do if not.

    The exit code is 1 if a promise is broken. What only weakens one, or cannot be told, leaves it at 0.
    """
    from headrace.client.common import resolve_settings
    from headrace.doctor import redis

    found = list(_examined(resolve_settings(url, None), flower))
    for subject, one in found:
        if as_json:
            options.print_json({"subject": subject, **msgspec.to_builtins(one)})
        else:
            options.print_line(f"{subject}: {_SAYS[one.level]}: {one}")
    broken = sum(one.level in redis.BROKEN for _, one in found)
    if any(one.fix.startswith("CONFIG SET") for _, one in found):
        click.echo(
            "what CONFIG SET sets is forgotten at a restart: CONFIG REWRITE keeps it, or redis.conf", err=True
        )
    click.echo(_verdict(broken, len(found) - broken), err=True)
    if broken:
        ctx.exit(ERROR)


def _examined(settings: Settings, flower: str | None) -> Iterator[tuple[str, Finding]]:
    """Findings and what they are about, as they are made; who is examined is told on standard error."""
    from functools import partial
    from importlib.metadata import entry_points

    from headrace.connection import connect, server_info
    from headrace.connection import url as address
    from headrace.connection.commands import execute, run
    from headrace.doctor import access, redis, service
    from headrace.doctor import flower as finding_flower
    from headrace.wire.keys import Keys

    with connect.translate_errors(settings), connect.connect(settings) as client:
        facts = run(partial(execute, client), server_info.read_server_info())
        click.echo(f"redis: {facts.name} at {connect.describe_server(settings)}", err=True)
        where = address.read_address(settings.redis_url)
        for one in redis.findings(facts, prefix=settings.key_prefix, by_sentinel=bool(where.sentinels)):
            yield "redis", one
        for one in access.access(where, run(partial(execute, client), server_info.user())):
            yield "access", one
        seen = run(partial(execute, client), service.look(Keys(settings.key_prefix)))
        for one in service.service(seen) if seen else [service.UNSEEN]:
            yield "service", one
        if flower is not None:
            for one in finding_flower.flower(flower):
                yield "flower", one
        # Other distributions add what they need: functions of this connection that give findings.
        for part in entry_points(group="headrace.doctor"):
            click.echo(f"{part.name}: {part.dist.name if part.dist else part.value} is installed", err=True)
            for one in part.load()(client):
                yield part.name, one


def _verdict(broken: int, others: int) -> str:
    if broken:
        return f"{broken} {'finding breaks' if broken == 1 else 'findings break'} what is promised"
    return "all that is promised is kept" + (f"; mind the {others} above" if others else "")
