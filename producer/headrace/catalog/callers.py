"""Callers of the HTTP gateway: their keys, and what they may do.

A hash in Redis holds a `RegisteredCaller` for each name (`Keys.callers`). `headrace keys` writes it, gateways read
it. A change is written only if the caller is still as it was read, so two operators lose nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Literal

import msgspec

from headrace.catalog.api_keys import digest_api_key, make_api_key
from headrace.connection.commands import Command, Operation, Script
from headrace.connection.lua import CHECKED_FUNCTION
from headrace.errors import HeadraceError, InvalidInput, StoredDataError
from headrace.text import did_you_mean
from headrace.wire.keys import Keys
from headrace.wire.names import check_short_name
from headrace.wire.stored import DECODE_ERRORS, decode_items, hash_items

#: What a caller may do: wait for predictions; submit, read and cancel jobs; stream files; start bulk runs.
Scope = Literal["predict", "jobs", "batch", "bulk"]
SCOPES: tuple[Scope, ...] = ("predict", "jobs", "batch", "bulk")
#: Those of a caller for which none are stated: a bulk run reads and writes whatever the workers can.
DEFAULT_SCOPES = SCOPES[:-1]
#: In `notify`, every endpoint.
EVERY = "*"
#: Secrets of a caller that are valid at once: one in use, one to change to.
MAX_SECRETS = 2
_WINDOWS = {"s": 1, "m": 60, "h": 3600}
_MAX_QUOTA = 1_000_000
_ATTEMPTS = 5


class Rate(msgspec.Struct, frozen=True):
    """A limit: `quota` jobs in `window` seconds."""

    quota: int
    window: int = 1

    def __str__(self) -> str:
        unit = next((unit for unit, seconds in _WINDOWS.items() if seconds == self.window), f"{self.window} s")
        return f"{self.quota}/{unit}"


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A key of a caller, as it is stored."""

    #: The SHA-256 of the key, in hexadecimal digits.
    digest: str
    #: The moment it was made, unix milliseconds.
    created_ms: int


class RegisteredCaller(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A caller, without its name."""

    #: Oldest first.
    secrets: tuple[Secret, ...]
    #: The models it may use; empty is all.
    models: tuple[str, ...] = ()
    scopes: tuple[Scope, ...] = DEFAULT_SCOPES
    #: None is no limit.
    rate: Rate | None = None
    #: Most requests under way at once, in one gateway; 0 is no limit.
    waiting: int = 0
    #: Most instances of a job; 0 is no limit besides those of every job.
    max_rows: int = 0
    #: The most urgent priority it may use, 0 to 9.
    priority: int = 0
    #: The endpoints it may have notified, by name; EVERY is all.
    notify: tuple[str, ...] = ()
    #: The user and host that registered it.
    by: str = ""


#: KEYS: callers. ARGV: name, the stored caller before ('' for none), after ('' removes it). Returns 1, or 0 if the
#: caller is no longer as before.
_REPLACE = Script(
    "replace_caller",
    CHECKED_FUNCTION
    + """
local name, before, after = ARGV[1], ARGV[2], ARGV[3]
if (checked('HGET', KEYS[1], name) or '') ~= before then return 0 end
if after == '' then redis.call('HDEL', KEYS[1], name) else redis.call('HSET', KEYS[1], name, after) end
return 1
""",
    flag="allow-oom",  # a key can be revoked while Redis is full
)

_CALLER = msgspec.json.Decoder(RegisteredCaller)


def read_callers(keys: Keys) -> Operation[dict[str, RegisteredCaller]]:
    """Read all callers, by name. Damaged ones are left out, and their names are logged."""
    items = hash_items((yield Command(("HGETALL", keys.callers))), "the callers")
    return dict(decode_items(_CALLER.decode, items, "the callers"))


def add_caller(keys: Keys, name: str, caller: RegisteredCaller, now: datetime) -> Operation[str]:
    """Register a caller, and return its first key. Raises InvalidInput for a name that is in use."""
    key = make_api_key(name)

    def add(former: RegisteredCaller | None) -> RegisteredCaller:
        if former is not None:
            raise InvalidInput(
                f"there is a caller {name!r} already; change its limits with `headrace keys change`, or its key "
                "with `headrace keys rotate`"
            )
        return msgspec.structs.replace(caller, secrets=(_secret(key, now),))

    yield from _replace(keys, name, add)
    return key


def change_caller(
    keys: Keys, name: str, change: Callable[[RegisteredCaller], RegisteredCaller]
) -> Operation[RegisteredCaller]:
    """Change what a caller may do, and return it. Its keys stay. Raises InvalidInput for an unknown name."""
    changed = yield from _replace(keys, name, lambda caller: change(_require(caller)))
    return _require(changed)


def rotate_key(keys: Keys, name: str, now: datetime) -> Operation[str]:
    """Return a new key of a caller. The newest former one stays valid beside it; older ones end.

    Raises InvalidInput for an unknown name.
    """
    key = make_api_key(name)

    def rotate(caller: RegisteredCaller | None) -> RegisteredCaller:
        former = _require(caller)
        newest = former.secrets[len(former.secrets) - (MAX_SECRETS - 1) :]
        return msgspec.structs.replace(former, secrets=(*newest, _secret(key, now)))

    yield from _replace(keys, name, rotate)
    return key


def revoke_old_keys(keys: Keys, name: str) -> Operation[int]:
    """End all keys of a caller but the newest; return how many. Raises InvalidInput for an unknown name."""
    revoked = 0

    def keep_newest(caller: RegisteredCaller | None) -> RegisteredCaller:
        nonlocal revoked
        former = _require(caller)
        revoked = max(0, len(former.secrets) - 1)
        return msgspec.structs.replace(former, secrets=former.secrets[-1:])

    yield from _replace(keys, name, keep_newest)
    return revoked


def remove_caller(keys: Keys, name: str) -> Operation[None]:
    """Remove a caller: its keys end. Its jobs stay, and belong to the next caller of this name.

    A damaged entry is removed too. Raises InvalidInput for an unknown name.
    """
    if not (yield Command(("HDEL", keys.callers, check_short_name("name", name)))):
        raise (yield from _unknown(keys, name))


def parse_rate(text: str) -> Rate:
    """Return the rate that a text states: `500/s`, `500`, `100/m`, `20/h`. Raises InvalidInput."""
    match = re.fullmatch(r"([0-9]{1,7})(?:/([smh]))?", text, re.ASCII)
    if match is None or not 1 <= int(match[1]) <= _MAX_QUOTA:
        raise InvalidInput(
            f"a rate is 1 to {_MAX_QUOTA:,} jobs in a second, a minute or an hour, such as 500/s, 100/m or 20/h"
        )
    return Rate(int(match[1]), _WINDOWS[match[2] or "s"])


def _secret(key: str, now: datetime) -> Secret:
    return Secret(digest=digest_api_key(key), created_ms=int(now.timestamp() * 1000))


def _replace(
    keys: Keys, name: str, decide: Callable[[RegisteredCaller | None], RegisteredCaller]
) -> Operation[RegisteredCaller]:
    """Store what `decide` makes of a caller (None: there is none), and return it."""
    check_short_name("name", name)
    for _ in range(_ATTEMPTS):
        stored = yield Command(("HGET", keys.callers, name))
        try:
            caller = None if stored is None else _CALLER.decode(stored)
        except DECODE_ERRORS:
            raise StoredDataError(
                f"the caller {name!r} is damaged in Redis; remove it with `headrace keys revoke {name}`, and add "
                "it again"
            ) from None
        try:
            changed = decide(caller)
        except _NoCallerError:
            raise (yield from _unknown(keys, name)) from None
        if (yield _REPLACE([keys.callers], [name, stored or b"", msgspec.json.encode(changed)])):
            return changed
    raise HeadraceError(f"the caller {name!r} changes all the time; somebody else edits it: try again")


class _NoCallerError(Exception):
    """There is no caller of the name."""


def _require(caller: RegisteredCaller | None) -> RegisteredCaller:
    if caller is None:
        raise _NoCallerError
    return caller


def _unknown(keys: Keys, name: str) -> Operation[InvalidInput]:
    names = sorted(name.decode(errors="replace") for name in (yield Command(("HKEYS", keys.callers))))
    return InvalidInput(f"there is no caller {name!r}{did_you_mean(name, names)}; `headrace keys list` lists them")
