"""`headrace keys`: the callers of the HTTP gateway, their API keys and what they may do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self, TypeVar

import click
import msgspec

from headrace.catalog import callers
from headrace.catalog.callers import EVERY, SCOPES, RegisteredCaller, Scope, parse_rate
from headrace.cli import options
from headrace.cli.command import group
from headrace.cli.tables import print_table
from headrace.client.common import resolve_settings
from headrace.clock import to_unix_ms, utc_now
from headrace.connection.commands import Operation, execute, run
from headrace.connection.connect import connect
from headrace.connection.errors import translate_errors
from headrace.errors import InvalidInput
from headrace.text import did_you_mean, format_age, plural
from headrace.user import name_user_and_host
from headrace.wire.keys import Keys
from headrace.wire.names import check_model_name, check_short_name

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
_EVERYTHING, _NO_LIMIT = "*", "none"


class ListedCaller(msgspec.Struct, frozen=True, kw_only=True):
    """A caller of the HTTP gateway, and what it may do."""

    name: str
    #: The moment each of its keys was made, in unix milliseconds, the oldest first.
    secrets: tuple[int, ...]
    #: The models it may use. Empty: all.
    models: tuple[str, ...]
    scopes: tuple[Scope, ...]
    #: Jobs in a second, minute or hour, such as `500/s`. Null: no limit.
    rate: str | None
    #: Most requests at once in a gateway. 0: no limit.
    waiting: int
    #: Most instances of a job. 0: no limit besides those of every job.
    max_rows: int
    #: The most urgent priority it may use, 0 to 9.
    priority: int
    #: The endpoints it may have notified; `*` is all.
    notify: tuple[str, ...]
    #: The user and host that registered it.
    by: str

    @classmethod
    def from_caller(cls, name: str, caller: RegisteredCaller) -> Self:
        """Return the object of a caller."""
        fields = {field: getattr(caller, field) for field in caller.__struct_fields__}
        secrets = tuple(secret.created_ms for secret in caller.secrets)
        return cls(
            **{**fields, "name": name, "secrets": secrets, "rate": str(caller.rate) if caller.rate else None}
        )


@group(examples=["headrace keys add billing --models churn"])
def keys() -> None:
    """Give callers of the HTTP gateway API keys, and say what each may do.

    A key is printed once; Redis holds its digest. Gateways follow a change within HEADRACE_CONTRACT_TTL seconds.
    """


def _limits(command: F) -> F:
    """Add the options that say what a caller may do."""
    for option in reversed(
        (
            click.option("--models", metavar="A,B", help="The models it may use; * is all, the default."),
            click.option("--scopes", metavar="A,B", help=f"Of {','.join(SCOPES)}; default: all but bulk."),
            click.option("--rate", metavar="N/s", help="Jobs in a second, minute or hour: 500/s, 20/h; or none."),
            click.option("--waiting", type=click.IntRange(0), help="Most requests at once in a gateway; 0: any."),
            click.option("--max-rows", type=click.IntRange(0), help="Most instances of a job; 0: any."),
            click.option("--priority", type=click.IntRange(0, 9), help="The most urgent priority; default 0."),
            click.option("--notify", metavar="A,B", help="The endpoints it may have notified; * is all."),
        )
    ):
        command = option(command)
    return command


@keys.command(examples=["headrace keys add billing --models churn --rate 50/s"])
@click.argument("name")
@_limits
@options.url
def add(*, name: str, url: str | None, **limits: Any) -> None:
    """Register the caller NAME and print its key, once."""
    caller = _change(RegisteredCaller(secrets=(), by=name_user_and_host()), limits)
    key = _run(url, lambda stored: callers.add_caller(stored, name, caller, utc_now()))
    click.echo(key)
    click.echo(f"{name}: {_describe(caller)}. The key is not shown again.", err=True)


@keys.command(examples=["headrace keys change billing --rate none"])
@click.argument("name")
@_limits
@options.url
def change(*, name: str, url: str | None, **limits: Any) -> None:
    """Change what the caller NAME may do. What no option names stays, and so do its keys."""
    changed = _run(url, lambda stored: callers.change_caller(stored, name, lambda old: _change(old, limits)))
    click.echo(f"{name}: {_describe(changed)}", err=True)


@keys.command(examples=["headrace keys rotate billing"])
@click.argument("name")
@options.url
def rotate(*, name: str, url: str | None) -> None:
    """Print a new key of the caller NAME. The former one stays valid until `revoke NAME --old`."""
    click.echo(_run(url, lambda stored: callers.rotate_key(stored, name, utc_now())))
    click.echo(
        f"the former key of {name} stays valid; end it with `headrace keys revoke {name} --old`. "
        "The key is not shown again.",
        err=True,
    )


@keys.command(examples=["headrace keys revoke billing --old"])
@click.argument("name")
@click.option("--old", is_flag=True, help="End all keys but the newest.")
@options.url
def revoke(*, name: str, old: bool, url: str | None) -> None:
    """End all keys of the caller NAME, and forget it. Jobs that it submitted go on."""
    if old:
        revoked = _run(url, lambda stored: callers.revoke_old_keys(stored, name))
        click.echo(f"{plural(revoked, 'old key')} of {name} revoked", err=True)
        return
    _run(url, lambda stored: callers.remove_caller(stored, name))
    click.echo(f"{name} is revoked", err=True)


@keys.command("list", examples=["headrace keys list --json"])
@options.as_json
@options.url
def list_(*, as_json: bool, url: str | None) -> None:
    """Print the callers, what they may do, and when their keys were made."""
    by_name = _run(url, callers.read_callers)
    if not by_name and not as_json:
        click.echo("there is no caller; `headrace keys add NAME` registers one and prints its key", err=True)
        return
    rows = [["NAME", "KEYS", "NEWEST", "MODELS", "SCOPES", "RATE", "AT ONCE", "ROWS", "PRIORITY", "NOTIFY"]]
    for name, caller in sorted(by_name.items()):
        newest = max((secret.created_ms for secret in caller.secrets), default=0)
        if as_json:
            options.print_json(ListedCaller.from_caller(name, caller))
            continue
        rows.append(
            [
                name,
                str(len(caller.secrets)),
                format_age((to_unix_ms(utc_now()) - newest) / 1000),
                ", ".join(caller.models) or _EVERYTHING,
                ", ".join(caller.scopes),
                str(caller.rate or "-"),
                str(caller.waiting or "-"),
                str(caller.max_rows or "-"),
                str(caller.priority),
                ", ".join(caller.notify) or "-",
            ]
        )
    if not as_json:
        drops = {8: 8, 7: 7, 6: 6, 1: 5, 2: 4, 9: 3, 5: 2, 4: 1}
        print_table(rows, drops=drops, texts={3, 4, 9})


def _run(url: str | None, operation: Callable[[Keys], Operation[T]]) -> T:
    settings = resolve_settings(url, None)
    with translate_errors(settings), connect(settings) as client:
        return run(partial(execute, client), operation(Keys(settings.key_prefix)))


def _change(caller: RegisteredCaller, limits: dict[str, Any]) -> RegisteredCaller:
    """Return a caller with the options that were stated. Raises InvalidInput."""
    changes: dict[str, Any] = {name: value for name, value in limits.items() if value is not None}
    if (models := changes.get("models")) is not None:
        names = _split("models", models)
        changes["models"] = () if models == _EVERYTHING else tuple(map(check_model_name, names))
    if (scopes := changes.get("scopes")) is not None:
        changes["scopes"] = tuple(map(_check_scope, _split("scopes", scopes)))
    if (rate := changes.get("rate")) is not None:
        changes["rate"] = None if rate == _NO_LIMIT else parse_rate(rate)
    if (notify := changes.get("notify")) is not None:
        names = _split("notify", notify)
        changes["notify"] = (
            (EVERY,) if notify == EVERY else tuple(check_short_name("notify", name) for name in names)
        )
    return msgspec.structs.replace(caller, **changes)


def _split(option: str, text: str) -> list[str]:
    """Return the names in a list. An empty one is an error: an unset variable of a shell shall not mean all."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise InvalidInput(f"--{option} is empty; name some, separated by commas, or leave the option out")
    return names


def _check_scope(scope: str) -> str:
    if scope not in SCOPES:
        hint = did_you_mean(scope, SCOPES)
        raise InvalidInput(f"there is no scope {scope[:40]!r}{hint}; the scopes are {', '.join(SCOPES)}")
    return scope


def _describe(caller: RegisteredCaller) -> str:
    """Return what a caller may do, in a line."""
    parts = [f"{', '.join(caller.scopes) or 'nothing'} of {', '.join(caller.models) or 'all models'}"]
    parts += [f"at most {caller.rate} jobs"] if caller.rate else []
    parts += [f"{plural(caller.waiting, 'request')} at once"] if caller.waiting else []
    parts += [f"{plural(caller.max_rows, 'instance')} a job"] if caller.max_rows else []
    parts += [f"priority {caller.priority} and later"] if caller.priority else []
    parts += [f"notices to {', '.join(caller.notify)}"] if caller.notify else []
    return "; ".join(parts)
