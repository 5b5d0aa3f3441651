"""The state of a run in Redis, as its jobs read it and as a plan writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import redis

from headrace.connection.commands import Argument, Command, Pipeline, Script, execute
from headrace.connection.lua import CHECKED_FUNCTION
from headrace.results.letter_scripts import names_of_letters
from headrace.results.publish import STATUS_FUNCTION
from headrace.wire.bulk import CHUNK_PRIORITY, RUN_SECONDS, Receipt, Run
from headrace.wire.keys import Keys
from headrace.wire.queues import bulk_queue_name, priority_index
from headrace.wire.stored import DECODE_ERRORS, damaged, hash_items
from headrace_worker.transport.run_script import NewJob

_RUN, _RECEIPT = msgspec.json.Decoder(Run), msgspec.json.Decoder(Receipt)
#: Jobs of one call of a script, so that it holds Redis for about a millisecond.
JOBS_PER_CALL = 250
#: The newest runs that are looked at for the time of a row, and the rows that a run must have had for it.
_RUNS_TO_COMPARE, _MIN_ROWS = 20, 1000

#: KEYS: run, receipts. ARGV: round, version, chunks, rows or '', server's milliseconds. Returns 1; 0 if another
#: plan took over, or the run was cancelled. Chunks that were split count as more. Chunks that failed run again.
_BEGIN = Script(
    "begin_run",
    CHECKED_FUNCTION
    + """
local run, receipts = KEYS[1], KEYS[2]
local round, version, chunks, rows, now = unpack(ARGV)
if checked('HGET', run, 'round') ~= round or redis.call('HGET', run, 'is_stopped') == '1' then return 0 end
local state = redis.call('HGET', run, 'state')
if state ~= 'planning' and state ~= 'failure' then return 0 end  -- a late plan, whose lease expired
local failed = tonumber(redis.call('HGET', run, 'chunks_failed')) or 0
local split = tonumber(redis.call('HGET', run, 'chunks_split')) or 0
local stored = failed > 0 and checked('HGETALL', receipts) or checked('HLEN', receipts) and {}
for i = 1, #stored, 2 do
  if string.sub(stored[i], 1, 1) == '!' then redis.call('HDEL', receipts, stored[i]) end
end
if failed > 0 then redis.call('HSET', run, 'chunks_failed', 0) end
redis.call('HSET', run, 'version', version, 'chunks', chunks + split)
redis.call('HSETNX', run, 'started_ms', now)
if rows ~= '' then redis.call('HSET', run, 'rows', rows) end
return 1
""",
)

#: KEYS: run, list of chunks, those of dead letters, share of dead letters, then record and result of each job.
#: ARGV:
#: round, seconds of records, then record and message of each job. A job that ended without a receipt is forgotten
#: first. Returns -1 if another plan took over, or the run was cancelled; else the numbers of the jobs that have a
#: record and no outcome: they wait, run, or are lost.
_ENQUEUE = Script(
    "enqueue_chunks",
    CHECKED_FUNCTION
    + STATUS_FUNCTION
    + """
local run, list, dead, messages, times, share = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[7]
local round, record_seconds = ARGV[1], ARGV[2]
local final = {SUCCESS = true, FAILURE = true, REVOKED = true}
if checked('HGET', run, 'round') ~= round or redis.call('HGET', run, 'is_stopped') == '1' then return -1 end
local state = redis.call('HGET', run, 'state')
if state ~= 'planning' and state ~= 'failure' then return -1 end
checked('LLEN', list)
checked('HGET', dead, '')
checked('HGET', messages, '')
checked('ZCARD', times)
checked('ZCARD', share)
local known_jobs = {}
for i = 1, (#ARGV - 2) / 2 do
  local record_key, result_key = KEYS[6 + 2 * i], KEYS[7 + 2 * i]
  local record, message = ARGV[1 + 2 * i], ARGV[2 + 2 * i]
  if final[status_of(result_key)] then
    local id = string.match(result_key, 'celery%-task%-meta%-(.*)$')
    redis.call('DEL', result_key)
    redis.call('HDEL', dead, id)
    redis.call('HDEL', messages, id)
    redis.call('ZREM', times, id)
    redis.call('ZREM', share, id)
    redis.call('SET', record_key, record, 'EX', record_seconds)
    redis.call('LPUSH', list, message)
  elseif redis.call('SET', record_key, record, 'NX', 'EX', record_seconds) then
    redis.call('LPUSH', list, message)
  else
    known_jobs[#known_jobs + 1] = i
  end
end
return known_jobs
""",
)

#: KEYS: run, receipts. ARGV: for each chunk its name among the receipts, its receipt, rows, failed rows.
_RESTORE = Script(
    "restore_receipts",
    CHECKED_FUNCTION
    + """
local run, receipts = KEYS[1], KEYS[2]
checked('HLEN', run)
checked('HLEN', receipts)
for i = 2, #ARGV, 4 do
  if redis.call('HSETNX', receipts, ARGV[i], ARGV[i + 1]) == 1 then
    redis.call('HINCRBY', run, 'chunks_done', 1)
    redis.call('HINCRBY', run, 'rows_done', ARGV[i + 2])
    redis.call('HINCRBY', run, 'rows_failed', ARGV[i + 3])
  end
end
redis.call('EXPIRE', receipts, ARGV[1])
return 1
""",
)


def begin_command(
    keys: Keys, name: str, *, round_: int, version: str, chunks: int, rows: int | None, now_ms: int
) -> Command:
    """Return the command that stores the numbers of a run before its chunks are enqueued."""
    values: list[Argument] = [round_, version, chunks, "" if rows is None else rows, now_ms]
    return _BEGIN([keys.run(name), keys.receipts(name)], values)


def enqueue_command(keys: Keys, run: Run, round_: int, jobs: Sequence[NewJob]) -> Command:
    """Return the command that enqueues chunks of a run."""
    queue = bulk_queue_name(run.model)
    names = [
        keys.run(run.name),
        keys.lists(queue)[priority_index(CHUNK_PRIORITY)],
        *names_of_letters(keys),
        keys.dead_share(queue, malformed=False),
    ]
    values: list[Argument] = [round_, RUN_SECONDS]
    for job in jobs:
        names += [keys.job(job.id), keys.result(job.id)]
        values += [job.record, job.message]
    return _ENQUEUE(names, values)


def restore_command(keys: Keys, name: str, receipts: Mapping[str, Receipt]) -> Command:
    """Return the command that stores and counts receipts of a run."""
    values: list[Argument] = [RUN_SECONDS]
    for unit, receipt in receipts.items():
        values += [unit, msgspec.json.encode(receipt), receipt.rows, receipt.failed]
    return _RESTORE([keys.run(name), keys.receipts(name)], values)


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as a job of it reads it."""

    run: Run
    #: The version that the first plan has chosen; None before.
    version: str | None
    round: int
    state: str
    #: True if no further chunk is to run.
    is_stopped: bool


class RunStore:
    """The runs of an installation in Redis. Every method raises redis.RedisError."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self.client, self.keys = client, keys

    def read(self, name: str) -> RunState | None:
        """Read a run; None if there is none. Raises StoredDataError."""
        reply: list[bytes | None] = self.client.hmget(  # type: ignore[assignment]  # redis-py has two clients
            self.keys.run(name), ["run", "version", "round", "state", "is_stopped"]
        )
        encoded, version, round_, state, is_stopped = reply
        if encoded is None:
            return None
        try:
            return RunState(
                run=_RUN.decode(encoded),
                version=version.decode() if version else None,
                round=int(round_ or b"1"),
                state=(state or b"").decode(),
                is_stopped=is_stopped == b"1",
            )
        except DECODE_ERRORS as error:
            raise damaged(f"the bulk run {name}", error) from None

    def is_stopped(self, name: str, job: str) -> bool:
        """Return whether a job of a run is to end: the run was stopped or forgotten, or the job was cancelled."""
        commands = (
            ("HMGET", self.keys.run(name), "run", "is_stopped"),
            ("GETRANGE", self.keys.result(job), 0, 63),
        )
        fields, result = execute(self.client, Pipeline(commands))
        for reply in (fields, result):
            if isinstance(reply, Exception):
                raise reply
        return fields[0] is None or fields[1] == b"1" or b"REVOKED" in result

    def read_receipts(self, name: str) -> dict[str, Receipt]:
        """Read the receipts of a run by chunk."""
        items = hash_items(execute(self.client, Command(("HGETALL", self.keys.receipts(name)))), "the receipts")
        return {unit.decode(): _RECEIPT.decode(value) for unit, value in items if unit[:1].isdigit()}

    def restore_receipts(self, name: str, receipts: Mapping[str, Receipt]) -> None:
        """Store and count the receipts of chunks whose parts were met in the output."""
        execute(self.client, restore_command(self.keys, name, receipts))

    def begin(self, name: str, *, round_: int, version: str, chunks: int, rows: int | None, now_ms: int) -> bool:
        """Store the numbers of a run before its chunks are enqueued. Return False if the plan is to end."""
        command = begin_command(
            self.keys, name, round_=round_, version=version, chunks=chunks, rows=rows, now_ms=now_ms
        )
        return bool(execute(self.client, command))

    def enqueue(self, run: Run, round_: int, jobs: Sequence[NewJob]) -> list[NewJob] | None:
        """Enqueue chunks, at most JOBS_PER_CALL. Return those that wait, run or are lost; None to end."""
        reply = execute(self.client, enqueue_command(self.keys, run, round_, jobs))
        return None if reply == -1 else [jobs[number - 1] for number in reply]

    def has_record(self, job: str, digest: bytes) -> bool:
        """Return whether a job with these arguments was enqueued under this id by a plan, or split off."""
        stored = execute(self.client, Command(("GETRANGE", self.keys.job(job), 0, len(digest) - 1)))
        return bool(stored == digest)

    def forget_jobs(self, jobs: Sequence[str]) -> None:
        """Delete the outcomes of jobs, and their records."""
        if jobs:
            names = tuple(self.keys.result(job) for job in jobs)
            expire = tuple(("EXPIRE", self.keys.job(job), 0) for job in jobs)
            execute(self.client, Pipeline((("DEL", *names), *expire)))

    def read_row_ms(self, run: Run, version: str) -> float | None:
        """Return the milliseconds of a row in the newest run of a version that succeeded, if there is one."""
        names: list[bytes] = execute(self.client, Command(("ZRANGE", self.keys.runs, 0, _RUNS_TO_COMPARE, "REV")))
        if not names:
            return None
        fields = ("run", "state", "version", "rows_done", "milliseconds")
        commands = tuple(("HMGET", self.keys.run(name.decode()), *fields) for name in names)
        for reply in execute(self.client, Pipeline(commands)):
            if isinstance(reply, Exception) or reply[0] is None or reply[1:3] != [b"success", version.encode()]:
                continue
            try:
                other, rows, milliseconds = _RUN.decode(reply[0]), int(reply[3] or 0), int(reply[4] or 0)
            except DECODE_ERRORS:
                continue
            is_alike = (other.model, other.method, other.keep) == (run.model, run.method, run.keep)
            if is_alike and rows >= _MIN_ROWS and milliseconds:
                return milliseconds / rows
        return None
