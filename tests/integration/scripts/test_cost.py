"""No input makes a script hold Redis: its cost grows with the size of the input, not with its square.

Each case runs a script on hostile input of one size and of 16 times that size, and compares the time that Redis
itself took of the processor. A quadratic script takes 256 times as long, a linear one 16 times.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import cast

import msgspec
import pytest
import redis

from headrace.bulk import scripts as run_scripts
from headrace.catalog import aliases, callers, published, rate, workers
from headrace.catalog.aliases import Alias
from headrace.catalog.callers import Rate
from headrace.connection.commands import Command, Script, execute
from headrace.dead_letters import scripts as letters
from headrace.dead_letters.replay import PreparedReplay
from headrace.inspection import job, locate, lost, oldest, queues
from headrace.results import cancellation, publish, purge, started
from headrace.results.letter_scripts import DeadLetterLimits, store_command, trim_command
from headrace.submit import durability
from headrace.submit.enqueue import JOBS_PER_CALL, forget_command
from headrace.wire.bulk import Receipt
from headrace.wire.dead_letter import attach_message
from headrace.wire.outcome import Cancelled
from headrace_worker.bulk import run_state
from headrace_worker.execution.follow_ups import FollowUps
from headrace_worker.rollout import version_stats
from headrace_worker.rollout.version_stats import VersionStats
from headrace_worker.transport import claim_script, follow_up_scripts, lease_scripts, token_script
from headrace_worker.transport.claims import ClaimLimits, Lease
from headrace_worker.transport.publish_script import StoredFollowUps, publish_command
from headrace_worker.transport.run_script import NewJob
from tests.support.answering_worker import CHURN
from tests.support.lease_operations import LEASE_MS, NOW, QUEUE, failure, malformed
from tests.support.script_cases import (
    CASES,
    KEYS,
    RUN,
    enqueue,
    enqueue_chunks,
    find_absent,
    forget_outcomes,
    hold,
    name_of,
    publish_run,
    purge_jobs,
)
from tests.support.stored_dead_letters import make_letter, store_letter
from tests.support.stored_entries import COSTS as ENTRY_COSTS
from tests.support.stored_notices import COSTS as NOTICE_COSTS
from tests.support.stored_notices import open_job

#: The first size, and the factor of the second.
SIZE, FACTOR = 500, 16
#: Machines are noisy, and Lua's memory costs more for each value when there are many.
MAX_RATIO = 6 * FACTOR
#: Milliseconds below which a script's time is not compared: noise.
NOISE_MS = 2.0

#: Texts that are slow for a pattern, a search or a parser, by their length.
TEXTS: dict[str, Callable[[int], bytes]] = {
    "history": lambda size: b"\x01" + b"a" * size + b";\n",
    "near history": lambda size: b"\x01" + b"a,b,1,1;" * (size // 8) + b"\n",
    "new history": lambda size: b"\x01a,b,1,1\n" * (size // 9),
    "deep": lambda size: b'{"status":' + b"[" * size,
    "near id": lambda size: b'"id":"aaaaaaaa' * (size // 14),
    "near correlation": lambda size: b'"correlation_id":' * (size // 17),
    "open correlation": lambda size: b'"correlation_id":"' + b"a" * size,
    "spaces": lambda size: b"{" + b" " * size + b'"status"',
    "quotes": lambda size: b'"' * size,
}


def big(size: int) -> bytes:
    """Return a text of many bytes of no particular form."""
    return b"[]," * (size * 100)


def _enqueue_many(db: redis.Redis, size: int) -> Command:
    names = [f"job-{number}" for number in range(min(JOBS_PER_CALL, size // 32))]
    db.mset({KEYS.job(name): b"other" * 100 for name in names[::2]})
    db.lpush(KEYS.isolated(QUEUE), "x")
    return enqueue(names, limit=1_000_000, notify="orders", listen="orders")


def _publish_outcomes(stored: bytes) -> Callable[[redis.Redis, int], Command]:
    def build(db: redis.Redis, size: int) -> Command:
        names = [f"job-{number}" for number in range(size // 10)]
        for name in names:
            open_job(db, name)
        db.mset({KEYS.result(name): stored for name in names})
        return publish.publish_command(KEYS, [Cancelled(job=name) for name in names], ttl=60, now=NOW)

    return build


def _mark(stored: bytes) -> Callable[[redis.Redis, int], Command]:
    def build(db: redis.Redis, size: int) -> Command:
        names = [f"job-{number}" for number in range(size // 10)]
        db.mset({KEYS.result(name): stored for name in names})
        return started.mark_command(KEYS, {name: started.encode_mark(name, "w", "c") for name in names})

    return build


def _unmark(db: redis.Redis, size: int) -> Command:
    marks = {f"job-{number}": started.encode_mark(f"job-{number}", "w", "c") for number in range(size)}
    db.mset({KEYS.result(name): mark + b"x" * 1000 for name, mark in marks.items()})
    return started.unmark_command(KEYS, marks)


def _find_absent(db: redis.Redis, size: int) -> Command:
    db.lpush(QUEUE, *(b'{"id":"job-%d"}' % number for number in range(size)))
    return find_absent(*(f"other-{number}" for number in range(size)))


def _forget(db: redis.Redis, size: int) -> Command:
    db.set(KEYS.job("a"), big(size))
    return forget_command(KEYS, "a", big(size))


def _forget_outcomes(stored: bytes) -> Callable[[redis.Redis, int], Command]:
    def build(db: redis.Redis, size: int) -> Command:
        names = [f"job-{number}" for number in range(size // 10)]
        db.mset({KEYS.result(name): stored for name in names})
        return forget_outcomes(*names)

    return build


def _purge_jobs(db: redis.Redis, size: int) -> Command:
    messages = [b'{"id":"job-%d"}' % number for number in range(size)]
    db.lpush(QUEUE, *messages)
    return purge_jobs(*messages)


def _purge_long(db: redis.Redis, size: int) -> Command:
    db.lpush(QUEUE, big(size))
    return purge_jobs(big(size))


def _cancel(stored: Callable[[int], bytes]) -> Callable[[redis.Redis, int], Command]:
    def build(db: redis.Redis, size: int) -> Command:
        db.set(KEYS.result("a"), stored(size))
        return cast("Command", next(cancellation.cancel(KEYS, "a", ttl=60, now=NOW, unknown=True)))

    return build


def _publish_claim(db: redis.Redis, size: int) -> Command:
    """Each job has a client of its own, and each fails."""
    names = [f"job-{number}" for number in range(size)]
    failures = {name: failure(name) for name in names}
    return publish_command(
        KEYS,
        hold(db, b"a"),
        {name: outcome for name, (outcome, _) in failures.items()},
        ttl=60,
        clients={name: f"{number:032x}" for number, name in enumerate(names)},
        dead_letters=[letter for _, letter in failures.values()],
        delayed=[(1000, b"%d" % number) for number in range(size)],
        record_seconds=dict.fromkeys(names, 60),
        follow_ups=[StoredFollowUps(job=name, encoded=name.encode()) for name in names],
        limits=DeadLetterLimits(max_count=10),
    )


def _publish_same_id(db: redis.Redis, size: int) -> Command:
    """Malformed messages whose letters all have one id."""
    letter, _ = malformed(b"\xff")
    pairs = [(letter, b"\xff%d" % number) for number in range(size // 8)]
    return publish_command(
        KEYS, hold(db, b"a"), {}, ttl=1, clients={}, dead_letters=pairs, delayed=[], record_seconds={},
        limits=DeadLetterLimits(),
    )  # fmt: skip


def _trim(db: redis.Redis, size: int) -> Command:
    for malformed_too in (False, True):
        share = KEYS.dead_share(QUEUE, malformed=malformed_too)
        db.zadd(share, {f"{malformed_too}-{number}": number for number in range(size)})
    return trim_command(KEYS, [QUEUE], limits=DeadLetterLimits(max_count=1), limit=2 * size)


def _letters(db: redis.Redis, size: int) -> list[str]:
    names = [f"letter-{number}" for number in range(size)]
    db.hset(KEYS.dead, mapping=dict.fromkeys(names, b"x" * 100))
    db.hset(KEYS.dead_messages, mapping=dict.fromkeys(names, b"x" * 100))
    db.zadd(KEYS.dead_times, dict.fromkeys(names, 1000))
    return names


def _purge(db: redis.Redis, size: int) -> Command:
    stored = [make_letter(name) for name in _letters(db, size)]
    return letters.purge_command(KEYS, [msgspec.structs.replace(letter, died_ms=1000) for letter in stored])


def _replay(db: redis.Redis, size: int) -> Command:
    """The result of each job is a value that has no status in front."""
    replays = []
    for name in _letters(db, size // 4):
        db.set(KEYS.result(name), b'{"x":' + b"[" * 5000)
        letter = attach_message(msgspec.structs.replace(make_letter(name), died_ms=1000), b"x")
        replays.append(PreparedReplay(letter=letter, source=1, queued_message=b"x", record=b"x"))
    return letters.replay_command(KEYS, replays, record_ttl=60)


def _page(db: redis.Redis, size: int) -> Command:
    _letters(db, size * 4)  # all of one moment
    return letters.page_command(KEYS, "-inf", 10**15)


def _store_letter(db: redis.Redis, size: int) -> Command:
    letter, _ = malformed(b"\xff")
    for number in range(2, 10):
        store_letter(
            db, msgspec.structs.replace(letter, id=f"{letter.id}~{number}"), big(size), with_outcome=False
        )
    store_letter(db, letter, big(size), with_outcome=False)
    return store_command(KEYS, letter, big(size) + b"!")


def _report(stored: Callable[[int], str]) -> Callable[[redis.Redis, int], Command]:
    def build(db: redis.Redis, size: int) -> Command:
        for key in (KEYS.loaded("churn"), KEYS.refused("churn")):
            db.hset(key, mapping={str(number): stored(size) for number in range(size if stored(1) == "{}" else 4)})
        return workers.publish_status(KEYS, "churn", "me", ["1"], {"2": "broken"})

    return build


def _many_queues(db: redis.Redis, size: int) -> list[str]:
    queues = [f"predict.m{number}" for number in range(size // 10)]
    for queue in queues:
        db.lpush(queue, "a")
    return queues


def _sign_of_life(db: redis.Redis, size: int) -> Command:
    db.zadd(KEYS.workers, {str(number): number for number in range(size)})
    return workers.sign_of_life_command(KEYS, "one")


def _renew_statuses(db: redis.Redis, size: int) -> Command:
    now = int(time.time() * 1000)
    db.zadd(KEYS.workers, {str(number): now + number for number in range(size)})
    entry = '{"versions":["1"],"at_ms":1700000000000}'
    db.hset(KEYS.loaded("churn"), mapping={str(number): entry for number in range(size)})
    return workers.renew_command(KEYS, ["churn"])


def _renew_long_statuses(db: redis.Redis, size: int) -> Command:
    for key in (KEYS.loaded("churn"), KEYS.refused("churn")):
        db.hset(
            key, mapping={"one": '"at_ms":1' * size, "two": '"at_ms":' + "1" * size + "}", "three": "{" * size}
        )
    db.zadd(KEYS.workers, {"one": 2e12, "two": 2e12})
    return workers.renew_command(KEYS, ["churn"])


def _withdraw(db: redis.Redis, size: int) -> Command:
    _report(lambda _: "{}")(db, size)
    return workers.withdraw_status(KEYS, "churn", "me")


def _statistics(db: redis.Redis, size: int) -> Command:
    db.hset(KEYS.version_stats("churn", "1"), mapping={f"t{number}": number for number in range(size)})
    stats = VersionStats(succeeded=1, jobs_by_bucket=dict.fromkeys(range(size), 1))
    return version_stats.add_command(KEYS, "churn", "1", stats)


def _contract(db: redis.Redis, size: int) -> Command:
    db.hset(KEYS.contracts("churn"), mapping={str(number): "{}" for number in range(size)})
    contract = json.dumps({"x": "y" * size * 100})
    return published._PUBLISH([KEYS.contracts("churn"), KEYS.models], [CHURN.version, contract, "churn"])


def _read_contract(db: redis.Redis, size: int) -> Command:
    db.hset(KEYS.contracts("churn"), mapping={"latest": "1", "1": big(size)})
    return published._READ([KEYS.contracts("churn")], [""])


def _move_alias(db: redis.Redis, size: int) -> Command:
    db.lpush(KEYS.alias_history("churn"), *["x"] * size)
    alias = Alias(version="1")
    return aliases.move_alias(KEYS, "churn", "production", None, alias, by="me", reason="x" * 100 * size)


def _replace_caller(db: redis.Redis, size: int) -> Command:
    db.hset(KEYS.callers, mapping={str(number): "x" * 100 for number in range(size)} | {"shop": big(size)})
    return callers._REPLACE([KEYS.callers], ["shop", big(size), big(size)])


def _take_rate(db: redis.Redis, size: int) -> Command:
    db.set(KEYS.rate("shop"), "1" * size * 100)
    return rate.take_command(KEYS, "shop", Rate(10), size)


def _read_state(db: redis.Redis, size: int) -> Command:
    db.mset({KEYS.job("a"): big(size), KEYS.result("a"): big(size)})
    return job._READ_STATE([KEYS.result("a"), KEYS.job("a")])


def _lists(text: Callable[[int], bytes]) -> Callable[[redis.Redis, int], None]:
    def push(db: redis.Redis, size: int) -> None:
        for number in range(4):
            db.lpush(QUEUE, text(size * 20))
            db.zadd(KEYS.delayed(QUEUE), {b"1" + text(size * 20) + b"%d" % number: 1})

    return push


def _hold_texts(text: Callable[[int], bytes], db: redis.Redis, size: int) -> Lease:
    lease = hold(db, *[text(size * 20)] * 4)
    isolated = msgspec.structs.replace(lease, name="me/2", origins=((0, 4),))
    db.zadd(KEYS.leases, {isolated.member: 1})
    db.rpush(KEYS.lease("me/2"), *[text(size * 20)] * 4)
    return isolated


def _on_texts(build: Callable[[redis.Redis], Command]) -> dict[str, Callable[[redis.Redis, int], Command]]:
    def case(text: Callable[[int], bytes]) -> Callable[[redis.Redis, int], Command]:
        def prepare(db: redis.Redis, size: int) -> Command:
            _lists(text)(db, size)
            for name, _ in KEYS.foreign_lists(QUEUE):
                db.lpush(name, text(size * 20))
            return build(db)

        return prepare

    return {label: case(text) for label, text in TEXTS.items()}


def _on_leased_texts(build: Callable[[Lease], Command]) -> dict[str, Callable[[redis.Redis, int], Command]]:
    def case(text: Callable[[int], bytes]) -> Callable[[redis.Redis, int], Command]:
        return lambda db, size: build(_hold_texts(text, db, size))

    return {label: case(text) for label, text in TEXTS.items()}


def _claim(db: redis.Redis, jobs: int = 100) -> Command:
    limits = [ClaimLimits(queue=QUEUE, jobs=jobs, bytes=1 << 30)]
    return claim_script.claim_command(KEYS, "me/9", limits, lease_ms=LEASE_MS, lowest_first=False)


def _claim_many(db: redis.Redis, size: int) -> Command:
    db.lpush(QUEUE, *[b"x"] * size)
    return _claim(db, size)


def _leases(db: redis.Redis, size: int) -> list[bytes]:
    members = [b"me/%d#1,1#predict.churn" % number for number in range(size)]
    db.zadd(KEYS.leases, dict.fromkeys(members, 1))
    return members


def _requeue_isolated(lease: Lease) -> Command:
    return lease_scripts.requeue_isolated_command(KEYS, lease, only_if_expired=False, cause="crash", owner="me")


def _requeue(lease: Lease) -> Command:
    return lease_scripts.requeue_command(KEYS, lease, only_if_expired=False, behind=False, first_message=b"")


def _follow_ups(db: redis.Redis, size: int) -> FollowUps:
    """Follow-ups of each kind, many of them."""
    names = [str(number) for number in range(size // 4)]
    db.mset({KEYS.result(f"revived-{name}"): b'{"x":' + b"[" * 1000 for name in names})
    db.mset({KEYS.result(f"failed-{name}"): b'{"x":' + b"[" * 1000 for name in names})
    follow_ups = FollowUps(
        job="a" * size,
        planned_ms=1,
        deleted=names,
        values=[(f"value-{name}", "1", 60) for name in names],
        failures=[(f"failed-{name}", "{}") for name in names],
        revived=[f"revived-{name}" for name in names],
        messages=[(f"list-{name}", "x" * 100) for name in names],
    )
    db.zadd(KEYS.follow_ups, {follow_ups.encode(): 1})
    return follow_ups


def _send(db: redis.Redis, size: int) -> Command:
    follow_ups = _follow_ups(db, size)
    return follow_up_scripts.send_command(KEYS, follow_ups.encode(), follow_ups, ttl=60)


def _take(db: redis.Redis, size: int) -> Command:
    db.zadd(KEYS.follow_ups, {big(size // 100) + b"%d" % number: 1 for number in range(100)})
    return follow_up_scripts.take_command(KEYS, hold_ms=1000)


def _postpone(db: redis.Redis, size: int) -> Command:
    db.zadd(KEYS.follow_ups, {big(size): 1})
    return follow_up_scripts.postpone_command(KEYS, big(size), delay_ms=1000)


def _fail_task(db: redis.Redis, size: int) -> Command:
    db.set(KEYS.result("a"), b'{"x":' + b"[" * size * 100)
    return follow_up_scripts.fail_command(KEYS, "a", "{}", ttl=60)


def _chord(db: redis.Redis, size: int) -> list[str]:
    db.zadd("parts", {str(number): number for number in range(size)})
    db.sadd("done", *range(size))
    db.set("size", size + 1)
    return ["parts", "total", "size", "done", "group", "claim"]


def _chord_part(db: redis.Redis, size: int) -> Command:
    return follow_up_scripts._CHORD_PART(_chord(db, size), ["a", big(size), 1, 1, 60, 60, 60, "token"])


def _chord_end(script: Script) -> Callable[[redis.Redis, int], Command]:
    def build(db: redis.Redis, size: int) -> Command:
        parts, *others, claim = _chord(db, size)
        db.set(claim, "token")
        return script([claim, parts, *others] if script is follow_up_scripts._CHORD_CLEANUP else [claim, "size"],
                      ["token", 60])  # fmt: skip

    return build


def _submit_run(db: redis.Redis, size: int) -> Command:
    db.zadd(KEYS.runs, {str(number): number for number in range(size)})
    return run_scripts.submit_command(KEYS, RUN, None, record_ttl=60)


def _stored_run(command: Command) -> Callable[[redis.Redis, int], Command]:
    def build(db: redis.Redis, size: int) -> Command:
        db.hset(KEYS.run(RUN.name), mapping={"run": big(size), "state": "running", "round": 1})
        return command

    return build


def _begin_run(db: redis.Redis, size: int) -> Command:
    db.hset(KEYS.run(RUN.name), mapping={"round": 1, "state": "planning", "chunks_failed": size})
    db.hset(KEYS.receipts(RUN.name), mapping={f"!{number}": "x" * 100 for number in range(size)})
    return run_state.begin_command(KEYS, RUN.name, round_=1, version="3", chunks=2, rows=2, now_ms=1)


def _enqueue_chunks(db: redis.Redis, size: int) -> Command:
    jobs = [NewJob(str(number), b"r", b"m" * 100) for number in range(size // 32)]
    db.hset(KEYS.run(RUN.name), mapping={"round": 1, "state": "planning"})
    db.mset({KEYS.result(job.id): b'{"x":' + b"[" * 10_000 for job in jobs})
    return enqueue_chunks(jobs)


def _publish_run(db: redis.Redis, size: int) -> Command:
    db.hset(KEYS.receipts(RUN.name), mapping={str(number): b"x" for number in range(1, size)})
    pieces = [NewJob(str(number), b"r", b"m" * 100) for number in range(size // 10)]
    return publish_run(db, pieces=pieces, reasons={str(number): 1 for number in range(size)})


#: By the name of the script: hostile inputs by a name, each a function of a Redis and a size.
COSTS: dict[str, dict[str, Callable[[redis.Redis, int], Command]]] = {
    "submit_run": {"many": _submit_run},
    "resume_run": {"long": _stored_run(run_scripts.resume_command(KEYS, RUN, 1, None, record_ttl=60))},
    "cancel_run": {"long": _stored_run(run_scripts.cancel_command(KEYS, RUN.name))},
    "begin_run": {
        "many": _begin_run,
        "long": _stored_run(
            run_state.begin_command(KEYS, RUN.name, round_=1, version="3", chunks=2, rows=2, now_ms=1)
        ),
    },
    "enqueue_chunks": {"many": _enqueue_chunks},
    "restore_receipts": {
        "many": lambda _, size: run_state.restore_command(
            KEYS, RUN.name, {str(number): Receipt(rows=1) for number in range(size)}
        )
    },
    "publish_run": {"many": _publish_run},
    "enqueue": {
        "many": _enqueue_many,
        "long": lambda db, size: enqueue(["a", "b"], big(size)),
        "conflict": lambda db, size: (db.set(KEYS.job("a"), big(size)), enqueue(["a"]))[1],
    },
    "publish_outcomes": {
        "many": _publish_outcomes(b""),
        "deep": _publish_outcomes(b'{"x":' + b"[" * 10_000),
        "wide": _publish_outcomes(b'{"x":[' + b"1," * 5_000 + b'1],"status":"SUCCESS"}'),
    },
    "send_follow_ups": {"many": _send},
    "take_follow_ups": {"long": _take},
    "postpone_follow_ups": {"long": _postpone},
    "fail_task": {"deep": _fail_task},
    "chord_part": {"many": _chord_part},
    "chord_extend": {"many": _chord_end(follow_up_scripts._CHORD_EXTEND)},
    "chord_cleanup": {"many": _chord_end(follow_up_scripts._CHORD_CLEANUP)},
    "cancel": {
        "deep": _cancel(lambda size: b'{"x":' + b"[" * size * 100),
        "wide": _cancel(lambda size: b'{"x":[' + b"1," * size * 10 + b"1]}"),
    },
    "mark_started": {"deep": _mark(b'{"x":' + b"[" * 10_000), "started": _mark(b'{"status":"STARTED"')},
    "unmark_started": {"long": _unmark},
    "publish_claim": {"many": _publish_claim, "one id": _publish_same_id},
    "store_dead_letter": {"long": _store_letter},
    "trim_dead_letters": {"many": _trim},
    "replay_dead_letters": {"many": _replay},
    "purge_dead_letters": {"many": _purge},
    "page_dead_letters": {"one moment": _page},
    "read_dead_letters": {"many": lambda db, size: letters.letters_command(KEYS, _letters(db, size))},
    "read_dead_messages": {
        "many": lambda db, size: letters.letters_with_messages_command(KEYS, _letters(db, size))
    },
    "count_dead_letters": {"many": lambda db, size: (_letters(db, size), letters.count_command(KEYS))[1]},
    "move_alias": {"long": _move_alias},
    "replace_caller": {"many": _replace_caller},
    "take_rate": {"long": _take_rate},
    "publish_contract": {"long": _contract},
    "read_contract": {"long": _read_contract},
    "report_worker": {
        "many": _report(lambda _: "{}"),
        "deep": _report(lambda size: '{"x":' + "[" * size * 100),
        "wide": _report(lambda size: '{"x":[' + "1," * size * 10 + "1]}"),
    },
    "sign_of_life": {"many": _sign_of_life},
    "renew_statuses": {"many": _renew_statuses, "long": _renew_long_statuses},
    "withdraw_worker": {"many": _withdraw},
    "count_records": {
        "many": lambda db, size: durability._count_records_command([KEYS.job(str(each)) for each in range(size)])
    },
    "add_version_stats": {"many": _statistics},
    "read_job_state": {"long": _read_state},
    "search_list": _on_texts(lambda _: locate._SEARCH_LIST([QUEUE], ["a" * 100, "", 0, 10]))
    | {
        f"by moment, {label}": case
        for label, case in _on_texts(
            lambda _: locate._SEARCH_LIST([QUEUE], ["a" * 100, "01890000-0000", 0, 10])
        ).items()
    },
    "find_absent_jobs": {"many": _find_absent, **_on_texts(lambda _: find_absent("a"))},
    "list_job_ids": _on_texts(lambda _: lost._LIST_IDS([QUEUE], ["list", 0, 10])),
    "forget_lost_job": {"long": _forget},
    "forget_outcomes": {
        "many": _forget_outcomes(b'{"status":"SUCCESS"}'),
        "deep": _forget_outcomes(b'{"x":' + b"[" * 10_000),
        "wide": _forget_outcomes(b'{"x":[' + b"1," * 5_000 + b'1],"status":"SUCCESS"}'),
    },
    "read_messages": _on_texts(lambda _: purge._READ([QUEUE], ["list", 0, 10, 10**9])),
    "purge_jobs": {"many": _purge_jobs, "long": _purge_long},
    "search_delayed": _on_texts(lambda _: locate._SEARCH_DELAYED([KEYS.delayed(QUEUE)], ["a", "-inf", 0, 10])),
    "count_jobs": {
        "many": lambda db, size: queues._measure(KEYS, [f"m{number}" for number in range(size // 10)]),
        "leases": lambda db, size: (_leases(db, size), queues._measure(KEYS, ["churn"]))[1],
    },
    "report_oldest_jobs": {
        "many": lambda db, size: oldest.report_command(KEYS, [f"m{number}" for number in range(size // 10)]),
        **_on_texts(lambda _: oldest.report_command(KEYS, ["churn"])),
    },
    "claim": {"many": _claim_many, **_on_texts(_claim)},
    "pass_tokens": {"many": lambda db, size: token_script.pass_tokens_command(KEYS, _many_queues(db, size))},
    "renew_leases": {"many": lambda db, size: lease_scripts.renew_command(KEYS, _leases(db, size), lease_ms=1000)},
    "finish_claim": _on_leased_texts(lambda lease: lease_scripts.finish_command(KEYS, lease)),
    "requeue": _on_leased_texts(_requeue),
    "requeue_isolated": _on_leased_texts(_requeue_isolated),
    "list_expired_leases": {
        "many": lambda db, size: (_leases(db, size), lease_scripts.expired_command(KEYS, skip=0, limit=size))[1]
    },
    "move_due_jobs": _on_texts(lambda _: lease_scripts.move_due_command(KEYS, QUEUE, limit=100)),
    "gather_foreign_jobs": _on_texts(lambda _: lease_scripts.gather_command(KEYS, QUEUE, limit=100)),
    "find_job_in_list": _on_texts(CASES["find_job_in_list"].prepare),
    **NOTICE_COSTS,
    **ENTRY_COSTS,
}


def measure_ms(db: redis.Redis, build: Callable[[redis.Redis, int], Command], size: int) -> float:
    """Return the milliseconds of processor time that Redis spent on a script, of three runs the least."""
    times = []
    for _ in range(3):
        db.flushall()
        command = build(db, size)
        execute(db, CASES["count_records"].prepare(db))  # the connection has found its form of calls
        assert command.script is not None
        db.script_load(command.script.source)
        before = _processor_ms(db)
        execute(db, command)
        times.append(_processor_ms(db) - before)
    return min(times)


def _processor_ms(db: redis.Redis) -> float:
    usage = db.info("cpu")
    return float(1000 * (usage["used_cpu_user"] + usage["used_cpu_sys"]))


def test_every_script_has_a_case() -> None:
    assert set(COSTS) == set(CASES)


@pytest.mark.parametrize(("name", "label"), [(name, label) for name, cases in COSTS.items() for label in cases])
def test_the_cost_of_a_script_is_linear(server: redis.Redis, name: str, label: str) -> None:
    build = COSTS[name][label]
    assert name_of(build(server, SIZE)) == name
    small, large = measure_ms(server, build, SIZE), measure_ms(server, build, FACTOR * SIZE)
    assert large < MAX_RATIO * max(small, NOISE_MS / FACTOR), f"{small:.2f} ms, then {large:.2f} ms"
