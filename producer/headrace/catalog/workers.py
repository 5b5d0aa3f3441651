"""The status of workers: the versions of a model that they have loaded, and those that they refuse to serve.

A worker publishes its status of a model when it changes, and a sign of life every few seconds. The keeper of the
queues writes the time of that sign into the statuses, so that they cost Redis the same for any number of models a
worker serves. A status whose time is STATUS_TTL_SECONDS ago is that of a worker that has ended. Readers ignore it,
and the next worker to publish its own status deletes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeVar

import msgspec
from redis.exceptions import NoPermissionError

from headrace.catalog.aliases import Alias
from headrace.connection.commands import Argument, Command, Operation, Pipeline, Script
from headrace.connection.lua import CHECKED_FUNCTION
from headrace.connection.server_time import READ_SERVER_TIME, decode_server_time
from headrace.wire.keys import Keys
from headrace.wire.stored import decode_items, hash_items

#: Seconds for which a status is valid.
STATUS_TTL_SECONDS = 15.0
#: Seconds after its last sign of life for which a worker is remembered.
_REMEMBERED_SECONDS = 60
#: Seconds for which renewed statuses are stored.
_STORED_SECONDS = 120
#: The most fields of one HSET: Lua passes at most some thousand arguments.
_FIELDS_PER_CALL = 1000

#: KEYS: the workers. ARGV: the worker, seconds it is remembered. Returns 1 if the worker was not known, and the
#: number of workers. The cost is logarithmic in their number.
_SIGN = Script(
    "sign_of_life",
    CHECKED_FUNCTION
    + """
local workers, worker, seconds = KEYS[1], ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now_ms = time[1] .. string.format('%03d', math.floor(time[2] / 1000))
local added = checked('ZADD', workers, now_ms, worker)
if added == 1 then redis.call('EXPIRE', workers, seconds) end
return {added, redis.call('ZCARD', workers)}
""",
)

#: KEYS: the workers, then the loaded versions of each model, then the refused ones. ARGV: milliseconds for which a
#: worker is remembered, for which a hash is stored, fields of one HSET, and 1 to store hashes for longer. The cost
#: is linear in the entries of the hashes and their bytes. The time is at the end of an entry.
_RENEW = Script(
    "renew_statuses",
    """
local workers, remembered_ms, stored_ms, fields = KEYS[1], tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local extends = ARGV[4] == '1'
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local signs = {}
local listed = redis.pcall('ZRANGE', workers, 0, -1, 'WITHSCORES')
for i = 1, listed.err and 0 or #listed, 2 do
  local at_ms = tonumber(listed[i + 1])
  if now_ms - at_ms > remembered_ms then redis.call('ZREM', workers, listed[i]) else signs[listed[i]] = at_ms end
end
local function worker_of(entry)
  local is_json, decoded = pcall(cjson.decode, entry)
  return is_json and type(decoded) == 'table' and decoded.worker
end
-- Renew the entries of a hash, and delete those of workers that ended.
local function renew(key, is_refused)
  local entries, changed = redis.pcall('HGETALL', key), {}
  for i = 1, entries.err and 0 or #entries, 2 do
    local name, entry = entries[i], entries[i + 1]
    local worker = name
    if is_refused then worker = worker_of(entry) end
    local sign, former = signs[worker], string.match(string.sub(entry, -24), '"at_ms":(%d+)}$')
    if sign and former and tonumber(former) < sign then
      changed[#changed + 1] = name
      changed[#changed + 1] = string.sub(entry, 1, -2 - #former) .. string.format('%d', sign) .. '}'
    elseif not sign and former and now_ms - tonumber(former) > remembered_ms then
      redis.call('HDEL', key, name)
    end
  end
  for first = 1, #changed, fields do
    redis.call('HSET', key, unpack(changed, first, math.min(#changed, first + fields - 1)))
  end
  if #changed > 0 and extends then redis.call('PEXPIRE', key, stored_ms) end
end
local models = (#KEYS - 1) / 2
for number = 2, 1 + models do renew(KEYS[number], false) end
if models > 0 and redis.call('EXISTS', unpack(KEYS, 2 + models)) > 0 then
  for number = 2 + models, #KEYS do renew(KEYS[number], true) end
end
redis.call('EXPIRE', workers, math.floor(remembered_ms / 1000))
return 1
""",
)


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
    #: Its pool processes, each of which runs one claim at a time; 0 of an older Headrace.
    processes: int = 0
    #: The forms of instances in columns that it takes (`headrace.wire.columns`); none of an older Headrace.
    columns: tuple[str, ...] = ()
    #: The aliases by which it routes jobs; None of an older Headrace.
    aliases: dict[str, Alias] | None = None
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
    processes: int = 0,
    columns: Sequence[str] = (),
    aliases: Mapping[str, Alias] | None = None,
    ttl: float = STATUS_TTL_SECONDS,
) -> Command:
    """Return the command that publishes a worker's status of a model and replaces the former one.

    `versions` are those it has loaded, `refused` those it refuses, with the reason of each. `processes` is the
    number of its pool processes, `columns` are the forms of columns it takes, `aliases` those by which it routes
    jobs. `ttl` is in seconds.
    """
    fields: dict[str, Any] = {
        "versions": sorted(versions, key=int),
        "runtimes": runtimes or {},
        "processes": processes,
        "columns": columns,
        "aliases": aliases,
    }
    status = msgspec.json.encode(fields)
    values: list[Argument] = [worker, status, int(ttl * 1000)]
    for version, reason in refused.items():
        values += [version, msgspec.json.encode({"worker": worker, "reason": reason})]
    return _PUBLISH([keys.loaded(model), keys.refused(model)], values)


def withdraw_status(keys: Keys, model: str, worker: str) -> Command:
    """Return the command that deletes a worker's status of a model, for a worker that ends."""
    return _WITHDRAW([keys.loaded(model), keys.refused(model)], [worker])


def sign_of_life_command(keys: Keys, worker: str) -> Command:
    """Return the command by which a worker says that it runs; `renew_command` writes it to the worker's statuses.

    The reply is 1 if Redis did not know the worker, 0 if it did, and the number of workers.
    """
    return _SIGN([keys.workers], [worker, _REMEMBERED_SECONDS])


def renew_command(keys: Keys, models: Sequence[str], *, extend: bool = True) -> Command:
    """Return the command that renews the statuses of these models, of all workers that gave a sign of life.

    With `extend` it also puts off that they are deleted, by _STORED_SECONDS.
    """
    names = [*map(keys.loaded, models), *map(keys.refused, models)]
    milliseconds = [1000 * _REMEMBERED_SECONDS, 1000 * _STORED_SECONDS]
    return _RENEW([keys.workers, *names], [*milliseconds, _FIELDS_PER_CALL, int(extend)])


def forget_worker(keys: Keys, worker: str) -> Command:
    """Return the command that forgets a worker that ends."""
    return Command(("ZREM", keys.workers, worker))


def read_loaded(keys: Keys, model: str) -> Command:
    """Return the command that reads the loaded versions of a model; `decode_loaded` decodes its reply."""
    return Command(("HGETALL", keys.loaded(model)))


def read_refused(keys: Keys, model: str) -> Command:
    """Return the command that reads the refused versions of a model; `decode_refused` decodes its reply."""
    return Command(("HGETALL", keys.refused(model)))


def read_accepted_columns(keys: Keys, model: str) -> Operation[frozenset[str]]:
    """Read the forms of instances in columns that all workers of a model take.

    They are none if no worker runs, or if the Redis user may not read the statuses of workers.
    """
    try:
        statuses = yield from read_statuses(keys, model)
    except NoPermissionError:
        return frozenset()
    forms = [frozenset(status.columns) for status in statuses.values()]
    return frozenset.intersection(*forms) if forms else frozenset()


def read_statuses(keys: Keys, model: str) -> Operation[dict[str, WorkerStatus]]:
    """Return the statuses of the workers of a model, by worker. Raises NoPermissionError."""
    loaded, server_time = yield Pipeline((read_loaded(keys, model), READ_SERVER_TIME))
    if isinstance(loaded, NoPermissionError):
        raise loaded
    return decode_loaded(model, loaded, decode_server_time(server_time))


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
