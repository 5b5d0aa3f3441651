"""Forget outcomes that their reader has: delete them, with the records of their jobs, before they expire.

Only successes are forgotten. A failure stays beside its dead letter, so that it can be explained and replayed.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.connection.commands import Operation, Script
from headrace.results.publish import STATUS_FUNCTION
from headrace.wire.keys import Keys

#: Jobs in one call of the script, which takes about a microsecond for each.
JOBS_PER_CALL = 250

#: KEYS: the result key and the record of each job. Returns the number of the forgotten jobs. The cost is linear in
#: the number of jobs.
_FORGET = Script(
    "forget_outcomes",
    STATUS_FUNCTION
    + """
local forgotten = 0
for i = 1, #KEYS, 2 do
  if status_of(KEYS[i]) == 'SUCCESS' then
    redis.call('DEL', KEYS[i])
    redis.call('EXPIRE', KEYS[i + 1], 0)
    forgotten = forgotten + 1
  end
end
return forgotten
""",
    flag="allow-oom",
)


def forget_outcomes(keys: Keys, jobs: Sequence[str]) -> Operation[int]:
    """Forget those of the jobs that succeeded, and return their number. Their ids are free again."""
    forgotten = 0
    for start in range(0, len(jobs), JOBS_PER_CALL):
        names = [name for job in jobs[start : start + JOBS_PER_CALL] for name in (keys.result(job), keys.job(job))]
        forgotten += yield _FORGET(names)
    return forgotten
