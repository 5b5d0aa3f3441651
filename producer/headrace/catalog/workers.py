"""What workers say of the versions of a model: which they have in memory, and which they will not serve, and why.

A worker says it when something changes and every few seconds besides. One that is silent is gone: it is no longer
believed, and the next that speaks takes away what it had said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from headrace.connection.commands import Command, Script
from headrace.wire.keys import Keys

#: Seconds after which a worker that says nothing is gone, and in which its hashes go when nobody is left to tell.
STATUS_TTL_SECONDS = 15.0

# KEYS: loaded, refused. ARGV: worker, its entry, milliseconds of silence, then a version and its entry for each
# that it refuses; the moment is added to all. Entries of those silent, and what cannot be read, are taken away.
_TELL = Script("""
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local silent = tonumber(ARGV[3])
local function moment(entry) return string.sub(entry, 1, -2) .. ',"at_ms":' .. string.format('%d', now) .. '}' end
local function sweep(key, of)
  local pairs_ = redis.call('HGETALL', key)
  for place = 1, #pairs_, 2 do
    local read, entry = pcall(cjson.decode, pairs_[place + 1])
    local at = read and type(entry) == 'table' and tonumber(entry.at_ms)
    if not at or now - at > silent or (of and entry.worker == of) then redis.call('HDEL', key, pairs_[place]) end
  end
end
sweep(KEYS[1])
sweep(KEYS[2], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], moment(ARGV[2]))
for place = 4, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[place], moment(ARGV[place + 1])) end
local lasts = math.max(1000, math.floor(silent) * 2)
redis.call('PEXPIRE', KEYS[1], lasts)
redis.call('PEXPIRE', KEYS[2], lasts)
return 1
""")

_LEAVE = Script("""
redis.call('HDEL', KEYS[1], ARGV[1])
local refused = redis.call('HGETALL', KEYS[2])
for place = 1, #refused, 2 do
  local read, entry = pcall(cjson.decode, refused[place + 1])
  local keep = read and type(entry) == 'table' and entry.worker ~= ARGV[1]
  if not keep then redis.call('HDEL', KEYS[2], refused[place]) end
end
return 1
""")


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker has of a model."""

    #: The versions in the memory of its pool processes, the lowest first.
    versions: tuple[str, ...]
    #: What executes each, by version; {} of an older Headrace.
    runtimes: dict[str, str] = {}
    #: When it said so: unix milliseconds, the server's clock.
    at_ms: int = 0


class LoadError(msgspec.Struct, frozen=True, kw_only=True):
    """A version that does not serve."""

    worker: str
    reason: str
    at_ms: int = 0


def publish_status(
    keys: Keys,
    model: str,
    worker: str,
    versions: Sequence[str],
    refused: Mapping[str, str],
    *,
    runtimes: Mapping[str, str] | None = None,
    ttl: float = STATUS_TTL_SECONDS,
) -> Command:
    """A worker says what it has of a model, and what it refuses (version -> why). Replaces what it said before."""
    has = msgspec.json.encode({"versions": sorted(versions, key=int), "runtimes": runtimes or {}})
    words: list[str | bytes | int] = [worker, has, int(ttl * 1000)]
    for version, why in refused.items():
        words += [version, msgspec.json.encode({"worker": worker, "reason": why})]
    return _TELL([keys.loaded(model), keys.refused(model)], words)


def withdraw_status(keys: Keys, model: str, worker: str) -> Command:
    """A worker that ends takes back what it said of a model."""
    return _LEAVE([keys.loaded(model), keys.refused(model)], [worker])


def read_loaded(keys: Keys, model: str) -> Command:
    """The command that reads who has what; `loaded` reads its reply."""
    return Command(("HGETALL", keys.loaded(model)))


def read_refused(keys: Keys, model: str) -> Command:
    """The command that reads what is refused; `refused` reads its reply."""
    return Command(("HGETALL", keys.refused(model)))


def decode_loaded(reply: Any, now_ms: int) -> dict[str, WorkerStatus]:
    """What each living worker has, by its name. `now_ms` is the server's clock, unix milliseconds."""
    return {name: said for name, said in _read(reply, _LOADED) if now_ms - said.at_ms <= STATUS_TTL_SECONDS * 1000}


def decode_refused(reply: Any, now_ms: int) -> dict[str, LoadError]:
    """Why versions do not serve, by version, as living workers say."""
    return {
        name: said for name, said in _read(reply, _REFUSED) if now_ms - said.at_ms <= STATUS_TTL_SECONDS * 1000
    }


_Said = TypeVar("_Said", WorkerStatus, LoadError)


def _read(reply: Any, decoder: msgspec.json.Decoder[_Said]) -> Iterator[tuple[str, _Said]]:
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    found = []
    for name, stored in pairs:
        try:
            found.append((name.decode(), decoder.decode(stored)))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # a newer Headrace wrote it
    return iter(sorted(found, key=lambda pair: pair[0]))


_LOADED = msgspec.json.Decoder(WorkerStatus)
_REFUSED = msgspec.json.Decoder(LoadError)
