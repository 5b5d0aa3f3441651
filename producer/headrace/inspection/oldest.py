"""The age of the oldest waiting job of each model, for readers who may not read messages.

A worker reads the message that is claimed next from each list of a queue, once a second, and reports the ids in a
hash. An id made by Headrace contains the time of its submission. A report outlives the workers: the age of a job
that nobody claims goes on growing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.connection.commands import Argument, Command, Operation, Pipeline, Script
from headrace.connection.lua import CHECKED_FUNCTION
from headrace.connection.server_time import READ_SERVER_TIME, decode_server_time
from headrace.wire.keys import Keys
from headrace.wire.message import submission_time
from headrace.wire.queues import queue_name

#: Milliseconds for which a report of any worker is current, so that many workers cost no more than one.
_CURRENT_MS = 900
#: Most characters of an id that are reported.
_ID_CHARS = 128

#: KEYS: the hash of reports, the lists of each model. ARGV: milliseconds for which a report is current, characters
#: of an id, models. A report is the server's unix milliseconds and the ids, with commas between.
_REPORT = Script(
    "report_oldest_jobs",
    CHECKED_FUNCTION
    + """
local oldest, current_ms, id_chars = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local models = #ARGV - 2
local lists = (#KEYS - 1) / models
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('PERSIST', oldest)  -- a full Redis lets a script go on after a write that needs no memory
for model = 1, models do
  local name = ARGV[2 + model]
  local reported = tonumber(string.match(checked('HGET', oldest, name) or '', '^%d+'))
  if not reported or now - reported >= current_ms then
    local report = {string.format('%.0f', now)}
    for list = 1, lists do
      local message = redis.pcall('LINDEX', KEYS[1 + (model - 1) * lists + list], -1)
      local id = type(message) == 'string' and string.match(message, '"correlation_id":%s?"([^",]*)"')
      if id then report[#report + 1] = string.sub(id, 1, id_chars) end
    end
    redis.call('HSET', oldest, name, table.concat(report, ','))
  end
end
""",
    flag="allow-oom",
)


def report_command(keys: Keys, models: Sequence[str]) -> Command:
    """Return the command that reports the oldest waiting jobs of models. It has no reply."""
    arguments: list[Argument] = [_CURRENT_MS, _ID_CHARS, *models]
    return _REPORT([keys.oldest, *(key for model in models for key in keys.sources(queue_name(model)))], arguments)


def find_waiting(keys: Keys, models: Sequence[str]) -> Operation[list[str]]:
    """Return the models of which jobs wait. It costs one command where none do."""
    lists = {model: keys.sources(queue_name(model)) for model in models}
    if not lists or not (yield Command(("EXISTS", *itertools.chain.from_iterable(lists.values())))):
        return []
    replies = yield Pipeline(tuple(("EXISTS", *names) for names in lists.values()))
    return [model for model, reply in zip(lists, replies, strict=True) if reply]


def report_none_waiting(keys: Keys, models: Sequence[str]) -> Operation[None]:
    """Report that no job of these models waits now."""
    now = b"%d" % decode_server_time((yield READ_SERVER_TIME))
    reports: list[Argument] = [argument for model in models for argument in (model, now)]
    yield Command(("HSET", keys.oldest, *reports))


def read_reports(keys: Keys) -> Command:
    """Return the command that reads all reports; `decode_reports` reads its reply."""
    return Command(("HGETALL", keys.oldest))


def decode_reports(reply: Any, waiting: Mapping[str, int], now_seconds: float) -> dict[str, float]:
    """Return for each model the seconds that its oldest waiting job has waited; 0.0 where no job waits.

    `waiting` is the number of waiting jobs by model. A job that came after the last report has waited since then
    at most. A model is left out where jobs wait and no worker has reported, or no id contains a time.
    """
    pairs = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)
    reports = {name.decode(errors="replace"): report.decode(errors="replace") for name, report in pairs}
    waits = {model: 0.0 for model, jobs in waiting.items() if not jobs}
    for model in waiting.keys() - waits.keys():
        moment, *ids = reports.get(model, "").split(",")
        if not moment.isdecimal():
            continue
        submitted = [submission_time(job) for job in ids]
        moments = [time.timestamp() for time in submitted if time is not None] if ids else [int(moment) / 1000]
        if moments:
            waits[model] = max(0.0, now_seconds - min(moments))
    return waits
