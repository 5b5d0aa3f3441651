"""The rate of a caller of the HTTP gateway, counted in Redis for all gateways together.

It is the generic cell rate algorithm (GCRA): one moment a caller, to which its accepted jobs reach. A job moves it
by window / quota. While it is less than a window ahead, jobs are granted; so a whole quota may come at once, and
then one job each time that window / quota has passed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.catalog.callers import Rate
from headrace.connection.commands import Command, Script
from headrace.connection.lua import CHECKED_FUNCTION
from headrace.wire.keys import Keys

#: KEYS: the rate of a caller: a moment as whole microseconds of unix time and their fraction, apart as a double
#: holds both only so. ARGV: quota, window (microseconds), jobs. Returns the jobs granted, those left after them,
#: and the microseconds until the next one and until all are free.
_TAKE = Script(
    "take_rate",
    CHECKED_FUNCTION
    + """
local quota, window, jobs = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local whole, fraction = string.match(checked('GETRANGE', KEYS[1], 0, 40), '^(%d+) (%d%.%d+)$')
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local ahead = math.max(0, whole and tonumber(whole) - now + tonumber(fraction) or 0)
-- A former rate may have been slower, and a clock may be set back: nobody waits longer than a window of this one.
local is_too_far = ahead > window
if is_too_far then ahead = window end
local interval = window / quota
local granted = math.min(jobs, math.floor((window - ahead) / interval + 0.000001))
if granted > 0 or is_too_far then
  ahead = ahead + granted * interval
  local moment = string.format('%.0f %.6f', now + math.floor(ahead), ahead - math.floor(ahead))
  redis.call('SET', KEYS[1], moment, 'PX', math.ceil(ahead / 1000) + 1)
end
local left = math.floor((window - ahead) / interval + 0.000001)
return {granted, left, left > 0 and 0 or math.ceil(ahead + interval - window), math.ceil(ahead)}
""",
)


class Grant(msgspec.Struct, frozen=True):
    """The jobs that a caller was granted."""

    #: Jobs that may be submitted now, of those asked for.
    jobs: int
    #: Jobs that would be granted at once after these.
    left: int
    #: Seconds until the next job is granted; 0 if one is.
    retry_after: float
    #: Seconds until the whole quota is free.
    reset: float


def take_command(keys: Keys, caller: str, rate: Rate, jobs: int) -> Command:
    """Return the command that grants up to `jobs` jobs of a caller; `decode_grant` decodes its reply."""
    return _TAKE([keys.rate(caller)], [rate.quota, rate.window * 1_000_000, jobs])


def decode_grant(reply: Any) -> Grant:
    """Decode the reply to `take_command`."""
    jobs, left, retry_us, reset_us = (int(number) for number in reply)
    return Grant(jobs, left, retry_us / 1e6, reset_us / 1e6)
