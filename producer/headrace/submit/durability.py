"""`durable=True`: wait until neither a restart of Redis nor a failover can lose the jobs of a call.

Where replicas are connected, one of them must have the jobs, as it may be the next primary; where Sentinels choose
the primary, there must be one. Where Redis tells when its append-only file is on disk (WAITAOF, from 7.2), it must
be. What Redis can confirm is found out before anything is enqueued.

WAIT and WAITAOF speak of the last write of their own connection. A repeated submit writes nothing, and a
failover may have come between; so what is waited for is a write of its own, by a script that first sees
whether Redis knows the jobs: a job's record is written in one step with its message.
Source: documentation of WAIT and WAITAOF.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from redis.exceptions import RedisError

from headrace.connection import server_info
from headrace.connection.commands import Operation, Pipeline, Word
from headrace.connection.errors import unavailable
from headrace.connection.server_info import ServerInfo
from headrace.connection.url import describe_server, read_address
from headrace.errors import NotDurable
from headrace.settings import Settings
from headrace.wire.keys import Keys

#: Records one call of the script looks at.
_CHUNK = 1000

#: The part of the time for a command that Redis may wait: its answer has to come in time too.
_PART = 0.8

#: KEYS: records of jobs. Returns how many there are; writes one of them again as it is.
_SEEN = """
local seen, last = 0, nil
for _, key in ipairs(KEYS) do
  local record = redis.call('GET', key)
  if record then
    seen = seen + 1
    last = {key, record}
  end
end
if last then redis.call('SET', last[1], last[2], 'KEEPTTL') end
return seen
"""


class DurabilityGuarantee(msgspec.Struct, frozen=True):
    """What there is to wait for. Neither: a write is on disk when Redis confirms it."""

    #: A replica has it.
    replica: bool
    #: Its own append-only file is on disk.
    disk: bool


def available_guarantee(settings: Settings) -> Operation[DurabilityGuarantee]:
    """What this Redis can confirm. Raises NotDurable, with nothing accepted, where that is nothing."""
    # With nothing to wait for, these answer at once, or tell that they are not there, or not for this user.
    info, waits, tells_disk = yield Pipeline((("INFO",), ("WAIT", 0, 1), ("WAITAOF", 0, 0, 1)))
    if isinstance(info, RedisError):
        raise _cannot(settings, "this user may not ask INFO; see its ACL")
    facts = ServerInfo(info=info)
    replica = facts.replicas > 0
    if replica and isinstance(waits, RedisError):
        raise _cannot(settings, "replicas are connected, and this user may not WAIT for one; see its ACL")
    if not replica and read_address(settings.redis_url).sentinels:
        # Its own disk is no help: another may be the primary in a moment. It may itself be one that came back.
        raise _cannot(settings, "Sentinels choose the primary, and this one has no replica now; wait for one")
    disk = facts.keeps_file and not isinstance(tells_disk, RedisError)
    if replica or disk:
        return DurabilityGuarantee(replica, disk)
    if not facts.keeps_file:
        raise _cannot(settings, "it has no append-only file and no replica; CONFIG SET appendonly yes")
    told = yield from server_info.directives("appendfsync", "no-appendfsync-on-rewrite")
    if told.get("appendfsync") == "always" and told.get("no-appendfsync-on-rewrite") == "no":
        return DurabilityGuarantee(replica=False, disk=False)
    if not told:
        raise _cannot(settings, f"{facts.name} has no WAITAOF for this user, who may not read appendfsync either")
    raise _cannot(
        settings,
        f"{facts.name} does not tell when its append-only file is on disk, which WAITAOF of Redis 7.2 does; "
        "upgrade it, add a replica, or CONFIG SET appendfsync always",
    )


def confirm(jobs: Sequence[str], safety: DurabilityGuarantee, keys: Keys, settings: Settings) -> Operation[None]:
    """Wait until these jobs, all accepted, are safe. Raises NotDurable where that is not known in time."""
    records = [keys.job(job) for job in jobs]
    chunks = [records[at : at + _CHUNK] for at in range(0, len(records), _CHUNK)]
    milliseconds = int(1000 * _PART * settings.command_timeout)
    looks: list[tuple[Word, ...]] = [("EVAL", _SEEN, len(chunk), *chunk) for chunk in chunks]
    waits: list[tuple[Word, ...]] = []
    if safety.replica:
        waits.append(("WAIT", 1, milliseconds))
    if safety.disk:
        waits.append(("WAITAOF", 1, 0, milliseconds))
    try:
        replies = yield Pipeline((*looks, *waits))
        refused = next((reply for reply in replies if isinstance(reply, RedisError)), None)
        if refused is not None:
            raise refused
    except RedisError as error:
        raise _unconfirmed(jobs, str(unavailable(error, settings))) from error
    lost = len(jobs) - sum(replies[: len(looks)])
    if lost:
        raise _unconfirmed(
            jobs, f"Redis at {describe_server(settings)} lost {lost} of them (it restarted or failed over)"
        )
    waited = replies[len(looks) :]
    if safety.replica and waited.pop(0) < 1:
        raise _unconfirmed(jobs, f"no replica of {describe_server(settings)} had them within {milliseconds} ms")
    if safety.disk and waited.pop(0)[0] < 1:
        raise _unconfirmed(jobs, f"the disk of {describe_server(settings)} had not within {milliseconds} ms")


def _cannot(settings: Settings, why: str) -> NotDurable:
    return NotDurable(
        f"Redis at {describe_server(settings)} cannot confirm that a job is safe: {why}. "
        "Nothing was enqueued; `headrace doctor` says more"
    )


def _unconfirmed(jobs: Sequence[str], why: str) -> NotDurable:
    named = f"job {jobs[0]} is" if len(jobs) == 1 else f"{len(jobs):,} jobs are"
    return NotDurable(
        f"{named} accepted, but not confirmed to be safe: {why}. Submit again under the same id to be sure: "
        "it stays one job",
        accepted=tuple(jobs),
    )
