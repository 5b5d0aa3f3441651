"""Aliases: names for versions of a model, such as the version in production.

    production   the version of jobs that name none; without this alias, they run on the newest version
    canary       the version of a share of these jobs instead, chosen by their ids
    shadow       a version that runs these jobs too, without publishing outcomes
    arriving     a version that workers load because another alias is about to point to it; no job runs on it
    any other    a name of your own, for jobs that ask for it

Aliases are in Redis, so every producer and worker sees a change at once. Each change is recorded in a history.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from headrace.connection.commands import Command, Script
from headrace.connection.lua import CHECKED_FUNCTION
from headrace.errors import InvalidInput, UnknownModel
from headrace.wire.keys import Keys
from headrace.wire.stored import decode_items, hash_items

PRODUCTION, CANARY, SHADOW, ARRIVING = "production", "canary", "shadow", "arriving"

#: Most changes that a model's history keeps.
HISTORY_LENGTH = 1_000

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")

#: Call it by `move_alias`. The cost is linear in the bytes of the change, and in the history beyond its length.
_MOVE = Script(
    "move_alias",
    CHECKED_FUNCTION
    + """
local aliases, history = KEYS[1], KEYS[2]
local alias, before, after, change, history_length = unpack(ARGV)
if (checked('HGET', aliases, alias) or '') ~= before then return 0 end
checked('LRANGE', history, 0, 0)
local time = redis.call('TIME')
local at_ms = time[1] .. string.format('%03d', math.floor(time[2] / 1000))
if after == '' then
  redis.call('HDEL', aliases, alias)
else
  redis.call('HSET', aliases, alias, after)
end
redis.call('LPUSH', history, string.sub(change, 1, -2) .. ',"at_ms":' .. at_ms .. '}')
redis.call('LTRIM', history, 0, history_length - 1)
return 1
""",
    flag="allow-oom",
)


class Alias(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The version that an alias points to."""

    version: str
    #: The share of jobs that a canary takes, above 0 and up to 1; None for other aliases.
    share: float | None = None


class AliasChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry of a model's history: an alias was set, moved or removed."""

    alias: str
    #: The version it points to, and the version it pointed to; None: to none.
    version: str | None = None
    former: str | None = None
    share: float | None = None
    #: True if the change was a rollback.
    rollback: bool = False
    #: Who made the change, and the reason; free text.
    by: str
    reason: str = ""
    #: The moment of the change: unix milliseconds, the server's clock.
    at_ms: int = 0


class Aliases(msgspec.Struct, frozen=True):
    """The aliases of a model."""

    model: str
    by_name: Mapping[str, Alias] = {}

    def resolve(self, requested: str | None, job: str) -> str | None:
        """Return the version a job runs on, a number as text; None is the newest. Raises UnknownModel.

        `requested` is a version, an alias or None. Of jobs that request None, the canary gets a share by their
        ids: the same id always gets the same answer.
        """
        if requested is None:
            canary = self.by_name.get(CANARY)
            if canary is not None and job_fraction(job) < (canary.share or 0.0):
                return canary.version
            return self.serving
        if is_version(requested):
            return requested
        if requested in self.by_name:
            return self.by_name[requested].version
        names = ", ".join(sorted(self.by_name)) or "none"
        raise UnknownModel(f"model {self.model!r} has no alias {requested[:64]!r}; it has {names}")

    @property
    def serving(self) -> str | None:
        """The version that serves, apart from a canary's share of the jobs; None is the newest."""
        production = self.by_name.get(PRODUCTION)
        return None if production is None else production.version

    @property
    def has_canary(self) -> bool:
        """True if jobs that request no version run on more than one."""
        return CANARY in self.by_name

    @property
    def versions(self) -> set[str]:
        """The versions that an alias points to."""
        return {alias.version for alias in self.by_name.values()}


def job_fraction(job: str) -> float:
    """Return a number from 0 to below 1 for a job id. It is always the same for an id and spreads ids evenly."""
    return zlib.crc32(job.encode()) / 2**32


def is_version(text: str) -> bool:
    """Decide whether a text is a version, that is, a number."""
    return text.isascii() and text.isdigit()


def check_alias(alias: object) -> str:
    """Return the name of an alias if it is valid. Raises InvalidInput otherwise."""
    if not isinstance(alias, str) or not _NAME.fullmatch(alias):
        shown = repr(alias[:80]) if isinstance(alias, str) else f"a {type(alias).__name__}"
        raise InvalidInput(
            f"an alias is 1 to 64 small letters, digits, '-' or '_', the first a letter; got {shown}"
        )
    return alias


def read_aliases(keys: Keys, model: str) -> Command:
    """Return the command that reads the aliases of a model; `decode_aliases` decodes its reply."""
    return Command(("HGETALL", keys.aliases(model)))


def decode_aliases(model: str, reply: Any) -> Aliases:
    """Decode the reply to `read_aliases`. Damaged entries are skipped, and their names are logged."""
    name = f"the aliases of {model}"
    by_name = dict(decode_items(_ALIAS.decode, hash_items(reply, name), name))
    return Aliases(model, by_name)


def move_alias(
    keys: Keys,
    model: str,
    alias: str,
    before: Alias | None,
    after: Alias | None,
    *,
    by: str,
    reason: str,
    rollback: bool = False,
) -> Command:
    """Return the command that moves an alias from `before` to `after` and records the change; None is no version.

    Its reply is 1, or 0 if the alias is no longer as in `before`, as somebody else moved it.
    """
    change = AliasChange(
        alias=alias,
        version=after.version if after else None,
        former=before.version if before else None,
        share=after.share if after else None,
        rollback=rollback,
        by=by,
        reason=reason,
    )
    return _MOVE(
        [keys.aliases(model), keys.alias_history(model)],
        [alias, encode_alias(before), encode_alias(after), msgspec.json.encode(change), HISTORY_LENGTH],
    )


def encode_alias(alias: Alias | None) -> bytes:
    """Return an alias as it is stored; empty for None."""
    return b"" if alias is None else msgspec.json.encode(alias)


def set_arriving(keys: Keys, model: str, version: str | None) -> Command:
    """Return the command that makes workers load a version before another alias points to it; None ends that.

    The change is not recorded in the history.
    """
    if version is None:
        return Command(("HDEL", keys.aliases(model), ARRIVING))
    return Command(("HSET", keys.aliases(model), ARRIVING, encode_alias(Alias(version=version))))


def read_history(keys: Keys, model: str) -> Command:
    """Return the command that reads the changes of a model's aliases; `decode_history` decodes its reply."""
    return Command(("LRANGE", keys.alias_history(model), 0, -1))


def decode_history(model: str, reply: Sequence[bytes]) -> list[AliasChange]:
    """Decode the reply to `read_history`: the changes, newest first. Damaged ones are skipped and logged."""
    numbered = ((f"change {number}", stored) for number, stored in enumerate(reply, start=1))
    return [change for _, change in decode_items(_CHANGE.decode, numbered, f"the history of {model}'s aliases")]


def find_former_version(history: Sequence[AliasChange], alias: str) -> str | None:
    """Return the version that an alias pointed to before its current one; None if there is none.

    Versions that were rolled back are skipped, so a second rollback goes back further.
    """
    rolled_back: set[str] = set()
    for change in history:
        if change.alias != alias:
            continue
        if change.rollback:
            rolled_back.add(change.former or "")
        elif change.former is not None and not {change.former, change.version} & rolled_back:
            return change.former
    return None


_ALIAS = msgspec.json.Decoder(Alias)
_CHANGE = msgspec.json.Decoder(AliasChange)
