"""Names for versions of a model: which one serves, which is tried out, and who said so.

    production   what a job that names no version runs on; without one, the newest version serves
    canary       takes its part of those jobs instead, the same jobs every time
    shadow       runs them too, and answers nobody
    arriving     is about to be one of these: workers load it, and no job runs on it yet
    any other    a name of your own, for jobs that ask for it

An alias lives in Redis, where every producer and worker sees it move. Each move is written down beside it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from headrace.connection.commands import Argument, Command, Script
from headrace.errors import InvalidInput, UnknownModel
from headrace.wire.keys import Keys

PRODUCTION, CANARY, SHADOW, ARRIVING = "production", "canary", "shadow", "arriving"

#: Moves of a model's aliases that are kept.
HISTORY_LENGTH = 1_000

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")

#: KEYS: aliases, history. ARGV: alias, what stands there now ('' for nothing), what is to stand there ('' to take
#: it away), the move as it is written down (its moment is added), and how many moves are kept.
#: Returns 1, or 0 if something else stands there: somebody was quicker.
MOVE = Script("""
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
local at = redis.call('TIME')
local moment = ',"at_ms":' .. at[1] .. string.format('%03d', math.floor(at[2] / 1000)) .. '}'
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
end
redis.call('LPUSH', KEYS[2], string.sub(ARGV[4], 1, -2) .. moment)
redis.call('LTRIM', KEYS[2], 0, ARGV[5] - 1)
return 1
""")


class Alias(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an alias points."""

    version: str
    #: The part of the jobs a canary takes, above 0 and up to 1; None for the others.
    share: float | None = None


class AliasChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An alias was set, moved or taken away."""

    alias: str
    #: Where it points now, and where it pointed; None is nowhere.
    version: str | None = None
    former: str | None = None
    share: float | None = None
    #: Whether it went back to where it had pointed before.
    rollback: bool = False
    #: Who did it, and why, in their own words.
    by: str
    reason: str = ""
    #: When: unix milliseconds, the server's clock.
    at_ms: int = 0


class Aliases(msgspec.Struct, frozen=True):
    """The aliases of one model."""

    model: str
    by_name: Mapping[str, Alias] = {}

    def resolve(self, requested: str | None, job: str) -> str | None:
        """The version a job runs on: a number as text; None is the newest. Raises UnknownModel.

        A job that asks for nothing goes to the canary by its id, so that it always does or never.
        """
        if requested is None:
            canary, production = self.by_name.get(CANARY), self.by_name.get(PRODUCTION)
            if canary is not None and job_fraction(job) < (canary.share or 0.0):
                return canary.version
            return production.version if production is not None else None
        if is_version(requested):
            return requested
        if requested in self.by_name:
            return self.by_name[requested].version
        known = ", ".join(sorted(self.by_name)) or "none"
        raise UnknownModel(f"model {self.model!r} has no alias {requested[:64]!r}; it has {known}")

    @property
    def has_canary(self) -> bool:
        """Whether jobs that ask for nothing run on more than one version."""
        return CANARY in self.by_name

    @property
    def versions(self) -> set[str]:
        """The versions that some alias names."""
        return {alias.version for alias in self.by_name.values()}


def job_fraction(job: str) -> float:
    """A number from 0 to below 1: always the same for an id, as good as random from one id to the next."""
    return zlib.crc32(job.encode()) / 2**32


def is_version(text: str) -> bool:
    """Whether it is a number as text, as versions are."""
    return text.isascii() and text.isdigit()


def check_alias(alias: object) -> str:
    """The alias itself, or InvalidInput."""
    if not isinstance(alias, str) or not _NAME.fullmatch(alias):
        shown = repr(alias[:80]) if isinstance(alias, str) else f"a {type(alias).__name__}"
        raise InvalidInput(
            f"an alias is 1 to 64 small letters, digits, '-' or '_', the first a letter; got {shown}"
        )
    return alias


def read_aliases(keys: Keys, model: str) -> Command:
    """The command that reads the aliases of a model; `decoded` reads its reply."""
    return Command(("HGETALL", keys.aliases(model)))


def decode_aliases(model: str, reply: Any) -> Aliases:
    """The aliases in a reply to HGETALL. What cannot be read (a newer Headrace wrote it) is left out."""
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    by_name = {}
    for name, stored in pairs:
        try:
            by_name[name.decode()] = _ALIAS.decode(stored)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return Aliases(model, by_name)


def move_arguments(
    keys: Keys,
    model: str,
    alias: str,
    current: Alias | None,
    target: Alias | None,
    *,
    by: str,
    reason: str,
    rollback: bool = False,
) -> tuple[list[str], list[Argument]]:
    """KEYS and ARGV of MOVE: let an alias that points to `now` point to `then`; None is nowhere."""
    move = AliasChange(
        alias=alias,
        version=target.version if target else None,
        former=current.version if current else None,
        share=target.share if target else None,
        rollback=rollback,
        by=by,
        reason=reason,
    )
    words: list[Argument] = [
        alias,
        encode_alias(current),
        encode_alias(target),
        msgspec.json.encode(move),
        HISTORY_LENGTH,
    ]
    return [keys.aliases(model), keys.alias_history(model)], words


def encode_alias(alias: Alias | None) -> bytes:
    """An alias as it is stored; nothing for None."""
    return b"" if alias is None else msgspec.json.encode(alias)


def set_arriving(keys: Keys, model: str, version: str | None) -> Command:
    """The command that lets workers load a version before an alias points to it; None: no more.

    That is no move of the history.
    """
    if version is None:
        return Command(("HDEL", keys.aliases(model), ARRIVING))
    return Command(("HSET", keys.aliases(model), ARRIVING, encode_alias(Alias(version=version))))


def read_history(keys: Keys, model: str) -> Command:
    """The command that reads the moves of a model's aliases; `moves` reads its reply."""
    return Command(("LRANGE", keys.alias_history(model), 0, -1))


def decode_history(reply: Sequence[bytes]) -> list[AliasChange]:
    """The moves in a reply to LRANGE, the newest first."""
    return [_MOVE.decode(stored) for stored in reply]


def find_former_version(history: Sequence[AliasChange], alias: str) -> str | None:
    """Where an alias pointed before it pointed where it does; None if it never did.

    A rollback of a rollback goes back further: what was rolled back from is not what one wants to come back to.
    """
    undone: set[str] = set()
    for move in history:
        if move.alias != alias:
            continue
        if move.rollback:
            undone.add(move.former or "")
        elif move.former is not None and move.former not in undone and move.version not in undone:
            return move.former
    return None


_ALIAS = msgspec.json.Decoder(Alias)
_MOVE = msgspec.json.Decoder(AliasChange)
