"""The scripts of a claim's life, on every Redis that is here."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import redis
from redis_servers import SERVERS, find

from headrace import outcome
from headrace.outcome import Cancelled, Success
from headrace.queues import Keys
from headrace_worker.embedded import EmbeddedRedis
from headrace_worker.transport.scripts import Ask, Claim, Held, Lease, LeaseKeys, Leases, lease_of

QUEUE = "predict.churn"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LASTS = 60_000


@pytest.fixture(scope="module", params=SERVERS)
def any_redis(request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis("--appendfsync", "no", server=find(request.param)) as running:
        yield running


@pytest.fixture
def db(any_redis: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(any_redis.url) as client:
        client.flushall()
        client.script_flush()
        yield client


@pytest.fixture(params=["", "{apart}:"])
def names(request: pytest.FixtureRequest) -> LeaseKeys:
    return LeaseKeys(Keys(request.param))


@pytest.fixture
def leases(db: redis.Redis, names: LeaseKeys) -> Leases:
    return Leases(db, names)


def push(db: redis.Redis, names: LeaseKeys, *frames: bytes, priority: int = 0, queue: str = QUEUE) -> None:
    """As a producer does."""
    db.lpush(names.keys.lists(queue)[priority // 3], *frames)


def take(leases: Leases, name: str = "me/1", jobs: int = 100, **options: object) -> Claim:
    got = leases.claim(name, [Ask(queue=QUEUE, jobs=jobs, bytes=1 << 30)], lasts_ms=LASTS, **options)
    assert isinstance(got, Claim)
    return got


def nothing(leases: Leases, name: str = "me/n") -> bool:
    got = leases.claim(name, [Ask(queue=QUEUE, jobs=100, bytes=1 << 30)], lasts_ms=LASTS)
    return isinstance(got, Held)


def end_of_time(db: redis.Redis, names: LeaseKeys) -> None:
    """Every lease has lapsed, also in a full Redis."""
    let_lapse = db.register_script("redis.call('PERSIST', KEYS[1]) redis.call('ZADD', KEYS[1], 1, ARGV[1])")
    for member in db.zrange(names.leases, 0, -1):
        let_lapse([names.leases], [member])


def success(job: str) -> bytes:
    return outcome.encode(
        Success(job=job, prediction=outcome.Prediction(model="m", version="1", predictions=[0])), NOW
    )


# --- claim ---------------------------------------------------------------------------------------------


def test_frames_come_back_to_the_byte(db: redis.Redis, names: LeaseKeys, leases: Leases) -> None:
    frames = [b"{}", b"\x00\x01\xff\n\r\n", b"\x01", b"\x01\n", b"$-1\r\n", b" ", bytes(range(256)) * 4]
    push(db, names, *frames)
    claim = take(leases)
    assert list(claim.frames) == frames
    assert db.lrange(names.lease("me/1"), 0, -1) == frames


def test_an_empty_message_is_claimed_like_any_other(db: redis.Redis, names: LeaseKeys, leases: Leases) -> None:
    push(db, names, b"", b"a", b"")
    assert list(take(leases).frames) == [b"", b"a", b""]


def test_the_lowest_number_of_priority_goes_first_and_order_is_kept_within(
    db: redis.Redis, names: LeaseKeys, leases: Leases
) -> None:
    for priority in (9, 3, 0, 6):
        push(db, names, *(b"%d-%d" % (priority, n) for n in range(2)), priority=priority)
    claim = take(leases)
    assert list(claim.frames) == [b"0-0", b"0-1", b"3-0", b"3-1", b"6-0", b"6-1", b"9-0", b"9-1"]
    assert claim.lease.origins == ((1, 2), (2, 2), (3, 2), (4, 2))


def test_a_claim_can_begin_with_the_lowest_priority(db: redis.Redis, names: LeaseKeys, leases: Leases) -> None:
    push(db, names, b"urgent")
    push(db, names, b"file", priority=9)
    assert list(take(leases, jobs=1, lowest_first=True).frames) == [b"file"]


def test_the_first_queue_asked_for_goes_first(db: redis.Redis, names: LeaseKeys, leases: Leases) -> None:
    push(db, names, b"a", queue="predict.a")
    push(db, names, b"b", queue="predict.b")
    got = leases.claim("me/1", [Ask(queue="predict.b"), Ask(queue="predict.a")], lasts_ms=LASTS)
    assert isinstance(got, Claim)
    assert (got.lease.queue, list(got.frames)) == ("predict.b", [b"b"])


def test_an_urgent_job_of_the_second_queue_goes_before_a_lesser_one_of_the_first(
    db: redis.Redis, names: LeaseKeys, leases: Leases
) -> None:
    push(db, names, b"a", queue="predict.a", priority=9)
    push(db, names, b"b", queue="predict.b")
    got = leases.claim("me/1", [Ask(queue="predict.a"), Ask(queue="predict.b")], lasts_ms=LASTS)
    assert isinstance(got, Claim)
    assert list(got.frames) == [b"b"]


def test_no_more_jobs_are_taken_than_asked_for(db: redis.Redis, names: LeaseKeys, leases: Leases) -> None:
    frames = [b"%d" % n for n in range(3500)]
    push(db, names, *frames)
    claim = take(leases, jobs=3000)
    assert list(claim.frames) == frames[:3000]
    assert db.llen(names.lease("me/1")) == 3000
    assert leases.release(claim.lease) == 3000
    assert db.lrange(names.keys.lists(QUEUE)[0], 0, -1) == frames[::-1]


def test_bytes_bound_a_claim_but_one_job_is_always_taken(
    db: redis.Redis, names: LeaseKeys, leases: Leases
) -> None:
    push(db, names, *[b"x" * 1000] * 10)
    got = leases.claim("me/1", [Ask(queue=QUEUE, jobs=100, bytes=2500)], lasts_ms=LASTS)
    assert isinstance(got, Claim)
    assert len(got.frames) == 3
    got = leases.claim("me/2", [Ask(queue=QUEUE, jobs=100, bytes=1)], lasts_ms=LASTS)
    assert isinstance(got, Claim)
    assert len(got.frames) == 1


def test_a_queue_left_to_fill_is_held_until_it_is_full(db: redis.Redis, names: LeaseKeys, leases: Leases) -> None:
    asks = [Ask(queue=QUEUE, jobs=3, bytes=1 << 20, full_only=True), Ask(queue="predict.other")]
    assert leases.claim("me/1", asks, lasts_ms=LASTS) == Held(())
    push(db, names, b"1")
    push(db, names, b"2", priority=9)
    assert leases.claim("me/2", asks, lasts_ms=LASTS) == Held((QUEUE,))
    push(db, names, b"other", queue="predict.other")
    got = leases.claim("me/3", asks, lasts_ms=LASTS)
    assert isinstance(got, Claim)
    assert got.lease.queue == "predict.other"
    push(db, names, b"3")
    got = leases.claim("me/4", asks, lasts_ms=LASTS)
    assert isinstance(got, Claim)
    assert list(got.frames) == [b"1", b"3", b"2"]


def test_without_a_lease_nothing_is_kept(db: redis.Redis, names: LeaseKeys, leases: Leases) -> None:
    push(db, names, b"a", queue="ordinary")
    got = leases.claim("me/1", [Ask(queue="ordinary", leased=False)], lasts_ms=LASTS)
    assert isinstance(got, Claim)
    assert list(db.scan_iter()) == []


def test_a_claim_that_finds_nothing_leaves_nothing(db: redis.Redis, leases: Leases) -> None:
    assert nothing(leases)
    assert list(db.scan_iter()) == []


def test_a_claim_says_whether_a_job_was_cancelled_lately(
    db: redis.Redis, names: LeaseKeys, leases: Leases
) -> None:
    push(db, names, b"a", b"b")
    assert not take(leases, jobs=1).look
    db.set(names.keys.cancelled, 1)
    assert take(leases, "me/2").look


def test_a_key_of_another_kind_stops_no_claim_that_has_popped(
    db: redis.Redis, names: LeaseKeys, leases: Leases
) -> None:
    push(db, names, b"a")
    db.set(names.keys.lists(QUEUE)[2], "in the way")
    assert list(take(leases).frames) == [b"a"]
    assert db.lrange(names.lease("me/1"), 0, -1) == [b"a"]


def test_where_leases_cannot_be_kept_nothing_is_popped(db: redis.Redis, names: LeaseKeys, leases: Leases) -> None:
    push(db, names, b"a")
    db.set(names.leases, "in the way")
    with pytest.raises(redis.ResponseError):
        take(leases)
    assert db.llen(names.keys.lists(QUEUE)[0]) == 1


# --- renew, publish, finish ----------------------------------------------------------------------------


def test_renewal_moves_the_moment_a_lease_lapses_and_names_the_lost(
    db: redis.Redis, names: LeaseKeys, leases: Leases
) -> None:
    push(db, names, b"a")
    lease = take(leases).lease
    other = Lease(name="me/2", queue=QUEUE, origins=((1, 1),))
    db.zadd(names.leases, {lease.member: 1})
    assert leases.renew([lease, other], lasts_ms=5000) == [other]
    seconds, micros = db.time()
    score = db.zscore(names.leases, lease.member)
    assert score == pytest.approx(seconds * 1000 + micros / 1000 + 5000, abs=1000)
    assert db.zscore(names.leases, other.member) is None


def test_publishing_stores_announces_and_ends_the_lease(db: redis.Redis, names: LeaseKeys, leases: Leases) -> None:
    push(db, names, b"a", b"b", b"no job", b"early")
    lease = take(leases).lease
    db.hset(names.keys.job("a"), "model", "churn")
    with db.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe(names.keys.result("a"))
        heard.get_message(timeout=1)
        got = leases.publish(
            lease,
            {"a": success("a"), "b": success("b")},
            ttl=100,
            malformed=[b"no job"],
            delayed=[(123, b"early")],
        )
        assert got == [True, True]
        message = heard.get_message(timeout=5)
        assert message is not None
        assert message["data"] == success("a")
    assert db.get(names.keys.result("b")) == success("b")
    assert 0 < db.ttl(names.keys.result("a")) <= 100
    assert 0 < db.ttl(names.keys.job("a")) <= 100
    assert db.lrange(names.malformed, 0, -1) == [b"no job"]
    assert db.zrange(names.delayed(QUEUE), 0, -1, withscores=True) == [(b"early", 123.0)]
    assert db.exists(names.leases, names.lease("me/1")) == 0


def test_the_first_outcome_of_a_job_stands(db: redis.Redis, names: LeaseKeys, leases: Leases) -> None:
    push(db, names, b"a", b"b")
    lease = take(leases).lease
    cancelled = outcome.encode(Cancelled(job="a"), NOW)
    db.set(names.keys.result("a"), cancelled)
    assert leases.publish(lease, {"a": success("a"), "b": success("b")}, ttl=100) == [False, True]
    assert db.get(names.keys.result("a")) == cancelled


def test_a_key_of_another_kind_in_the_place_of_one_outcome_does_not_lose_the_rest(
    db: redis.Redis, names: LeaseKeys, leases: Leases
) -> None:
    push(db, names, b"a", b"b")
    lease = take(leases).lease
    db.lpush(names.keys.result("a"), "in the way")
    assert leases.publish(lease, {"a": success("a"), "b": success("b")}, ttl=100) == [True, True]


def test_publishing_that_fails_half_way_leaves_the_jobs_under_their_lease(
    db: redis.Redis, names: LeaseKeys, leases: Leases
) -> None:
    push(db, names, b"a", b"no job")
    lease = take(leases).lease
    db.set(names.malformed, "in the way")
    with pytest.raises(redis.ResponseError):
        leases.publish(lease, {"a": success("a")}, ttl=100, malformed=[b"no job"])
    assert db.lrange(names.lease("me/1"), 0, -1) == [b"a", b"no job"]
    assert leases.renew([lease], lasts_ms=LASTS) == []


def test_publishing_again_after_a_lost_reply_says_the_same(
    db: redis.Redis, names: LeaseKeys, leases: Leases
) -> None:
    push(db, names, b"a", b"b")
    lease = take(leases).lease
    db.set(names.keys.result("b"), outcome.encode(Cancelled(job="b"), NOW))
    outcomes = {"a": success("a"), "b": success("b")}
    assert leases.publish(lease, outcomes, ttl=100) == [True, False]
    assert leases.publish(lease, outcomes, ttl=100) == [True, False]


def test_whoever_lost_the_lease_can_do_nothing(db: redis.Redis, names: LeaseKeys, leases: Leases) -> None:
    push(db, names, b"a", b"b")
    lost = take(leases).lease
    end_of_time(db, names)
    assert leases.lapse(lost, "lapse", owner="me", only_if_lapsed=True) == 2
    before = {key: db.dump(key) for key in db.scan_iter()}
    assert leases.publish(lost, {"a": success("a")}, ttl=100, malformed=[b"b"], delayed=[(1, b"b")]) is None
    assert not leases.finish(lost)
    assert not leases.release(lost)
    assert not leases.lapse(lost, "crash", owner="me")
    assert leases.renew([lost], lasts_ms=LASTS) == [lost]
    assert {key: db.dump(key) for key in db.scan_iter()} == before


def test_a_finished_message_is_gone(db: redis.Redis, names: LeaseKeys, leases: Leases) -> None:
    push(db, names, b"a")
    lease = take(leases).lease
    assert leases.finish(lease)
    assert not leases.finish(lease)
    assert list(db.scan_iter()) == []


# --- release, lapse, lapsed ----------------------------------------------------------------------------


def test_release_puts_everything_back_exactly(db: redis.Redis, names: LeaseKeys, leases: Leases) -> None:
    for priority in (0, 3, 6, 9):
        push(db, names, *(b"%d-%d" % (priority, n) for n in range(3)), priority=priority)
    before = {key: db.lrange(key, 0, -1) for key in db.scan_iter()}
    lease = take(leases, jobs=8).lease
    assert leases.release(lease) == 8
    assert {key: db.lrange(key, 0, -1) for key in db.scan_iter()} == before


def test_release_of_a_job_that_was_tried_keeps_it_apart(db: redis.Redis, names: LeaseKeys, leases: Leases) -> None:
    push(db, names, b"a", b"b")
    leases.lapse(take(leases).lease, "crash", owner="me")
    before = db.lrange(names.again(QUEUE), 0, -1)
    claim = take(leases)
    assert len(claim.frames) == 1
    leases.release(claim.lease)
    assert db.lrange(names.again(QUEUE), 0, -1) == before


def test_a_lapse_writes_the_attempt_down_and_its_jobs_run_alone_and_first(
    db: redis.Redis, names: LeaseKeys, leases: Leases
) -> None:
    hostile = b"\x00\xff\n\x01"
    push(db, names, b"a", hostile)
    assert leases.lapse(take(leases).lease, "crash", owner="me") == 2
    push(db, names, b"fresh")
    first, second = take(leases, "me/2"), take(leases, "me/3")
    for claim, message in ((first, b"a"), (second, hostile)):
        (frame,) = claim.frames
        tried, _, rest = frame.partition(b"\n")
        assert rest == message
        cause, owner, moment = tried.removeprefix(b"\x01").removesuffix(b";").split(b",")
        assert (cause, owner) == (b"crash", b"me")
        assert int(moment) / 1000 == pytest.approx(time.time(), abs=60)
    leases.lapse(first.lease, "timeout", owner="you")
    (frame,) = take(leases, "me/4").frames
    assert frame.count(b";") == 2
    assert frame.endswith(b";\na")
    assert list(take(leases, "me/5").frames) == [b"fresh"]


def test_what_only_looks_like_a_frame_stays_whole(db: redis.Redis, names: LeaseKeys, leases: Leases) -> None:
    push(db, names, b"\x01no newline")
    leases.lapse(take(leases).lease, "crash", owner="me")
    (frame,) = take(leases, "me/2").frames
    assert frame.endswith(b";\n\x01no newline")


def test_only_a_lapsed_lease_is_swept(db: redis.Redis, names: LeaseKeys, leases: Leases) -> None:
    push(db, names, b"a")
    lease = take(leases).lease
    assert leases.lapsed() == []
    assert leases.lapse(lease, "lapse", owner="me", only_if_lapsed=True) == 0
    end_of_time(db, names)
    assert leases.lapsed() == [lease]
    assert leases.lapse(lease, "lapse", owner="me", only_if_lapsed=True) == 1
    assert leases.lapsed() == []


def test_an_ordinary_message_goes_back_where_it_came_from(
    db: redis.Redis, names: LeaseKeys, leases: Leases
) -> None:
    push(db, names, b"a", b"b", queue="ordinary", priority=3)
    got = leases.claim("me/1", [Ask(queue="ordinary")], lasts_ms=LASTS)
    assert isinstance(got, Claim)
    end_of_time(db, names)
    assert leases.lapse(got.lease, "lapse", owner="me", only_if_lapsed=True) == 1
    assert db.lrange(names.keys.lists("ordinary")[1], 0, -1) == [b"b", b"a"]


def test_a_lapse_that_fails_half_way_leaves_the_jobs_under_their_lease(
    db: redis.Redis, names: LeaseKeys, leases: Leases
) -> None:
    push(db, names, b"a")
    lease = take(leases).lease
    db.set(names.again(QUEUE), "in the way")
    with pytest.raises(redis.ResponseError):
        leases.lapse(lease, "crash", owner="me")
    assert leases.named({"me/1"}) == [lease]
    assert db.lrange(names.lease("me/1"), 0, -1) == [b"a"]


def test_what_others_wrote_among_the_leases_is_passed_over(
    db: redis.Redis, names: LeaseKeys, leases: Leases
) -> None:
    db.zadd(names.leases, {b"\xff": 1, b"a#b": 1, b"a#b#c": 1, b"a#1#c": 1, b"a#1,2#d": 1})
    assert [lease.queue for lease in leases.lapsed()] == ["d"]


def test_a_lease_can_be_told_from_its_member() -> None:
    lease = Lease(name="host/1/ab/7", queue="predict.a#b", origins=((0, 1), (4, 22)))
    assert lease_of(lease.member.encode()) == lease


# --- delayed and malformed -----------------------------------------------------------------------------


@pytest.mark.parametrize(("priority", "place"), [(0, 0), (2, 0), (3, 1), (8, 2), (9, 3), (99, 3)])
def test_a_delayed_job_goes_to_the_list_of_its_priority(
    db: redis.Redis, names: LeaseKeys, leases: Leases, priority: int, place: int
) -> None:
    frame = json.dumps({"body": "e30=", "properties": {"priority": priority}}).encode()
    db.zadd(names.delayed(QUEUE), {frame: 1})
    assert leases.due(QUEUE) == 1
    assert db.lrange(names.keys.lists(QUEUE)[place], 0, -1) == [frame]
    assert db.exists(names.delayed(QUEUE)) == 0


def test_only_what_is_due_leaves_and_no_more_than_asked_for(
    db: redis.Redis, names: LeaseKeys, leases: Leases
) -> None:
    late = (time.time() + 3600) * 1000
    db.zadd(names.delayed(QUEUE), {b"1": 1, b"2": 2, b"3": 3, b"later": late})
    assert leases.due(QUEUE, most=2) == 2
    assert leases.due(QUEUE, most=2) == 1
    assert leases.due(QUEUE, most=2) == 0
    assert list(take(leases).frames) == [b"1", b"2", b"3"]


def test_what_nobody_can_read_is_set_aside_and_its_lease_ends(
    db: redis.Redis, names: LeaseKeys, leases: Leases
) -> None:
    push(db, names, b"\xff")
    claim = take(leases)
    leases.set_aside(claim.lease, claim.frames[0])
    leases.set_aside(None, b"\xfe")
    assert db.lrange(names.malformed, 0, -1) == [b"\xfe", b"\xff"]
    assert db.exists(names.leases, names.lease("me/1")) == 0


# --- Redis in a bad state ------------------------------------------------------------------------------


def life(db: redis.Redis, names: LeaseKeys, leases: Leases) -> Iterator[str]:
    """Each step of a claim's life, once, with what must be so after it."""
    push(db, names, *(b"%d" % n for n in range(6)))
    db.zadd(names.delayed(QUEUE), {b"due": 1})
    yield "claim"
    leases.claim("me/1", [Ask(queue=QUEUE, jobs=2, bytes=1 << 20)], lasts_ms=LASTS)
    lease = Lease(name="me/1", queue=QUEUE, origins=((1, 2),))
    assert db.lrange(names.lease("me/1"), 0, -1) == [b"0", b"1"]
    yield "renew"
    assert leases.renew([lease], lasts_ms=LASTS) == []
    yield "publish"
    assert leases.publish(
        lease, {"0": success("0")}, ttl=10, malformed=[b"1" * 5000], delayed=[(9e15, b"later" * 1000)]
    ) == [True]
    assert db.llen(names.malformed) == 1
    assert db.zcard(names.delayed(QUEUE)) == 2
    lease = take(leases, "me/2", jobs=2).lease
    yield "release"
    assert leases.release(lease) == 2
    lease = take(leases, "me/3", jobs=2).lease
    yield "lapsed"
    end_of_time(db, names)
    assert leases.lapsed() == [lease]
    yield "lapse"
    assert leases.lapse(lease, "lapse", owner="me", only_if_lapsed=True) == 2
    assert db.llen(names.again(QUEUE)) == 2
    claim = take(leases, "me/4", jobs=1)
    yield "set_aside"
    leases.set_aside(claim.lease, claim.frames[0])
    yield "due"
    assert leases.due(QUEUE) == 1
    lease = take(leases, "me/5", jobs=1).lease
    yield "finish"
    assert leases.finish(lease)


def test_scripts_that_redis_has_forgotten_are_sent_again(
    db: redis.Redis, names: LeaseKeys, leases: Leases
) -> None:
    for _ in life(db, names, leases):
        db.script_flush()


def test_a_full_redis_can_be_drained_and_loses_nothing(db: redis.Redis, names: LeaseKeys, leases: Leases) -> None:
    steps = life(db, names, leases)
    next(steps)
    db.set("ballast", b"x" * (8 << 20))
    db.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            push(db, names, b"one more")
        for _ in steps:
            pass
    finally:
        db.config_set("maxmemory", 0)


def test_every_key_a_script_touches_is_declared(db: redis.Redis, names: LeaseKeys, leases: Leases) -> None:
    declared: set[str] = set()
    touched: list[tuple[str, str]] = []
    with db.monitor() as monitor:
        done = threading.Thread(target=lambda: (list(life(db, names, leases)), db.echo("the end")))
        done.start()
        for seen in monitor.listen():
            words = seen["command"].split(" ")
            if seen["command"].startswith("ECHO"):
                break
            if words[0] == "EVALSHA" and seen["client_type"] != "lua":
                declared = set(words[3 : 3 + int(words[2])])
            elif seen["client_type"] == "lua" and words[0] != "TIME":
                touched.append((words[1], seen["command"]))
                assert words[1] in declared, f"{seen['command'][:80]} touches a key that is not declared"
        done.join()
    assert len(touched) > 30


def test_a_user_confined_to_our_keys_can_do_it_all(
    db: redis.Redis, any_redis: EmbeddedRedis, names: LeaseKeys
) -> None:
    ours = [f"~{names.keys.prefix}{key}" for key in ("predict.*", "headrace:*", "celery-task-meta-*")]
    channels = ["resetchannels", f"&{names.keys.prefix}celery-task-meta-*"]
    rules = ["reset", "on", ">secret", "+@all", "-@admin", *ours, *channels]
    db.execute_command("ACL", "SETUSER", "worker", *rules)
    with redis.Redis(port=any_redis.port, username="worker", password="secret") as confined:
        for _ in life(confined, names, Leases(confined, names)):
            pass


def test_the_scripts_run_in_cluster_mode_where_the_prefix_is_a_hash_tag() -> None:
    names = LeaseKeys(Keys("{one-slot}:"))
    with (
        EmbeddedRedis("--cluster-enabled", "yes", server=find("falkordb"), port=_port_for_a_cluster()) as cluster,
        redis.Redis.from_url(cluster.url) as node,
    ):
        node.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        deadline = time.monotonic() + 20
        while node.execute_command("CLUSTER INFO")["cluster_state"] != "ok" and time.monotonic() < deadline:
            time.sleep(0.02)
        for _ in life(node, names, Leases(node, names)):
            pass


def _port_for_a_cluster() -> int:
    """The bus of a cluster listens 10,000 ports higher, so the port must be a low one."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")
