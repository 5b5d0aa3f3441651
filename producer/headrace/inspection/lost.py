"""Finds jobs that are lost: they have a record and no outcome, and are in no list, delayed set or lease.

No script of Headrace loses a job. But a person may delete a list, and `celery purge` does. The record then keeps
the id of the job for days. A job is lost if it

    has a record, no outcome, and is not new ─> is in no place ─> has the same record and no outcome still

A queue of a few thousand messages is read by one script, at one moment. A longer one is read in pieces, and jobs
move meanwhile: from the delayed set to the lists, from there to a lease, and from a lease back. So the leases are
read before the others and after them, each list from the end where jobs are pushed, and all of it several times.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import msgspec
from redis.exceptions import ResponseError

from headrace.clock import utc_now
from headrace.connection.commands import Command, Operation, Pipeline, Script
from headrace.errors import StoredDataError
from headrace.inspection.locate import is_not_permitted
from headrace.wire.keys import Keys
from headrace.wire.message import submission_time
from headrace.wire.names import is_model_name
from headrace.wire.record import decode_record

#: Milliseconds after its submission from which on a job may be lost.
_MIN_AGE_MS = 5000
#: Messages and bytes of a queue that is read by one script, so that it holds Redis for a few milliseconds.
_MAX_SNAPSHOT, _MAX_SNAPSHOT_BYTES = 2000, 4 * 1024 * 1024
#: Messages that one call reads of a longer queue; most messages of all places together, as nobody can say in
#: reasonable time what is not in a longer queue; and the times that it is read.
_CHUNK, _MAX_MESSAGES, _PASSES = 500, 200_000, 3
#: Ids whose records are read together.
_IDS_PER_CALL = 250
#: Most records of a sample; the pages of keys that are searched for them.
_MAX_SAMPLE, _SAMPLE_PAGES, _SAMPLE_PAGE_KEYS = 2000, 50, 1000
#: kombu's hash of the messages that a plain Celery worker runs.
_UNACKED = "unacked"

#: A Lua function: the id of the job in a message, nil for none. Headrace's client writes the id in plain JSON.
_ID_FUNCTION = """
local function id_of(message)
  local _, before = string.find(message, '"id":"', 1, true)
  if not before then _, before = string.find(message, '"id": "', 1, true) end
  local behind = before and string.find(message, '"', before + 1, true)
  return behind and behind - before <= 129 and string.sub(message, before + 1, behind - 1) or nil
end
"""

#: KEYS: leases, delayed jobs, lists of a queue. ARGV: name of the queue, start of the key of a lease, most
#: messages, most bytes, ids. The lists of leases are keys too, which the script finds in `leases`. Returns the ids
#: that are in no place, or 0 if there are too many messages or bytes. The cost is linear in these and the leases.
_FIND_ABSENT = Script(
    "find_absent_jobs",
    _ID_FUNCTION
    + """
local queue, lease_key, max_messages, max_bytes = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local present, messages, bytes = {}, 0, 0

-- Few messages at a time: one may have megabytes. Returns an error, nil without.
local function read(key, command)
  local skip = 0
  while messages <= max_messages and bytes <= max_bytes do
    local page
    if command == 'LRANGE' then page = redis.pcall('LRANGE', key, skip, skip + 9)
    else page = redis.pcall('ZRANGEBYSCORE', key, '-inf', '+inf', 'LIMIT', skip, 10) end
    if page.err then return not string.find(page.err, 'WRONGTYPE', 1, true) and page or nil end
    for _, message in ipairs(page) do
      messages, bytes = messages + 1, bytes + #message
      local id = id_of(message)
      if id then present[id] = true end
    end
    if #page < 10 then return nil end
    skip = skip + 10
  end
end

local refusal = read(KEYS[2], 'ZRANGEBYSCORE')
for i = 3, #KEYS do refusal = refusal or read(KEYS[i], 'LRANGE') end
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local first = string.find(member, '#', 1, true)
  local second = first and string.find(member, '#', first + 1, true)
  if second and string.sub(member, second + 1) == queue then
    refusal = refusal or read(lease_key .. string.sub(member, 1, first - 1), 'LRANGE')
  end
end
if refusal then return refusal end
if messages > max_messages or bytes > max_bytes then return 0 end
local absent = {}
for i = 5, #ARGV do
  if not present[ARGV[i]] then absent[#absent + 1] = ARGV[i] end
end
return absent
""",
    flag="no-writes",
)

#: KEYS: a list or a sorted set. ARGV: `list` or `zset`, messages to skip, messages to read. Returns the id of the
#: job in each message, '' for none. The cost is linear in the bytes of the messages.
_LIST_IDS = Script(
    "list_job_ids",
    _ID_FUNCTION
    + """
local key, kind, skip, count = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local messages
if kind == 'list' then messages = redis.pcall('LRANGE', key, skip, skip + count - 1)
else messages = redis.pcall('ZRANGEBYSCORE', key, '-inf', '+inf', 'LIMIT', skip, count) end
if messages.err then return string.find(messages.err, 'WRONGTYPE', 1, true) and {} or messages end
local ids = {}
for i, message in ipairs(messages) do ids[i] = id_of(message) or '' end
return ids
""",
    flag="no-writes",
)


class Candidate(msgspec.Struct, frozen=True):
    """A job that may be lost."""

    queue: str
    record: bytes


class LostSample(msgspec.Struct, frozen=True):
    """The lost jobs among some of all records."""

    #: The number of records.
    records: int
    #: The ids of the lost jobs.
    lost: tuple[str, ...]


def find_lost(keys: Keys, jobs: Sequence[str], present: set[str] | None = None) -> Operation[dict[str, bytes]]:
    """Find the lost jobs among jobs. Return the record of each, by id.

    None is found in a queue with too many messages. `present` are ids that are known to be in a place; those that
    are met are added. Raises ResponseError where this user may not search the queues.
    """
    present = set() if present is None else present
    candidates = yield from _read_candidates(keys, [job for job in jobs if job not in present])
    if not candidates or (yield Command(("EXISTS", keys.prefix + _UNACKED))):
        return {}  # with kombu's hash, a plain Celery worker runs jobs, and they may be among those
    by_queue: dict[str, list[str]] = defaultdict(list)
    for job, candidate in candidates.items():
        by_queue[candidate.queue].append(job)
    absent: list[str] = []
    for queue, jobs_of_queue in by_queue.items():
        absent += yield from _find_absent(keys, queue, jobs_of_queue, present)
    again = yield from _read_candidates(keys, absent)
    return {job: candidates[job].record for job in absent if again.get(job) == candidates[job]}


def sample_lost(keys: Keys) -> Operation[LostSample | None]:
    """Look at some of the records for lost jobs. None where this user may not search for them."""
    prefix = keys.job("")
    pattern = re.sub(r"([*?\[\]\\])", r"\\\1", prefix) + "*"
    names: set[str] = set()
    cursor: bytes | int = 0
    try:
        for _ in range(_SAMPLE_PAGES):
            cursor, page = yield Command(("SCAN", cursor, "MATCH", pattern, "COUNT", _SAMPLE_PAGE_KEYS))
            names.update(name.decode(errors="replace").removeprefix(prefix) for name in page)
            if not int(cursor) or len(names) >= _MAX_SAMPLE:
                break
        ids = {name: _ids_of_record(name) for name in sorted(names)[:_MAX_SAMPLE]}
        lost = yield from find_lost(keys, [job for jobs in ids.values() for job in jobs])
    except ResponseError as error:
        if not is_not_permitted(error):
            raise
        return None
    return LostSample(len(ids), tuple(jobs[0] for jobs in ids.values() if all(job in lost for job in jobs)))


def _ids_of_record(name: str) -> list[str]:
    """Return the ids that may belong to a record: `Keys.job` leaves out the dashes of a UUID."""
    if re.fullmatch(r"[0-9a-f]{32}", name):
        return [f"{name[:8]}-{name[8:12]}-{name[12:16]}-{name[16:20]}-{name[20:]}", name]
    return [name]


def find_lost_if_permitted(keys: Keys, jobs: Sequence[str], present: set[str]) -> Operation[dict[str, bytes]]:
    """Find lost jobs as `find_lost`; none where this user may not search the queues."""
    try:
        return (yield from find_lost(keys, jobs, present))
    except ResponseError as error:
        if not is_not_permitted(error):
            raise
        return {}


def _read_candidates(keys: Keys, jobs: Sequence[str]) -> Operation[dict[str, Candidate]]:
    """Return the jobs that have a record, no outcome, and are not new."""
    candidates: dict[str, Candidate] = {}
    for first in range(0, len(jobs), _IDS_PER_CALL):
        chunk = jobs[first : first + _IDS_PER_CALL]
        commands = [command for job in chunk for command in (("GET", keys.job(job)), ("GET", keys.result(job)))]
        replies, now_ms = (yield Pipeline(tuple(commands))), int(utc_now().timestamp() * 1000)
        for job, record, stored in zip(chunk, replies[::2], replies[1::2], strict=True):
            if isinstance(record, bytes) and stored is None:
                candidate = _make_candidate(job, record, now_ms)
                candidates |= {job: candidate} if candidate is not None else {}
    return candidates


def _make_candidate(job: str, record: bytes, now_ms: int) -> Candidate | None:
    """Return the candidate with this record; None for a job that is new, or whose record cannot be read."""
    try:
        decoded = decode_record(job, record)
    except StoredDataError:
        return None
    submitted_ms, moment = decoded.submitted_ms, submission_time(job)
    if submitted_ms is None and moment is not None:
        submitted_ms = int(moment.timestamp() * 1000)
    is_new = submitted_ms is not None and now_ms - submitted_ms < _MIN_AGE_MS
    return None if is_new or not is_model_name(decoded.model) else Candidate(decoded.queue, record)


def _find_absent(keys: Keys, queue: str, jobs: list[str], present: set[str]) -> Operation[list[str]]:
    """Return the jobs of a queue that are in no place. Ids that are met in a long queue are added to `present`."""
    lists = (*keys.sources(queue), *(name for name, _ in keys.foreign_lists(queue)))
    limits = (_MAX_SNAPSHOT, _MAX_SNAPSHOT_BYTES)
    absent: list[str] = []
    for first in range(0, len(jobs), _IDS_PER_CALL):
        chunk = jobs[first : first + _IDS_PER_CALL]
        reply = yield _FIND_ABSENT(
            [keys.leases, keys.delayed(queue), *lists], [queue, keys.lease(""), *limits, *chunk]
        )
        if isinstance(reply, int):
            return (yield from _find_absent_in_pieces(keys, queue, lists, jobs, present))
        absent += [job.decode() for job in reply]
    return absent


def _find_absent_in_pieces(
    keys: Keys, queue: str, lists: Sequence[str], jobs: Sequence[str], present: set[str]
) -> Operation[list[str]]:
    for _ in range(_PASSES):
        if not (yield from _read_present(keys, queue, lists, present)):
            return []
        jobs = [job for job in jobs if job not in present]
        if not jobs:
            break
    return list(jobs)


def _read_present(keys: Keys, queue: str, lists: Sequence[str], present: set[str]) -> Operation[bool]:
    """Add the ids of all jobs of a queue that are in a place. Return False if there are too many to read all."""
    room = _MAX_MESSAGES
    for kind, names in (
        ("list", (yield from _lease_keys(keys, queue))),
        ("zset", [keys.delayed(queue)]),
        ("list", lists),
        ("list", None),
    ):
        for key in (yield from _lease_keys(keys, queue)) if names is None else names:
            skip, ids = 0, list[bytes]()
            while not skip or len(ids) == _CHUNK:
                if skip > room:
                    return False
                ids = yield _LIST_IDS([key], [kind, skip, _CHUNK])
                present.update(job.decode(errors="replace") for job in ids)
                skip += _CHUNK
            room -= skip - _CHUNK + len(ids)
    return True


def _lease_keys(keys: Keys, queue: str) -> Operation[list[str]]:
    """Return the lists of the jobs of a queue that are under a lease."""
    names = []
    for member in (yield Command(("ZRANGE", keys.leases, 0, -1))):
        name, _, queue_of_lease = [*member.decode(errors="replace").split("#", 2), "", ""][:3]
        if queue_of_lease == queue:
            names.append(keys.lease(name))
    return names
