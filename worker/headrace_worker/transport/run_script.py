"""PUBLISH for a job of a bulk run: its outcome, and what the outcome changes in the run, in one step.

The receipt of a chunk is stored and counted once. So the counts of a run are true, whoever dies when, and the last
chunk enqueues the job that finishes the run. A run ends as a failure if a chunk of it failed, once no other chunk
waits or runs, or if more rows failed than it may have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from headrace.connection.commands import Argument, Command, Script
from headrace.wire.bulk import CHUNK_PRIORITY, PLAN_PRIORITY, RUN_SECONDS
from headrace.wire.keys import Keys
from headrace.wire.queues import priority_index
from headrace_worker.transport.claims import Lease
from headrace_worker.transport.publish_script import make_source

#: How a job changes its run: a chunk has ended, all chunks are enqueued, or the run has ended.
Change = Literal["chunk", "planned", "ended"]


class NewJob(msgspec.Struct, frozen=True):
    """A job to be enqueued."""

    id: str
    #: The record and the message, as they are stored.
    record: bytes
    message: bytes


class RunUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """The changes that the outcome of a job makes in its run."""

    run: str
    change: Change
    #: The chunk, or the split piece of it, among the receipts of the run.
    unit: str = ""
    #: The receipt of the chunk as JSON; empty if the chunk failed, and then `failure` says why, as JSON.
    receipt: bytes = b""
    failure: bytes = b""
    #: Numbers of the receipt.
    rows: int = 0
    failed: int = 0
    milliseconds: int = 0
    reasons: Mapping[str, int] = {}
    #: The failed rows that end the run: a count, or a share of its rows if it is less than 1. None: no limit.
    max_failed: float | None = None
    #: The jobs of the pieces that the chunk was split into.
    pieces: Sequence[NewJob] = ()
    #: The job that finishes the run, if this is the last chunk.
    finish: NewJob | None = None
    #: The final state of a run that has ended, and its error.
    state: Literal["success", "failure", ""] = ""
    error: str = ""


#: The arguments and keys of the run stand behind those of PUBLISH. The last argument is the number of arguments
#: in front of it that belong to the run.
_READ_RUN = """
local run_args, run_keys, all_args, all_keys = {}, {}, ARGV, KEYS
local function check_count(fits) if not fits then error('the counts do not fit the arguments', 0) end end
local run_arg_count = tonumber(all_args[#all_args]) or 0
check_count(run_arg_count >= 14 and run_arg_count < #all_args and run_arg_count % 1 == 0)
local first_run_arg = #all_args - run_arg_count
for i = first_run_arg, #all_args - 1 do run_args[#run_args + 1] = all_args[i] end
local change, unit, receipt, failure = run_args[1], run_args[2], run_args[3], run_args[4]
local rows, failed, milliseconds = run_args[5], run_args[6], run_args[7]
local max_failed, final_state, final_error = tonumber(run_args[8]), run_args[9], run_args[10]
local run_seconds, finish_record, finish_message = run_args[11], run_args[12], run_args[13]
local reason_count = tonumber(run_args[14]) or -1
check_count(reason_count >= 0 and reason_count % 1 == 0 and 14 + 2 * reason_count <= #run_args)
local reasons = 14
local pieces = reasons + 2 * reason_count
local piece_count = (#run_args - pieces) / 2
local first_run_key = #all_keys - 5 - piece_count
check_count(piece_count % 1 == 0 and first_run_key >= 5)
for i = first_run_key + 1, #all_keys do run_keys[#run_keys + 1] = all_keys[i] end
local run, receipts, chunk_list, plan_list, finish_key = unpack(run_keys)
local KEYS, ARGV = {}, {}
for i = 1, first_run_key do KEYS[i] = all_keys[i] end
for i = 1, first_run_arg - 1 do ARGV[i] = all_args[i] end
checked('HLEN', run)
checked('HLEN', receipts)
checked('LLEN', chunk_list)
checked('LLEN', plan_list)
"""

#: It runs behind the outcome, and before the lease ends.
_UPDATE_RUN = """
local function add_chunk()
  local was_failed = redis.call('HEXISTS', receipts, '!' .. unit) == 1
  if receipt == '' then
    if redis.call('HEXISTS', receipts, unit) == 1 then return end
    redis.call('HSET', receipts, '!' .. unit, failure)
    if not was_failed then redis.call('HINCRBY', run, 'chunks_failed', 1) end
  else
    redis.call('HDEL', receipts, '!' .. unit)
    if was_failed then redis.call('HINCRBY', run, 'chunks_failed', -1) end
    if redis.call('HSETNX', receipts, unit, receipt) == 1 then
      redis.call('HINCRBY', run, 'chunks_done', 1)
      redis.call('HINCRBY', run, 'rows_done', rows)
      redis.call('HINCRBY', run, 'rows_failed', failed)
      redis.call('HINCRBY', run, 'milliseconds', milliseconds)
      redis.call('HSET', run, 'receipt_ms', string.format('%.0f', now_ms()))
      for i = reasons + 1, pieces, 2 do redis.call('HINCRBY', run, 'reason:' .. run_args[i], run_args[i + 1]) end
      for i = 1, piece_count do
        redis.call('SET', run_keys[5 + i], run_args[pieces + 2 * i - 1], 'EX', run_seconds)
        redis.call('LPUSH', chunk_list, run_args[pieces + 2 * i])
      end
      if piece_count > 0 then
        redis.call('HINCRBY', run, 'chunks', piece_count)
        redis.call('HINCRBY', run, 'chunks_split', piece_count)
      end
    end
  end
  redis.call('EXPIRE', receipts, run_seconds)
end

local function end_run(state, error_text, is_stopped)
  redis.call('HSET', run, 'state', state, 'ended_ms', string.format('%.0f', now_ms()))
  if error_text ~= '' then redis.call('HSET', run, 'error', error_text)
  else redis.call('HDEL', run, 'error') end
  if is_stopped then redis.call('HSET', run, 'is_stopped', 1) end
end

local function end_if_complete()
  local state, chunks, chunks_done, chunks_failed, all_rows, rows_done, rows_failed, stopped = unpack(redis.call(
    'HMGET', run, 'state', 'chunks', 'chunks_done', 'chunks_failed', 'rows', 'rows_done', 'rows_failed',
    'is_stopped'))
  if stopped == '1' or not (state == 'planning' or state == 'running' or state == 'failure') then return end
  chunks, chunks_done, chunks_failed = tonumber(chunks), tonumber(chunks_done) or 0, tonumber(chunks_failed) or 0
  rows_done, rows_failed = tonumber(rows_done) or 0, tonumber(rows_failed) or 0
  local is_complete = chunks and state ~= 'planning' and chunks_done + chunks_failed >= chunks
  local limit = max_failed
  if limit and limit < 1 then
    local total = tonumber(all_rows) or (is_complete and rows_done)
    limit = total and limit * total
  end
  if limit and rows_failed > limit then
    local text = string.format('%.0f %s failed, more than max_failed allows', rows_failed,
      rows_failed == 1 and 'row' or 'rows')
    end_run('failure', text, true)
  elseif is_complete and chunks_failed > 0 then
    local text = string.format('%.0f of %.0f chunks failed; see its failures, mend the cause, and resume it',
      chunks_failed, chunks)
    end_run('failure', text, false)
  elseif is_complete and finish_message ~= '' then
    redis.call('HSET', run, 'state', 'finishing')
    redis.call('HDEL', run, 'ended_ms', 'error')
    redis.call('SET', finish_key, finish_record, 'EX', run_seconds)
    redis.call('LPUSH', plan_list, finish_message)
  end
end

-- The run may have been forgotten. A receipt does not count if the job has another outcome.
local is_published = redis.call('GET', KEYS[outcome_keys + 1]) == ARGV[outcomes + 1]
if (is_published or failure ~= '') and redis.call('HEXISTS', run, 'run') == 1 then
  if change == 'chunk' then
    add_chunk()
    end_if_complete()
  elseif change == 'planned' then
    local state, stopped = redis.call('HGET', run, 'state'), redis.call('HGET', run, 'is_stopped')
    if state == 'planning' or (state == 'failure' and stopped ~= '1') then  -- a replay of the plan that failed
      redis.call('HSET', run, 'state', 'running')
      redis.call('HDEL', run, 'ended_ms', 'error')
    end
    end_if_complete()
  elseif redis.call('HGET', run, 'state') ~= 'cancelled' then
    end_run(final_state, final_error, false)
  end
  redis.call('EXPIRE', run, run_seconds)
end
"""

_PUBLISH_OF_RUN = Script("publish_run", make_source(_READ_RUN, _UPDATE_RUN), flag="allow-oom")


def publish_run_command(keys: Keys, publish: Command, update: RunUpdate, *, lease: Lease) -> Command:
    """Return the command that publishes the outcome of a job of a run, and updates the run.

    `publish` is the command that publishes the outcome alone. There is one outcome.
    """
    lists = keys.lists(lease.queue)
    finish = update.finish or NewJob("", b"", b"")
    names = [
        keys.run(update.run),
        keys.receipts(update.run),
        lists[priority_index(CHUNK_PRIORITY)],
        lists[priority_index(PLAN_PRIORITY)],
        keys.job(finish.id),
        *(keys.job(piece.id) for piece in update.pieces),
    ]
    values: list[Argument] = [
        *(update.change, update.unit, update.receipt, update.failure),
        *(update.rows, update.failed, update.milliseconds),
        "" if update.max_failed is None else update.max_failed,
        *(update.state, update.error, RUN_SECONDS, finish.record, finish.message, len(update.reasons)),
    ]
    for item in update.reasons.items():
        values += item
    for piece in update.pieces:
        values += (piece.record, piece.message)
    _, _, count, *rest = publish.args
    own_keys, own_values = rest[: int(count)], rest[int(count) :]
    return _PUBLISH_OF_RUN([*map(str, own_keys), *names], [*own_values, *values, len(values)])
