"""The status of workers: the versions of a model that they have loaded, and those that they refuse to serve.

A worker publishes its status when it changes and every few seconds. A status that was not renewed for
STATUS_TTL_SECONDS is that of a worker that has ended. Readers ignore it, and the next worker to publish its own
status deletes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeVar

import msgspec

from headrace.connection.commands import Argument, Command, Script
from headrace.connection.lua import CHECKED_FUNCTION
from headrace.wire.keys import Keys
from headrace.wire.stored import decode_items, hash_items

#: Seconds for which a status is valid.
STATUS_TTL_SECONDS = 15.0

#: The cost of both scripts is linear in the entries of the two hashes and their bytes.
#: Call it by `publish_status`. ARGV from the fourth on: a version and its entry for each version that is refused.
_PUBLISH = Script(
    "report_worker",
    CHECKED_FUNCTION
    + """
local loaded, refused = KEYS[1], KEYS[2]
local worker, status, ttl_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function with_time(entry)
  return string.sub(entry, 1, -2) .. ',"at_ms":' .. string.format('%d', now_ms) .. '}'
end
-- Delete expired and unreadable entries of a hash, and those of one worker.
local function prune(key, pairs_, of_worker)
  for i = 1, #pairs_, 2 do
    local is_json, entry = pcall(cjson.decode, pairs_[i + 1])
    local at_ms = is_json and type(entry) == 'table' and tonumber(entry.at_ms)
    if not at_ms or now_ms - at_ms > ttl_ms or (of_worker and entry.worker == of_worker) then
      redis.call('HDEL', key, pairs_[i])
    end
  end
end
local all_loaded, all_refused = checked('HGETALL', loaded), checked('HGETALL', refused)
prune(loaded, all_loaded)
prune(refused, all_refused, worker)
redis.call('HSET', loaded, worker, with_time(status))
for i = 4, #ARGV, 2 do redis.call('HSET', refused, ARGV[i], with_time(ARGV[i + 1])) end
local key_ttl_ms = math.max(1000, math.floor(ttl_ms) * 2)
redis.call('PEXPIRE', loaded, key_ttl_ms)
redis.call('PEXPIRE', refused, key_ttl_ms)
return 1
""",
)

#: Call it by `withdraw_status`.
_WITHDRAW = Script(
    "withdraw_worker",
    CHECKED_FUNCTION
    + """
local loaded, refused, worker = KEYS[1], KEYS[2], ARGV[1]
checked('HGET', loaded, worker)
local pairs_ = checked('HGETALL', refused)
redis.call('HDEL', loaded, worker)
for i = 1, #pairs_, 2 do
  local is_json, entry = pcall(cjson.decode, pairs_[i + 1])
  if not is_json or type(entry) ~= 'table' or entry.worker == worker then
    redis.call('HDEL', refused, pairs_[i])
  end
end
return 1
""",
    flag="allow-oom",
)


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The versions of a model that a worker has loaded."""

    #: The versions in the memory of its pool processes, the lowest first.
    versions: tuple[str, ...]
    #: The runtime of each version; {} of an older Headrace.
    runtimes: dict[str, str] = {}
    #: The time of publishing: unix milliseconds, the server's clock.
    at_ms: int = 0


class LoadError(msgspec.Struct, frozen=True, kw_only=True):
    """A version that a worker refuses to serve, and the reason."""

    worker: str
    reason: str
    #: The time of publishing: unix milliseconds, the server's clock.
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
    """Return the command that publishes a worker's status of a model and replaces the former one.

    `versions` are those it has loaded, `refused` those it refuses, with the reason of each. `ttl` is in seconds.
    """
    status = msgspec.json.encode({"versions": sorted(versions, key=int), "runtimes": runtimes or {}})
    values: list[Argument] = [worker, status, int(ttl * 1000)]
    for version, reason in refused.items():
        values += [version, msgspec.json.encode({"worker": worker, "reason": reason})]
    return _PUBLISH([keys.loaded(model), keys.refused(model)], values)


def withdraw_status(keys: Keys, model: str, worker: str) -> Command:
    """Return the command that deletes a worker's status of a model, for a worker that ends."""
    return _WITHDRAW([keys.loaded(model), keys.refused(model)], [worker])


def read_loaded(keys: Keys, model: str) -> Command:
    """Return the command that reads the loaded versions of a model; `decode_loaded` decodes its reply."""
    return Command(("HGETALL", keys.loaded(model)))


def read_refused(keys: Keys, model: str) -> Command:
    """Return the command that reads the refused versions of a model; `decode_refused` decodes its reply."""
    return Command(("HGETALL", keys.refused(model)))


def decode_loaded(model: str, reply: Any, now_ms: int) -> dict[str, WorkerStatus]:
    """Decode the reply to `read_loaded`: the valid statuses by worker. `now_ms` is the server's clock."""
    return dict(_decode_valid(f"the workers of {model}", reply, now_ms, _LOADED))


def decode_refused(model: str, reply: Any, now_ms: int) -> dict[str, LoadError]:
    """Decode the reply to `read_refused`: the valid errors by version. `now_ms` is the server's clock."""
    return dict(_decode_valid(f"the refused versions of {model}", reply, now_ms, _REFUSED))


_Entry = TypeVar("_Entry", WorkerStatus, LoadError)


def _decode_valid(
    name: str, reply: Any, now_ms: int, decoder: msgspec.json.Decoder[_Entry]
) -> Iterator[tuple[str, _Entry]]:
    """Yield the entries that have not expired, sorted by name. Damaged ones are skipped and logged."""
    for item, entry in sorted(decode_items(decoder.decode, hash_items(reply, name), name), key=itemgetter(0)):
        if now_ms - entry.at_ms <= STATUS_TTL_SECONDS * 1000:
            yield item, entry


_LOADED = msgspec.json.Decoder(WorkerStatus)
_REFUSED = msgspec.json.Decoder(LoadError)
