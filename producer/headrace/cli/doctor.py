"""`headrace doctor`: check Redis, the access to it, the running service, Flower and the worker's settings."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Self

import click
import msgspec

from headrace.cli import options
from headrace.cli.command import command
from headrace.cli.commands import ERROR
from headrace.doctor.finding import FAILING, Finding, Severity
from headrace.text import plural

if TYPE_CHECKING:
    from headrace.settings import Settings


class CheckedFinding(msgspec.Struct, frozen=True, kw_only=True):
    """A setting or state that weakens or breaks a guarantee, with the way to correct it."""

    #: `redis`, `access`, `service`, `flower`, or the name of a distribution.
    check: str
    severity: Severity
    #: The directive of redis.conf, the setting, the queue or the version that was checked.
    subject: str
    actual: str
    expected: str
    #: The consequence for jobs.
    reason: str
    #: The Redis command, shell command or other action that corrects it.
    fix: str

    @classmethod
    def from_finding(cls, check: str, finding: Finding) -> Self:
        """Return the object of a finding of a check."""
        return cls(check=check, **{name: getattr(finding, name) for name in finding.__struct_fields__})


@command(examples=["headrace doctor", "headrace doctor --json"])
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON, one object a line.")
@click.option(
    "--flower", "flower_url", metavar="URL", help="Check the Flower at this URL too, without logging in."
)
@options.url
@click.pass_context
def doctor(ctx: click.Context, /, *, as_json: bool, flower_url: str | None, url: str | None) -> None:
    """Check whether Redis, workers and this installation can keep Headrace's guarantees, and print fixes.

    Severities: `critical` (jobs are deleted, or cannot be processed), `error` (a guarantee does not hold),
    `warning` (a guarantee holds within a limit) and `unknown` (it could not be checked). The exit code is 1 if a
    finding is critical or an error.
    """
    from headrace.client.common import resolve_settings

    findings = list(_run_checks(resolve_settings(url, None), flower_url))
    for check, finding in findings:
        if as_json:
            options.print_json(CheckedFinding.from_finding(check, finding))
        else:
            options.print_line(f"{check}: {finding.severity}: {finding}")
    errors = sum(finding.severity in FAILING for _, finding in findings)
    if any(finding.fix.startswith("CONFIG SET") for _, finding in findings):
        click.echo(
            "CONFIG SET lasts until Redis restarts: keep it with CONFIG REWRITE, or write it into redis.conf",
            err=True,
        )
    click.echo(_summarise(errors, len(findings) - errors), err=True)
    if errors:
        ctx.exit(ERROR)


def _run_checks(settings: Settings, flower_url: str | None) -> Iterator[tuple[str, Finding]]:
    """Yield each finding with the name of its check; print what is examined on standard error."""
    from importlib.metadata import entry_points

    from headrace.connection.commands import execute, run
    from headrace.connection.connect import connect
    from headrace.connection.errors import translate_errors
    from headrace.connection.server_info import read_server_info, read_user
    from headrace.connection.url import describe_server, parse_address
    from headrace.doctor.access import check_access, is_local
    from headrace.doctor.commands import examine_commands
    from headrace.doctor.flower import check_flower
    from headrace.doctor.functions import examine_functions
    from headrace.doctor.redis import check_redis
    from headrace.doctor.service import NOT_PERMITTED, check_service, read_service
    from headrace.wire.keys import Keys

    with translate_errors(settings), connect(settings) as client:
        ask = partial(execute, client)
        server = run(ask, read_server_info())
        click.echo(f"redis: {server.name} at {describe_server(settings)}", err=True)
        address = parse_address(settings.redis_url)
        by_sentinel, in_cluster = bool(address.sentinels), bool(address.nodes)
        for finding in check_redis(
            server, prefix=settings.key_prefix, by_sentinel=by_sentinel, in_cluster=in_cluster
        ):
            yield "redis", finding
        for finding in run(ask, examine_commands()):
            yield "redis", finding
        for finding in check_access(address, run(ask, read_user())):
            yield "access", finding
        for finding in run(ask, examine_functions(local=is_local(address))):
            yield "access", finding
        state = run(ask, read_service(Keys(settings.key_prefix)))
        for finding in check_service(state) if state else [NOT_PERMITTED]:
            yield "service", finding
        if flower_url is not None:
            for finding in check_flower(flower_url):
                yield "flower", finding
        # Other distributions register checks: functions that take this connection and yield findings.
        for entry in entry_points(group="headrace.doctor"):
            click.echo(f"{entry.name}: {entry.dist.name if entry.dist else entry.value} is installed", err=True)
            for finding in entry.load()(client):
                yield entry.name, finding


def _summarise(errors: int, others: int) -> str:
    if errors:
        return f"{plural(errors, 'error')} found: a guarantee does not hold"
    return "no errors found" + (f"; see the {plural(others, 'finding')} above" if others else "")
