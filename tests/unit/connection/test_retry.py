"""A command is repeated while Redis is away, for a bounded time."""

from __future__ import annotations

import pytest
from redis import exceptions

from headrace.connection.cluster_errors import SlotMoved
from headrace.connection.retry import RetryPolicy, try_seconds

REFUSED = exceptions.ConnectionError("Error 111 connecting to 127.0.0.1:6379. Connection refused.")
TIMED_OUT = exceptions.TimeoutError("Timeout reading from socket")
READ_ONLY = exceptions.ReadOnlyError("You can't write against a read only replica.")


def answered_policy() -> RetryPolicy:
    """Return the retry policy of a Redis that has answered before."""
    policy = RetryPolicy()
    policy.succeeded()
    return policy


def test_a_command_to_a_redis_that_has_answered_is_repeated_until_its_time_has_passed():
    assert answered_policy().next_delay(REFUSED, tries=40, remaining=1.0, jitter=1.0) == 0.5
    assert answered_policy().next_delay(REFUSED, tries=41, remaining=0.4, jitter=1.0) is None


def test_a_redis_that_never_answered_gets_three_tries():
    delays = [RetryPolicy().next_delay(REFUSED, tries=tries, remaining=9.9, jitter=1.0) for tries in (1, 2, 3)]
    assert delays == [0.05, 0.1, None]


@pytest.mark.parametrize("text", ["a:1 answered TRYAGAIN x", "a:1 answered READONLY x"])
def test_a_slot_that_moves_is_waited_for_as_a_node_has_answered(text: str):
    policy = RetryPolicy()
    delays = [policy.next_delay(SlotMoved(text), tries=tries, remaining=5, jitter=1.0) for tries in range(1, 40)]
    assert None not in delays
    assert policy.next_delay(SlotMoved(text), tries=40, remaining=0.01, jitter=1.0) is None


def test_delays_grow_to_half_a_second_and_are_multiplied_by_a_random_number():
    delays = [
        answered_policy().next_delay(REFUSED, tries=tries, remaining=10.0, jitter=1.0) for tries in range(1, 7)
    ]
    assert delays == [0.05, 0.1, 0.2, 0.4, 0.5, 0.5]
    assert answered_policy().next_delay(REFUSED, tries=3, remaining=10.0, jitter=0.5) == 0.1
    random_delays = {answered_policy().next_delay(REFUSED, tries=5, remaining=10.0) for _ in range(20)}
    assert len(random_delays) > 1
    assert all(delay is not None and 0 <= delay <= 0.5 for delay in random_delays)


def test_a_thousand_tries_do_not_overflow():
    assert answered_policy().next_delay(REFUSED, tries=10_000, remaining=5000.0, jitter=1.0) == 0.5


def test_after_a_timeout_there_is_one_more_try_at_once_over_another_connection():
    for policy in (answered_policy(), RetryPolicy()):
        assert policy.next_delay(TIMED_OUT, tries=1, remaining=5.0) == 0.0
        assert policy.next_delay(TIMED_OUT, tries=2, remaining=5.0) is None
        assert policy.next_delay(TIMED_OUT, tries=1, remaining=0.0) is None


def test_the_first_try_leaves_time_for_another_unless_the_command_blocks():
    assert try_seconds(10.0, tries=0, blocks=False) == 5.0
    assert try_seconds(5.0, tries=1, blocks=False) == 5.0
    assert try_seconds(10.0, tries=0, blocks=True) == 10.0


@pytest.mark.parametrize(
    "error",
    [
        REFUSED,
        exceptions.BusyLoadingError("Redis is loading the dataset in memory"),
        exceptions.MasterDownError("Link with MASTER is down"),
        exceptions.ClusterDownError("The cluster is down"),
        exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."),
        exceptions.ResponseError("BUSY Redis is busy running a script. You can only call SCRIPT KILL."),
    ],
)
def test_a_transient_error_is_retried(error: exceptions.RedisError):
    assert answered_policy().next_delay(error, tries=10, remaining=5.0, jitter=1.0) == 0.5


@pytest.mark.parametrize(
    "error",
    [
        READ_ONLY,
        exceptions.ResponseError("@user_script:1: -READONLY You can't write against a read only replica."),
    ],
)
def test_a_replica_gets_a_few_tries_as_it_may_have_been_the_primary(error: exceptions.RedisError):
    assert answered_policy().next_delay(error, tries=2, remaining=9.9, jitter=1.0) == 0.1
    assert answered_policy().next_delay(error, tries=3, remaining=9.8) is None


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
def test_other_errors_are_raised_at_once(error: exceptions.RedisError):
    assert answered_policy().next_delay(error, tries=1, remaining=10.0) is None
