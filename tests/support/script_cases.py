"""A case for each Lua script: the keys it needs, a call that changes something, and the kind of each key.

A case stores a valid state and returns the command to run on it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import msgspec
import redis

import headrace
import headrace_worker
from headrace.bulk import make_run
from headrace.bulk import scripts as run_scripts
from headrace.catalog import aliases, callers, published, rate, workers
from headrace.catalog.aliases import Alias
from headrace.catalog.callers import Rate
from headrace.connection.commands import Command, execute
from headrace.dead_letters import scripts as letters
from headrace.dead_letters.replay import prepare_replay
from headrace.inspection import job, locate, lost, oldest, queues, unread_lists
from headrace.results import cancellation, forget, publish, purge, started
from headrace.results.letter_scripts import DeadLetterLimits, store_command, trim_command
from headrace.results.purge import QueuePurge
from headrace.submit import durability
from headrace.submit.enqueue import Enqueuer, forget_command
from headrace.wire.bulk import Receipt
from headrace.wire.dead_letter import attach_message
from headrace.wire.job_encoder import JobEncoder
from headrace.wire.keys import Keys
from headrace.wire.message import Job, encode_instances
from headrace.wire.outcome import Cancelled
from headrace_worker.bulk import run_state
from headrace_worker.execution.follow_ups import FollowUps
from headrace_worker.rollout import version_stats
from headrace_worker.rollout.version_stats import VersionStats
from headrace_worker.transport import claim_script, follow_up_scripts, lease_scripts, token_script
from headrace_worker.transport.claims import ClaimLimits, Lease
from headrace_worker.transport.publish_script import StoredFollowUps, publish_command
from headrace_worker.transport.run_script import NewJob, RunUpdate, publish_run_command
from tests.support.answering_worker import CHURN
from tests.support.lease_operations import LEASE_MS, NOW, QUEUE, failure, malformed, success
from tests.support.stored_dead_letters import make_letter, make_message, store_letter
from tests.support.stored_entries import CASES as ENTRY_CASES
from tests.support.stored_notices import CASES as NOTICE_CASES
from tests.support.stored_notices import open_job

KEYS = Keys()
#: The type of a key; `any` for a key that is only deleted, expired or overwritten: another type does no harm.
Kind = Literal["string", "list", "hash", "set", "zset", "any"]

_LETTERS: tuple[Kind, ...] = ("hash", "hash", "zset", "string")
_NOTICES: tuple[Kind, ...] = ("zset", "hash", "zset", "zset", "zset")
LIMITS = DeadLetterLimits(max_count=1, max_age_seconds=1000)


class Case(NamedTuple):
    """A call of one script. `kinds` are those of its KEYS, in order."""

    prepare: Callable[[redis.Redis], Command]
    kinds: tuple[Kind, ...]


def script_names() -> set[str]:
    """Return the names of all scripts in the source of both distributions."""
    return set(_iter_script_names())


def _iter_script_names() -> Iterator[str]:
    for package in (headrace, headrace_worker):
        for path in Path(str(package.__file__)).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Script":
                    assert isinstance(node.args[0], ast.Constant), f"the name of a script in {path} is no literal"
                    yield str(node.args[0].value)


def name_of(command: Command) -> str:
    """Return the name of the script that a command runs."""
    assert command.script is not None
    return command.script.function.removeprefix("headrace_").rpartition("_")[0]


def keys_of(command: Command) -> tuple[str, ...]:
    """Return the KEYS of a command that runs a script."""
    count = command.args[2]
    assert isinstance(count, int)
    return tuple(str(key) for key in command.args[3 : 3 + count])


def enqueue(
    names: list[str],
    message: bytes = b"m",
    limit: int = 100,
    priority: int = 0,
    *,
    notify: str | None = None,
    listen: str | None = None,
) -> Command:
    """Return the command that enqueues jobs with these ids. `limit` is that of the queue and of listeners."""
    job = Job(id="", model="churn", instances=[None], priority=priority, notify=notify, listen=listen)
    encoder = JobEncoder(job, None)
    instances = encode_instances([{"age": 41}])
    jobs = [msgspec.structs.replace(encoder.encode(name, instances), message=message) for name in names]
    enqueuer = Enqueuer(KEYS, encoder, queue_limit=limit, listen_limit=limit, record_ttl=60)
    return enqueuer.command(jobs, None)


def _prepare_enqueue(db: redis.Redis) -> Command:
    execute(db, enqueue(["old"]))
    db.lpush(KEYS.lists(QUEUE)[3], "x")
    for source in (*KEYS.sources(QUEUE)[:1], *KEYS.sources(QUEUE)[5:]):
        db.lpush(source, "x")
    db.zadd(KEYS.delayed(QUEUE), {"x": 1})
    db.zadd(KEYS.notices_open, {"x": 1})
    db.zadd(KEYS.listen_open, {"x": 1})
    db.zadd(KEYS.listen_due, {"orders:0000000000001:0:churn:x": 0})
    return enqueue(["new-1", "old", "new-2"], notify="orders", listen="orders")


def _prepare_publish_outcomes(db: redis.Redis) -> Command:
    open_job(db, "a")
    return publish.publish_command(KEYS, [Cancelled(job="a"), Cancelled(job="b")], ttl=60, now=NOW)


def _prepare_mark(db: redis.Redis) -> Command:
    return started.mark_command(KEYS, {job: started.encode_mark(job, "w@here", "lease") for job in "ab"})


def _prepare_unmark(db: redis.Redis) -> Command:
    execute(db, _prepare_mark(db))
    return started.unmark_command(KEYS, {job: started.encode_mark(job, "w@here", "lease") for job in "ab"})


def _prepare_forget(db: redis.Redis) -> Command:
    db.set(KEYS.job("a"), b"record")
    return forget_command(KEYS, "a", b"record")


def forget_outcomes(*jobs: str) -> Command:
    """Return the command that forgets the outcomes of these jobs."""
    return forget._FORGET([name for job_id in jobs for name in (KEYS.result(job_id), KEYS.job(job_id))])


def _prepare_forget_outcomes(db: redis.Redis) -> Command:
    db.mset({KEYS.result(job): b'{"status":"SUCCESS"}' for job in "ab"})
    db.mset({KEYS.job(job): b"record" for job in "ab"})
    return forget_outcomes(*"ab")


def _prepare_find_absent(db: redis.Redis) -> Command:
    hold(db, b'{"id":"a"}')
    return find_absent("b")


def find_absent(*jobs: str, max_messages: int = 10**6, max_bytes: int = 10**9) -> Command:
    """Return the command that finds those of the jobs that are in no place of the queue."""
    lists = (*KEYS.sources(QUEUE), *(name for name, _ in KEYS.foreign_lists(QUEUE)))
    arguments = [QUEUE, KEYS.lease(""), max_messages, max_bytes, *jobs]
    return lost._FIND_ABSENT([KEYS.leases, KEYS.delayed(QUEUE), *lists], arguments)


def purge_jobs(*messages: bytes) -> Command:
    """Return the command that purges messages, the first of which is at the right end of the queue."""
    step = QueuePurge(KEYS, QUEUE, ttl=60)
    entries = [purge._make_entry("list", message, with_history=False) for message in messages]
    return step._command("list", QUEUE, entries, NOW)


def _prepare_purge_jobs(db: redis.Redis) -> Command:
    open_job(db, "a")
    messages = [make_message(name) for name in "ab"]
    db.lpush(QUEUE, *messages)
    return purge_jobs(*messages)


def _prepare_cancel(db: redis.Redis) -> Command:
    open_job(db, "a")
    db.zadd(KEYS.cancel_requests, {"b": 1})
    return cast("Command", next(cancellation.cancel(KEYS, "a", ttl=60, now=NOW)))


def hold(db: redis.Redis, *messages: bytes, name: str = "me/1", expires_ms: int = 10**15) -> Lease:
    """Store a lease with these messages, from the list of priority 0."""
    lease = Lease(name=name, queue=QUEUE, origins=((1, len(messages)),))
    db.zadd(KEYS.leases, {lease.member: expires_ms})
    db.rpush(KEYS.lease(name), *messages)
    return lease


def _prepare_publish_claim(db: redis.Redis) -> Command:
    lease = hold(db, b"a", b"b", b"c")
    outcome, letter = failure("a")
    store_letter(db, make_letter("older"))
    db.set(KEYS.dead_dropped, 1)
    db.set(KEYS.job("a"), "record")
    open_job(db, "b")
    return publish_command(
        KEYS,
        lease,
        {"a": outcome, "b": success("b")},
        ttl=60,
        clients={"a": "1" * 32, "b": "2" * 32},
        dead_letters=[letter, malformed(b"\xff")],
        delayed=[(1000, b"c")],
        record_seconds={"c": 100},
        follow_ups=[StoredFollowUps(job="a", encoded=b"follow-ups")],
        hold_ms=1000,
        limits=LIMITS,
    )


def _prepare_store(db: redis.Redis) -> Command:
    db.set(KEYS.dead_dropped, 1)
    store_letter(db, make_letter("a"))
    letter, message = malformed(b"\xff")
    return store_command(KEYS, letter, message)


def _prepare_trim(db: redis.Redis) -> Command:
    db.set(KEYS.dead_dropped, 1)
    for name in "abc":
        store_letter(db, make_letter(name))
    return trim_command(KEYS, [QUEUE], limits=LIMITS, limit=100)


def _store_and_replay(db: redis.Redis) -> Command:
    replays = []
    for number, name in enumerate(("a", "b")):
        letter = make_letter(name)
        store_letter(db, letter, died_ms=1000)
        stored = msgspec.structs.replace(letter, died_ms=1000)
        message = make_message(name, priority=9 * number)
        replay = prepare_replay(attach_message(stored, message), replayed_by="me", now_ms=2000, version=None)
        replays.append(replay)
    return letters.replay_command(KEYS, replays, record_ttl=60)


def _prepare_purge(db: redis.Redis) -> Command:
    stored = []
    for name, queue in (("a", QUEUE), ("b", "predict.other")):
        letter = make_letter(name, queue=queue)
        store_letter(db, letter, died_ms=1000)
        stored.append(msgspec.structs.replace(letter, died_ms=1000))
    return letters.purge_command(KEYS, stored)


def _after_letters(command: Command) -> Callable[[redis.Redis], Command]:
    def prepare(db: redis.Redis) -> Command:
        store_letter(db, make_letter("a"), died_ms=1000)
        return command

    return prepare


def _prepare_move_alias(db: redis.Redis) -> Command:
    former, latter = Alias(version="1"), Alias(version="2")
    execute(db, aliases.move_alias(KEYS, "churn", "production", None, former, by="me", reason=""))
    return aliases.move_alias(KEYS, "churn", "production", former, latter, by="me", reason="")


def _prepare_publish_contract(db: redis.Redis) -> Command:
    published.publish_contract(db, KEYS, CHURN)
    newer = msgspec.structs.replace(CHURN, version="4", model="churn")
    db.sadd(KEYS.models, "other")
    return published._PUBLISH(
        [KEYS.contracts("churn"), KEYS.models], [newer.version, msgspec.json.encode(newer), newer.model]
    )


def _prepare_read_contract(db: redis.Redis) -> Command:
    published.publish_contract(db, KEYS, CHURN)
    return published._READ([KEYS.contracts("churn")], [""])


def _prepare_report(db: redis.Redis) -> Command:
    execute(db, workers.publish_status(KEYS, "churn", "one", ["1"], {"3": "broken"}))
    db.hset(KEYS.loaded("churn"), "gone", '{"at_ms":1}')
    return workers.publish_status(KEYS, "churn", "two", ["2"], {"4": "broken"})


def _prepare_renew_statuses(db: redis.Redis) -> Command:
    _prepare_report(db)
    db.zadd(KEYS.workers, {"one": 2e12, "gone": 1})
    return workers.renew_command(KEYS, ["churn"])


def _prepare_withdraw(db: redis.Redis) -> Command:
    for worker in ("one", "two"):
        execute(db, workers.publish_status(KEYS, "churn", worker, ["1"], {worker: "broken"}))
    return workers.withdraw_status(KEYS, "churn", "one")


def _prepare_records(db: redis.Redis) -> Command:
    db.mset({KEYS.job("a"): "a", KEYS.job("b"): "b"})
    return durability._count_records_command([KEYS.job("a"), KEYS.job("b")])


def _prepare_stats(db: redis.Redis) -> Command:
    stats = VersionStats(succeeded=2, failed=1, largest_difference=0.5, difference_sum=0.5)
    execute(db, version_stats.add_command(KEYS, "churn", "1", stats))
    return version_stats.add_command(KEYS, "churn", "1", msgspec.structs.replace(stats, largest_difference=0.7))


def _after_push(command: Command) -> Callable[[redis.Redis], Command]:
    def prepare(db: redis.Redis) -> Command:
        db.lpush(QUEUE, make_message("a"))
        db.zadd(KEYS.delayed(QUEUE), {make_message("b"): 1})
        return command

    return prepare


def _prepare_read_state(db: redis.Redis) -> Command:
    db.mset({KEYS.job("a"): "a", KEYS.result("a"): "b"})
    return job._READ_STATE([KEYS.result("a"), KEYS.job("a")])


def _prepare_claim(db: redis.Redis) -> Command:
    db.lpush(QUEUE, b"a", b"b")
    limits = [ClaimLimits(queue=QUEUE, jobs=10, bytes=1 << 20)]
    return claim_script.claim_command(KEYS, "me/1", limits, lease_ms=LEASE_MS, lowest_first=False)


def _prepare_requeue(db: redis.Redis) -> Command:
    lease = hold(db, b"a", b"b")
    return lease_scripts.requeue_command(KEYS, lease, only_if_expired=False, behind=False, first_message=b"")


def _prepare_requeue_isolated(db: redis.Redis) -> Command:
    lease = hold(db, b"a", b"b")
    return lease_scripts.requeue_isolated_command(KEYS, lease, only_if_expired=False, cause="crash", owner="me")


def _prepare_renew(db: redis.Redis) -> Command:
    lease = hold(db, b"a")
    return lease_scripts.renew_command(KEYS, [lease.member.encode()], lease_ms=LEASE_MS)


def _prepare_move_due(db: redis.Redis) -> Command:
    db.zadd(KEYS.delayed(QUEUE), {b"1" + make_message("a"): 1})
    return lease_scripts.move_due_command(KEYS, QUEUE, limit=10)


#: What follows a job: a key to delete, a value, a failure, a task that is run after all, and a message.
_FOLLOW_UPS = FollowUps(
    job="a",
    planned_ms=1,
    deleted=["deleted"],
    values=[("value", "1", 60)],
    failures=[("failed", "{}")],
    revived=["revived"],
    messages=[("celery", "message")],
)


def _after_follow_ups(command: Command) -> Callable[[redis.Redis], Command]:
    def prepare(db: redis.Redis) -> Command:
        db.zadd(KEYS.follow_ups, {_FOLLOW_UPS.encode(): 1, "other": 10**15})
        db.lpush("celery", "older")
        return command

    return prepare


def _prepare_chord_part(db: redis.Redis) -> Command:
    db.zadd("parts", {"first": 0})
    db.sadd("done", "first:0")
    db.mset({"total": 0, "size": 2, "group": "x"})
    keys = ["parts", "total", "size", "done", "group", "claim"]
    return follow_up_scripts._CHORD_PART(keys, ["second", "value", 1, 1, 60, 60, 60, "token"])


def _after_chord_claim(command: Command) -> Callable[[redis.Redis], Command]:
    def prepare(db: redis.Redis) -> Command:
        db.mset({"claim": "token", "size": 2})
        return command

    return prepare


_SOURCES = len(KEYS.sources(QUEUE))
_FOREIGN = len(KEYS.foreign_lists(QUEUE))


def _prepare_gather(db: redis.Redis) -> Command:
    for name, _ in KEYS.foreign_lists(QUEUE):
        db.lpush(name, "a", "b")
    return lease_scripts.gather_command(KEYS, QUEUE, limit=100)


#: A run of the model, for `headrace.bulk` and the jobs of its chunks.
RUN = make_run("churn", "in:rows", "out:rows", name="nightly", max_failed=0.5)


def _after_submit(command: Command) -> Callable[[redis.Redis], Command]:
    def prepare(db: redis.Redis) -> Command:
        execute(db, run_scripts.submit_command(KEYS, RUN, None, record_ttl=60))
        return command

    return prepare


_NEW_JOB = NewJob("new", b"record", b"message")


def enqueue_chunks(jobs: Sequence[NewJob]) -> Command:
    """Return the command of a plan that enqueues jobs of chunks."""
    return run_state.enqueue_command(KEYS, RUN, 1, jobs)


def _prepare_enqueue_chunks(db: redis.Redis) -> Command:
    store_letter(db, make_letter("failed"), died_ms=1000)
    db.set(KEYS.result("failed"), b'{"status": "FAILURE"}')
    db.lpush("bulk.churn\x06\x169", "x")
    db.zadd(KEYS.dead_share("bulk.churn", malformed=False), {"failed": 1})
    return _after_submit(enqueue_chunks([_NEW_JOB, NewJob("failed", b"record", b"message")]))(db)


def _prepare_begin(db: redis.Redis) -> Command:
    command = run_state.begin_command(KEYS, RUN.name, round_=1, version="3", chunks=2, rows=None, now_ms=1)
    prepared = _after_submit(command)(db)
    db.hset(KEYS.run(RUN.name), "chunks_failed", 1)
    db.hset(KEYS.receipts(RUN.name), mapping={"0": "{}", "!1": "{}"})
    for _ in range(20):  # Redis moves the fields of a hash that has grown, a few at each access
        db.hget(KEYS.run(RUN.name), "run")
    return prepared


def _prepare_restore(db: redis.Redis) -> Command:
    db.hset(KEYS.receipts(RUN.name), "1", "{}")
    return _after_submit(run_state.restore_command(KEYS, RUN.name, {"0": Receipt(rows=2, failed=1)}))(db)


def publish_run(db: redis.Redis, **changes: Any) -> Command:
    """Return the command that publishes the outcome of the last chunk of a run."""
    db.hset(KEYS.run(RUN.name), mapping={"run": "{}", "state": "running", "chunks": 1})
    outcome = publish_command(
        KEYS, hold(db, b"a"), {"a": success("a")}, ttl=60, clients={}, dead_letters=[], delayed=[],
        record_seconds={}, limits=LIMITS,
    )  # fmt: skip
    update = RunUpdate(
        run=RUN.name, change="chunk", unit="0", receipt=b"{}", rows=2, failed=1, finish=NewJob("f", b"r", b"m")
    )
    lease = Lease(name="me/1", queue="bulk.churn", origins=((4, 1),))
    return publish_run_command(KEYS, outcome, msgspec.structs.replace(update, **changes), lease=lease)


def _prepare_publish_run(db: redis.Redis) -> Command:
    db.hset(KEYS.receipts(RUN.name), "!0", "{}")
    open_job(db, "other")
    for step in (6, 9):
        db.lpush(f"bulk.churn\x06\x16{step}", "x")
    return publish_run(db, pieces=[NewJob("p", b"r", b"m")], reasons={"crash": 1})


#: By the name of the script.
CASES: dict[str, Case] = {
    "submit_run": Case(
        lambda _: run_scripts.submit_command(KEYS, RUN, None, record_ttl=60), ("hash", "zset", "list", "any")
    ),
    "resume_run": Case(
        _after_submit(run_scripts.resume_command(KEYS, RUN, 1, None, record_ttl=60)), ("hash", "list", "any")
    ),
    "cancel_run": Case(_after_submit(run_scripts.cancel_command(KEYS, RUN.name)), ("hash",)),
    "begin_run": Case(_prepare_begin, ("hash", "hash")),
    "enqueue_chunks": Case(
        _prepare_enqueue_chunks, ("hash", "list", "hash", "hash", "zset", "any", "zset", *("any",) * 4)
    ),
    "restore_receipts": Case(_prepare_restore, ("hash", "hash")),
    "publish_run": Case(
        _prepare_publish_run,
        ("zset", "any", *_NOTICES, "any", "any", "hash", "hash", "list", "list", "any", "any"),
    ),
    "enqueue": Case(_prepare_enqueue, ("list",) * _SOURCES + ("zset",) * 4 + ("string",) * 3),
    "publish_outcomes": Case(_prepare_publish_outcomes, (*_NOTICES, *("any",) * 4)),
    "cancel": Case(_prepare_cancel, ("any", "any", "any", "zset", *_NOTICES)),
    "mark_started": Case(_prepare_mark, ("any",) * 2),
    "unmark_started": Case(_prepare_unmark, ("any",) * 2),
    "publish_claim": Case(
        _prepare_publish_claim,
        ("zset", "any", *_NOTICES, *("any",) * 4, "zset", "zset", "zset", *_LETTERS, "zset", "any"),
    ),
    "take_follow_ups": Case(_after_follow_ups(follow_up_scripts.take_command(KEYS, hold_ms=1000)), ("zset",)),
    "send_follow_ups": Case(
        _after_follow_ups(follow_up_scripts.send_command(KEYS, _FOLLOW_UPS.encode(), _FOLLOW_UPS, ttl=60)),
        ("zset", "any", "any", "any", "any", "any", "list"),
    ),
    "postpone_follow_ups": Case(
        _after_follow_ups(follow_up_scripts.postpone_command(KEYS, _FOLLOW_UPS.encode(), delay_ms=1000)),
        ("zset",),
    ),
    "fail_task": Case(
        _after_follow_ups(follow_up_scripts.fail_command(KEYS, "task", "{}", ttl=60)), ("any", "any")
    ),
    "chord_part": Case(_prepare_chord_part, ("zset", "string", "string", "set", "any", "string")),
    "chord_extend": Case(
        _after_chord_claim(follow_up_scripts._CHORD_EXTEND(["claim", "size"], ["token", 60])), ("string", "any")
    ),
    "chord_cleanup": Case(
        _after_chord_claim(
            follow_up_scripts._CHORD_CLEANUP(["claim", "parts", "total", "size", "done"], ["token", 60])
        ),
        ("string", "any", "any", "any", "any"),
    ),
    "store_dead_letter": Case(_prepare_store, (*_LETTERS, "zset")),
    "trim_dead_letters": Case(_prepare_trim, (*_LETTERS, "zset", "zset")),
    "replay_dead_letters": Case(
        _store_and_replay, ("zset", "hash", "hash", "zset", "zset", *("any", "any", "list", "zset") * 2)
    ),
    "purge_dead_letters": Case(_prepare_purge, ("zset", "hash", "hash", "zset", "zset")),
    "page_dead_letters": Case(_after_letters(letters.page_command(KEYS, "-inf", 10**15)), ("zset",)),
    "read_dead_letters": Case(_after_letters(letters.letters_command(KEYS, ["a"])), ("zset", "hash")),
    "read_dead_messages": Case(
        _after_letters(letters.letters_with_messages_command(KEYS, ["a"])), ("zset", "hash", "hash")
    ),
    "count_dead_letters": Case(_after_letters(letters.count_command(KEYS)), ("zset", "string")),
    "move_alias": Case(_prepare_move_alias, ("hash", "list")),
    "replace_caller": Case(lambda _: callers._REPLACE([KEYS.callers], ["shop", b"", b"{}"]), ("hash",)),
    "take_rate": Case(lambda _: rate.take_command(KEYS, "shop", Rate(10), 3), ("string",)),
    "publish_contract": Case(_prepare_publish_contract, ("hash", "set")),
    "read_contract": Case(_prepare_read_contract, ("hash",)),
    "report_worker": Case(_prepare_report, ("hash", "hash")),
    "sign_of_life": Case(lambda _: workers.sign_of_life_command(KEYS, "one"), ("zset",)),
    "renew_statuses": Case(_prepare_renew_statuses, ("any",) * 3),
    "withdraw_worker": Case(_prepare_withdraw, ("hash", "hash")),
    "count_records": Case(_prepare_records, ("string", "string")),
    "add_version_stats": Case(_prepare_stats, ("hash",)),
    "read_job_state": Case(_prepare_read_state, ("string", "string")),
    "search_list": Case(_after_push(locate._SEARCH_LIST([QUEUE], ["a", "", 0, 10])), ("list",)),
    "find_absent_jobs": Case(_prepare_find_absent, ("zset", *("any",) * (1 + _SOURCES + _FOREIGN))),
    "list_job_ids": Case(_after_push(lost._LIST_IDS([QUEUE], ["list", 0, 10])), ("any",)),
    "forget_lost_job": Case(_prepare_forget, ("any", "any")),
    "forget_outcomes": Case(_prepare_forget_outcomes, ("any",) * 4),
    "read_messages": Case(_after_push(purge._READ([QUEUE], ["list", 0, 10, 10])), ("list",)),
    "purge_jobs": Case(_prepare_purge_jobs, ("list", "any", *_NOTICES, *("any",) * 4)),
    "search_delayed": Case(
        _after_push(locate._SEARCH_DELAYED([KEYS.delayed(QUEUE)], ["a", "-inf", 0, 10])), ("zset",)
    ),
    "count_jobs": Case(
        _after_push(*queues.measure_commands(KEYS, ["churn"])),
        ("zset", *("any",) * (_SOURCES + _FOREIGN + 1)),
    ),
    # A pair of lists with a key of another type is skipped.
    "gather_foreign_jobs": Case(_prepare_gather, ("any",) * 2 * _FOREIGN),
    "find_job_in_list": Case(_after_push(unread_lists._HOLDS_JOB([QUEUE], unread_lists._TEXTS)), ("any",)),
    "report_oldest_jobs": Case(
        _after_push(oldest.report_command(KEYS, ["churn"])), ("hash", *("any",) * _SOURCES)
    ),
    "claim": Case(_prepare_claim, ("zset", "any", "list", "list", "any", "list", *("any",) * (_SOURCES - 2))),
    # A token is left out if its list is a key of another type.
    "pass_tokens": Case(_after_push(token_script.pass_tokens_command(KEYS, [QUEUE])), ("any",) * (1 + _SOURCES)),
    "renew_leases": Case(_prepare_renew, ("zset",)),
    "finish_claim": Case(lambda db: lease_scripts.finish_command(KEYS, hold(db, b"a")), ("zset", "list")),
    "requeue": Case(_prepare_requeue, ("zset", "list", "any", "list", *("any",) * (_SOURCES - 2))),
    "requeue_isolated": Case(_prepare_requeue_isolated, ("zset", "list", "list", "any")),
    "list_expired_leases": Case(lambda db: lease_scripts.expired_command(KEYS, skip=0, limit=10), ("zset",)),
    "move_due_jobs": Case(_prepare_move_due, ("zset", *("list",) * _SOURCES)),
    **{
        name: Case(prepare, cast("tuple[Kind, ...]", kinds))
        for name, (prepare, kinds) in (NOTICE_CASES | ENTRY_CASES).items()
    },
}
