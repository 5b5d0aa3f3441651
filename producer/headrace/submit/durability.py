"""`durable=True`: wait until neither a restart of Redis nor a failover can lose the jobs of a call.

If replicas are connected, one of them must have the jobs, as it may be the next primary; if Sentinels choose the
primary, there must be a replica. If Redis reports when its append-only file is on disk (WAITAOF, from 7.2), the
jobs must be there too. The guarantee that Redis can confirm is determined before anything is enqueued.

WAIT and WAITAOF confirm the last write of their own connection. But a repeated submit writes nothing, and a
failover may happen before the confirmation. So a script first counts the records of the jobs that Redis has (a
record is written in one step with its message), and writes one of them again; that write is then confirmed.
Source: documentation of WAIT and WAITAOF.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from redis.exceptions import RedisError

from headrace.catalog.published import read_model_names
from headrace.connection.commands import Argument, Command, Operation, Pipeline, Script
from headrace.connection.errors import translate_error
from headrace.connection.lua import CHECKED_FUNCTION
from headrace.connection.server_info import ServerInfo, read_directives
from headrace.connection.url import describe_server, parse_address
from headrace.errors import NotDurable
from headrace.settings import Settings
from headrace.wire.keys import Keys

#: Records in one call of the script.
_RECORDS_PER_CALL = 1000

#: The fraction of the command timeout that Redis may wait: its reply has to arrive within the timeout too.
_WAIT_FRACTION = 0.8

# The cost is linear in the number of records and their bytes.
_COUNT_RECORDS = Script(
    "count_records",
    CHECKED_FUNCTION
    + """
local count, last_key, last_record = 0, nil, nil
for _, key in ipairs(KEYS) do
  local record = checked('GET', key)
  if record then count, last_key, last_record = count + 1, key, record end
end
if last_key then redis.call('SET', last_key, last_record, 'KEEPTTL') end
return count
""",
)


def _count_records_command(records: Sequence[str]) -> Command:
    """Return the command that counts the keys of records that exist, and writes one of them again."""
    return _COUNT_RECORDS(records)


class DurabilityGuarantee(msgspec.Struct, frozen=True):
    """The confirmations to wait for. Neither: a write is on disk when Redis replies to it."""

    #: A replica has the jobs.
    replica: bool
    #: The append-only file of the primary is on disk.
    disk: bool


def available_guarantee(settings: Settings, keys: Keys) -> Operation[DurabilityGuarantee]:
    """Return the guarantee that this Redis can confirm. Raises NotDurable, with nothing accepted, for none."""
    # There is nothing to wait for yet: both reply at once, or with an error if unknown or not permitted.
    questions = Pipeline((("INFO",), ("WAIT", 0, 1), ("WAITAOF", 0, 0, 1)))
    info, wait, waitaof = yield questions
    if not isinstance(info, RedisError) and not ServerInfo(info=info).is_primary:
        # The questions name no key, so a node of a cluster answers them after a failover too. To a command with a
        # key it replies MOVED, and the client connects to the primary.
        yield read_model_names(keys)
        info, wait, waitaof = yield questions
    if isinstance(info, RedisError):
        raise _no_guarantee(settings, "this user may not run INFO; see its ACL")
    server = ServerInfo(info=info)
    replica = server.replicas > 0
    if replica and isinstance(wait, RedisError):
        raise _no_guarantee(settings, "replicas are connected, and this user may not WAIT for one; see its ACL")
    address = parse_address(settings.redis_url)
    if not replica and (address.sentinels or address.nodes):
        # Its disk does not help: another server may become the primary, and this one may itself have come back.
        chooser = "Sentinels choose" if address.sentinels else "the cluster chooses"
        raise _no_guarantee(settings, f"{chooser} the primary, and this one has no replica now; wait for one")
    disk = server.has_append_only_file and not isinstance(waitaof, RedisError)
    if replica or disk:
        return DurabilityGuarantee(replica, disk)
    if not server.has_append_only_file:
        raise _no_guarantee(settings, "it has no append-only file and no replica; CONFIG SET appendonly yes")
    directives = yield from read_directives("appendfsync", "no-appendfsync-on-rewrite")
    if directives.get("appendfsync") == "always" and directives.get("no-appendfsync-on-rewrite") == "no":
        return DurabilityGuarantee(replica=False, disk=False)
    if not directives:
        raise _no_guarantee(
            settings, f"{server.name} has no WAITAOF for this user, who may not read appendfsync either"
        )
    raise _no_guarantee(
        settings,
        f"{server.name} does not report when its append-only file is on disk, as WAITAOF of Redis 7.2 does; "
        "upgrade it, add a replica, or CONFIG SET appendfsync always",
    )


def confirm(
    jobs: Sequence[str], guarantee: DurabilityGuarantee, keys: Keys, settings: Settings
) -> Operation[None]:
    """Wait until these accepted jobs are safe. Raises NotDurable if Redis does not confirm that in time."""
    records = [keys.job(job) for job in jobs]
    milliseconds = int(1000 * _WAIT_FRACTION * settings.command_timeout)
    counts = [
        _count_records_command(records[start : start + _RECORDS_PER_CALL])
        for start in range(0, len(records), _RECORDS_PER_CALL)
    ]
    waits: list[tuple[Argument, ...]] = []
    if guarantee.replica:
        waits.append(("WAIT", 1, milliseconds))
    if guarantee.disk:
        waits.append(("WAITAOF", 1, 0, milliseconds))
    try:
        replies = yield Pipeline((*counts, *waits), blocks=True)
        refusal = next((reply for reply in replies if isinstance(reply, RedisError)), None)
        if refusal is not None:
            raise refusal
    except RedisError as error:
        raise _unconfirmed(jobs, str(translate_error(error, settings))) from error
    server = f"Redis at {describe_server(settings)}"
    lost = len(jobs) - sum(replies[: len(counts)])
    if lost:
        raise _unconfirmed(jobs, f"{server} lost {lost} of them (it restarted or failed over)")
    confirmations = replies[len(counts) :]
    if guarantee.replica and confirmations.pop(0) < 1:
        raise _unconfirmed(jobs, f"no replica of {server} had them within {milliseconds} ms")
    if guarantee.disk and confirmations.pop(0)[0] < 1:
        raise _unconfirmed(jobs, f"the append-only file of {server} was not on disk within {milliseconds} ms")


def _no_guarantee(settings: Settings, reason: str) -> NotDurable:
    return NotDurable(
        f"Redis at {describe_server(settings)} cannot confirm that a job is safe: {reason}. "
        "Nothing was enqueued; `headrace doctor` says more"
    )


def _unconfirmed(jobs: Sequence[str], reason: str) -> NotDurable:
    subject = f"job {jobs[0]} is" if len(jobs) == 1 else f"{len(jobs):,} jobs are"
    return NotDurable(
        f"{subject} accepted, but not confirmed to be safe: {reason}. Submit again under the same id to be sure: "
        "it stays one job",
        accepted=tuple(jobs),
    )
