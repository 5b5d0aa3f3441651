"""The scripts that submit, resume and cancel runs: each changes the run and enqueues its plan job in one step."""

from __future__ import annotations

import msgspec

from headrace.connection.commands import Argument, Command, Script
from headrace.connection.lua import CHECKED_FUNCTION
from headrace.wire.bulk import PLAN_PRIORITY, RUN_SECONDS, PlanStep, Run, job_of_plan
from headrace.wire.job_encoder import JobEncoder
from headrace.wire.keys import Keys
from headrace.wire.message import Job
from headrace.wire.queues import bulk_queue_name, priority_index
from headrace.wire.signing import JobKeys

_NOW_FUNCTION = """
local function now_ms()
  local time = redis.call('TIME')
  return string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end
"""

#: KEYS: run, runs, list of the plan job, its record. ARGV: the run, its name, seconds for which runs are kept, the
#: record, its seconds, the message. Returns nil, or the run that has the name already.
_SUBMIT = Script(
    "submit_run",
    CHECKED_FUNCTION
    + _NOW_FUNCTION
    + """
local run, runs, list, record = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local encoded, name, run_seconds, record_value, record_seconds, message = unpack(ARGV)
local stored = checked('HGET', run, 'run')
if stored then return stored end
checked('ZCARD', runs)
checked('LLEN', list)
local now = now_ms()
redis.call('HSET', run, 'run', encoded, 'state', 'planning', 'submitted_ms', now, 'round', 1)
redis.call('EXPIRE', run, run_seconds)
redis.call('ZADD', runs, now, name)
redis.call('ZREMRANGEBYSCORE', runs, '-inf', string.format('%.0f', now - 1000 * run_seconds))
redis.call('SET', record, record_value, 'EX', record_seconds)
redis.call('LPUSH', list, message)
return nil
""",
)

#: KEYS: run, list of the plan job, its record. ARGV: the round before, seconds of the run, the record, its
#: seconds, the message. Returns 1; 0 if the run is not in that round, as somebody else resumed it.
_RESUME = Script(
    "resume_run",
    CHECKED_FUNCTION
    + """
local run, list, record = KEYS[1], KEYS[2], KEYS[3]
local round, run_seconds, record_value, record_seconds, message = unpack(ARGV)
if checked('HGET', run, 'round') ~= round then return 0 end
checked('LLEN', list)
redis.call('HSET', run, 'state', 'planning', 'round', round + 1, 'is_stopped', 0)
redis.call('HDEL', run, 'ended_ms', 'error')
redis.call('EXPIRE', run, run_seconds)
redis.call('SET', record, record_value, 'EX', record_seconds)
redis.call('LPUSH', list, message)
return 1
""",
)

#: KEYS: run. Returns the former state of the run; nil if there is no such run.
_CANCEL = Script(
    "cancel_run",
    CHECKED_FUNCTION
    + _NOW_FUNCTION
    + """
local run = KEYS[1]
local state = checked('HGET', run, 'state')
if not state or state == 'success' or state == 'failure' or state == 'cancelled' then return state end
redis.call('HSET', run, 'state', 'cancelled', 'ended_ms', now_ms(), 'is_stopped', 1)
return state
""",
)


def submit_command(keys: Keys, run: Run, job_keys: JobKeys | None, *, record_ttl: int) -> Command:
    """Return the command that stores a run and enqueues its plan job, unless there is a run of this name.

    The reply is None, or the stored run. `record_ttl` is in seconds; `job_keys` sign the job.
    """
    encoder, job = _encode_plan(run, 1, job_keys)
    encoded = msgspec.json.encode(run)
    values: list[Argument] = [encoded, run.name, RUN_SECONDS, *_enqueue_values(encoder, job, record_ttl)]
    return _SUBMIT([keys.run(run.name), keys.runs, *_names_of_plan(keys, run, job.id)], values)


def resume_command(keys: Keys, run: Run, round_: int, job_keys: JobKeys | None, *, record_ttl: int) -> Command:
    """Return the command that plans a run once more, if it is in this round. The reply is 1 or 0."""
    encoder, job = _encode_plan(run, round_ + 1, job_keys)
    values: list[Argument] = [round_, RUN_SECONDS, *_enqueue_values(encoder, job, record_ttl)]
    return _RESUME([keys.run(run.name), *_names_of_plan(keys, run, job.id)], values)


def cancel_command(keys: Keys, name: str) -> Command:
    """Return the command that cancels a run that goes on. The reply is its former state; None without a run."""
    return _CANCEL([keys.run(name)])


def _encode_plan(run: Run, round_: int, job_keys: JobKeys | None) -> tuple[JobEncoder, Job]:
    job = Job(
        id=job_of_plan(run.name, round_),
        model=run.model,
        instances=[],
        priority=PLAN_PRIORITY,
        step=PlanStep(run=run, round=round_),
    )
    return JobEncoder(job, None, job_keys), job


def _enqueue_values(encoder: JobEncoder, job: Job, record_ttl: int) -> tuple[bytes, int, bytes]:
    encoded = encoder.encode(job.id, msgspec.json.encode(job.step))
    return encoded.digest + encoder.encode_record(None), record_ttl, encoded.message


def _names_of_plan(keys: Keys, run: Run, job: str) -> list[str]:
    """Return the list of plan jobs, and the record of this one."""
    return [keys.lists(bulk_queue_name(run.model))[priority_index(PLAN_PRIORITY)], keys.job(job)]
