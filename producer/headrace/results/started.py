"""Celery's state STARTED in the result keys of jobs that run, for `status` and for any Celery client.

A worker marks only jobs whose claim has run for a moment, so that quick jobs cost nothing. A mark is no outcome:
the outcome replaces it. It expires unless it is renewed, as a worker may be lost.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from headrace.connection.commands import Command, Script
from headrace.results.publish import STATUS_FUNCTION
from headrace.wire.keys import Keys

#: Seconds for which a mark lasts unless it is renewed.
MARK_SECONDS = 30

#: KEYS: result keys. ARGV: seconds, and the mark of each. A result key that has a final state stays as it is. The
#: cost is linear in the number of keys.
_MARK = Script(
    "mark_started",
    STATUS_FUNCTION
    + """
local seconds = ARGV[1]
for i, key in ipairs(KEYS) do
  local mark = ARGV[1 + i]
  if not redis.call('SET', key, mark, 'NX', 'EX', seconds) and status_of(key) == 'STARTED' then
    redis.call('SET', key, mark, 'EX', seconds)
  end
end
return 1
""",
)

#: KEYS: result keys. ARGV: the mark of each. Deletes those that still stand. The cost is linear in the number of
#: keys.
_UNMARK = Script(
    "unmark_started",
    """
for i, key in ipairs(KEYS) do
  if redis.pcall('GETRANGE', key, 0, #ARGV[i]) == ARGV[i] then redis.call('DEL', key) end
end
return 1
""",
    flag="allow-oom",
)


def encode_mark(job: str, worker: str, claim: str) -> bytes:
    """Return the mark of a job, in Celery's form; `claim` is the name of the lease under which it runs."""
    return msgspec.json.encode(
        {
            "status": "STARTED",
            "result": {"hostname": worker, "claim": claim},
            "traceback": None,
            "children": [],
            "date_done": None,
            "task_id": job,
        }
    )


def mark_command(keys: Keys, marks: Mapping[str, bytes]) -> Command:
    """Return the command that marks jobs, by id, those excepted that have an outcome."""
    return _MARK([keys.result(job) for job in marks], [MARK_SECONDS, *marks.values()])


def unmark_command(keys: Keys, marks: Mapping[str, bytes]) -> Command:
    """Return the command that removes the marks of jobs, by id, where they still stand."""
    return _UNMARK([keys.result(job) for job in marks], list(marks.values()))
