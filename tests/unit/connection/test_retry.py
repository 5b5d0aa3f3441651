"""How often and how long a command is sent again while Redis is away."""

from __future__ import annotations

import pytest
from redis import exceptions

from headrace.connection.retry import RetryPolicy

AWAY = exceptions.ConnectionError("Error 111 connecting to 127.0.0.1:6379. Connection refused.")
SILENT = exceptions.TimeoutError("Timeout reading from socket")
READ_ONLY = exceptions.ReadOnlyError("You can't write against a read only replica.")


def answered_policy(seconds: float = 10.0) -> RetryPolicy:
    """That with a Redis that has answered before."""
    patience = RetryPolicy(seconds)
    patience.succeeded()
    return patience


def test_a_redis_that_has_answered_is_waited_for_as_long_as_a_command_may_take():
    assert answered_policy().next_delay(AWAY, tries=40, elapsed=9.0, jitter=1.0) == 0.5
    assert answered_policy().next_delay(AWAY, tries=41, elapsed=9.6, jitter=1.0) is None


def test_one_that_never_answered_has_three_tries():
    rests = [RetryPolicy(10.0).next_delay(AWAY, tries=tries, elapsed=0.1, jitter=1.0) for tries in (1, 2, 3)]
    assert rests == [0.05, 0.1, None]


def test_rests_grow_to_half_a_second_and_a_random_part_of_them_is_taken():
    rests = [answered_policy().next_delay(AWAY, tries=tries, elapsed=0.0, jitter=1.0) for tries in range(1, 7)]
    assert rests == [0.05, 0.1, 0.2, 0.4, 0.5, 0.5]
    assert answered_policy().next_delay(AWAY, tries=3, elapsed=0.0, jitter=0.5) == 0.1
    drawn = {answered_policy().next_delay(AWAY, tries=5, elapsed=0.0) for _ in range(20)}
    assert len(drawn) > 1
    assert all(rest is not None and 0 <= rest <= 0.5 for rest in drawn)


def test_a_thousand_tries_do_not_overflow():
    assert answered_policy(1e9).next_delay(AWAY, tries=10_000, elapsed=5000.0, jitter=1.0) == 0.5


def test_silence_gets_one_more_try_at_once_as_the_connection_may_be_what_died():
    for patience in (answered_policy(), RetryPolicy(10.0)):
        assert patience.next_delay(SILENT, tries=1, elapsed=10.0) == 0.0
        assert patience.next_delay(SILENT, tries=2, elapsed=20.0) is None


def test_a_caller_with_less_time_is_heard_sooner():
    assert answered_policy().next_delay(AWAY, tries=5, elapsed=1.0, timeout=2.0, jitter=1.0) == 0.5
    assert answered_policy().next_delay(AWAY, tries=5, elapsed=1.8, timeout=2.0, jitter=1.0) is None
    assert answered_policy().next_delay(SILENT, tries=1, elapsed=10.0, timeout=2.0) is None
    assert answered_policy().next_delay(AWAY, tries=50, elapsed=10.5, timeout=60.0, jitter=1.0) is None


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
    assert answered_policy().next_delay(error, tries=10, elapsed=5.0, jitter=1.0) == 0.5


@pytest.mark.parametrize(
    "error",
    [
        READ_ONLY,
        exceptions.ResponseError("@user_script:1: -READONLY You can't write against a read only replica."),
    ],
)
def test_a_replica_has_a_few_tries_as_it_may_have_been_the_primary(error: exceptions.RedisError):
    assert answered_policy().next_delay(error, tries=2, elapsed=0.1, jitter=1.0) == 0.1
    assert answered_policy().next_delay(error, tries=3, elapsed=0.2) is None


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
    assert answered_policy().next_delay(error, tries=1, elapsed=0.0) is None
