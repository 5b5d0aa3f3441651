"""How often and how long a command is sent again while Redis is away."""

from __future__ import annotations

import pytest
from redis import exceptions

from headrace.connection.retry import Patience

AWAY = exceptions.ConnectionError("Error 111 connecting to 127.0.0.1:6379. Connection refused.")
SILENT = exceptions.TimeoutError("Timeout reading from socket")
READ_ONLY = exceptions.ReadOnlyError("You can't write against a read only replica.")


def known(seconds: float = 10.0) -> Patience:
    """That with a Redis that has answered before."""
    patience = Patience(seconds)
    patience.heard()
    return patience


def test_a_redis_that_has_answered_is_waited_for_as_long_as_a_command_may_take():
    assert known().rest(AWAY, tries=40, since=9.0, part=1.0) == 0.5
    assert known().rest(AWAY, tries=41, since=9.6, part=1.0) is None


def test_one_that_never_answered_has_three_tries():
    rests = [Patience(10.0).rest(AWAY, tries=tries, since=0.1, part=1.0) for tries in (1, 2, 3)]
    assert rests == [0.05, 0.1, None]


def test_rests_grow_to_half_a_second_and_a_random_part_of_them_is_taken():
    rests = [known().rest(AWAY, tries=tries, since=0.0, part=1.0) for tries in range(1, 7)]
    assert rests == [0.05, 0.1, 0.2, 0.4, 0.5, 0.5]
    assert known().rest(AWAY, tries=3, since=0.0, part=0.5) == 0.1
    drawn = {known().rest(AWAY, tries=5, since=0.0) for _ in range(20)}
    assert len(drawn) > 1
    assert all(rest is not None and 0 <= rest <= 0.5 for rest in drawn)


def test_a_thousand_tries_do_not_overflow():
    assert known(1e9).rest(AWAY, tries=10_000, since=5000.0, part=1.0) == 0.5


def test_silence_gets_one_more_try_at_once_as_the_connection_may_be_what_died():
    for patience in (known(), Patience(10.0)):
        assert patience.rest(SILENT, tries=1, since=10.0) == 0.0
        assert patience.rest(SILENT, tries=2, since=20.0) is None


def test_a_caller_with_less_time_is_heard_sooner():
    assert known().rest(AWAY, tries=5, since=1.0, within=2.0, part=1.0) == 0.5
    assert known().rest(AWAY, tries=5, since=1.8, within=2.0, part=1.0) is None
    assert known().rest(SILENT, tries=1, since=10.0, within=2.0) is None
    assert known().rest(AWAY, tries=50, since=10.5, within=60.0, part=1.0) is None


@pytest.mark.parametrize(
    "error",
    [
        AWAY,
        exceptions.BusyLoadingError("Redis is loading the dataset in memory"),
        exceptions.MasterDownError("Link with MASTER is down"),
        exceptions.ClusterDownError("The cluster is down"),
        exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."),
        exceptions.ResponseError("BUSY Redis is busy running a script. You can only call SCRIPT KILL."),
    ],
)
def test_what_passes_is_waited_for(error: exceptions.RedisError):
    assert known().rest(error, tries=10, since=5.0, part=1.0) == 0.5


@pytest.mark.parametrize(
    "error",
    [
        READ_ONLY,
        exceptions.ResponseError("@user_script:1: -READONLY You can't write against a read only replica."),
    ],
)
def test_a_replica_has_a_few_tries_as_it_may_have_been_the_primary(error: exceptions.RedisError):
    assert known().rest(error, tries=2, since=0.1, part=1.0) == 0.1
    assert known().rest(error, tries=3, since=0.2) is None


@pytest.mark.parametrize(
    "error",
    [
        exceptions.AuthenticationError("WRONGPASS"),
        exceptions.NoPermissionError("this user has no permissions to run the 'evalsha' command"),
        exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots"),
        exceptions.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
        exceptions.InvalidResponse("Protocol Error"),
    ],
)
def test_what_stays_is_told_at_once(error: exceptions.RedisError):
    assert known().rest(error, tries=1, since=0.0) is None
