"""A job runs again while that may help, and is given up only for what it did itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import BrokerUnavailable, InvalidInput, ModelError, TransientError
from headrace.wire.attempts import Attempt
from headrace_worker.execution.retry import GiveUp, Retry, decide_retry, retry_cause
from headrace_worker.manifest import Limits


def tried(*runs: tuple[str, int] | str) -> list[Attempt]:
    """Attempts by their causes, alone unless said otherwise."""
    pairs = [(run, 1) if isinstance(run, str) else run for run in runs]
    return [Attempt(cause=cause, owner="me/1", at_ms=1, claim_size=company) for cause, company in pairs]


class Unreachable(TransientError):
    pass


class Throttled(RuntimeError):
    pass


class MoreThrottled(Throttled):
    pass


# --- which errors pass -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        TransientError("the feature store is away"),
        Unreachable(),
        ConnectionError(),
        ConnectionResetError(),
        BrokenPipeError(),
        TimeoutError(),
        BrokerUnavailable(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_a_connection_is_transient(error: BaseException):
    assert retry_cause(error, Limits()) == f"error:{type(error).__name__}"


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        OSError(28, "No space left on device"),
        MemoryError(),
        SystemExit(1),
        InvalidInput("bad"),
        ModelError("bad"),
        Throttled(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_other_error_is_permanent(error: BaseException):
    assert retry_cause(error, Limits()) is None


@pytest.mark.parametrize("name", ["Throttled", f"{__name__}.Throttled", "RuntimeError", "builtins.RuntimeError"])
@pytest.mark.parametrize("error", [Throttled(), MoreThrottled()], ids=["itself", "derived"])
def test_a_model_can_name_further_exceptions(name: str, error: BaseException):
    assert retry_cause(error, Limits(retry_on=("another.Error", name))) == f"error:{type(error).__name__}"
    assert retry_cause(ValueError(), Limits(retry_on=(name,))) is None


@pytest.mark.parametrize("error", [InvalidInput("bad"), MemoryError()])
def test_bad_input_and_want_of_memory_are_permanent_whatever_is_named(error: BaseException):
    assert retry_cause(error, Limits(retry_on=("Exception", "ValueError", "MemoryError"))) is None


def test_what_caused_an_error_does_not_make_it_transient():
    error = ValueError()
    error.__cause__ = ConnectionError()
    assert retry_cause(error, Limits()) is None


def test_time_that_is_up_is_told_from_an_error():
    assert retry_cause(SoftTimeLimitExceeded(), Limits()) == "timeout"


@pytest.mark.parametrize("name", ["", "a b", "a.", ".a", "1a", "a;b", "a-b"])
def test_a_name_that_no_class_can_have_is_refused(name: str):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"retry_on": [name]}, Limits)


@pytest.mark.parametrize(
    "limits",
    [{"max_attempts": 0}, {"retry_delay": -1}, {"retry_delay_max": -0.5}],
    ids=lambda one: next(iter(one)),
)
def test_a_limit_that_makes_no_sense_is_refused(limits: dict[str, Any]):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(limits, Limits)


# --- again, or not -----------------------------------------------------------------------------------

ERROR = "error:ConnectionError"


@pytest.mark.parametrize(
    ("attempts", "decision"),
    [
        (tried(), "again"),
        (tried(ERROR), "again"),
        (tried(ERROR, ERROR), "again"),
        (tried(ERROR, ERROR, ERROR), "attempts exhausted"),
        (tried((ERROR, 9), (ERROR, 9), (ERROR, 9)), "attempts exhausted"),
        (tried(("crash", 9), "crash"), "again"),
        (tried("crash", "crash", "crash"), "crash"),
        (tried(("crash", 9), "crash", "lease_expired"), "crash"),
        (tried("crash", "crash", ERROR), "attempts exhausted"),
        (tried(*[("crash", 9)] * 5), "again"),
        (tried(*[("lease_expired", 9)] * 5, "lease_expired"), "crash"),
        (tried("timeout"), "timeout"),
        (tried(("timeout", 2)), "again"),
        (tried(*[("timeout", 2)] * 5), "again"),
        (tried(("timeout", 2), "timeout"), "timeout"),
        (tried(("timeout", 2), "crash", ERROR), "attempts exhausted"),
        (tried("crash", "crash", "crash", ("replay", 0)), "again"),
        (tried("crash", "crash", ("replay", 0), "crash", "crash"), "again"),
        (tried("timeout", ("replay", 0), "crash"), "again"),
        (tried(ERROR, ERROR, ERROR, ("replay", 0), ERROR, ERROR, ERROR), "attempts exhausted"),
    ],
    ids=lambda one: ",".join(f"{run.cause}/{run.claim_size}" for run in one) if isinstance(one, list) else one,
)
def test_three_runs_of_its_own_are_what_a_job_has(attempts: list[Attempt], decision: str):
    got = decide_retry(attempts, Limits(), 0.5)
    assert (got.reason if isinstance(got, GiveUp) else "again") == decision


@pytest.mark.parametrize("most", [1, 2, 7])
def test_a_model_can_allow_more_runs_or_fewer(most: int):
    limits = Limits(max_attempts=most)
    assert decide_retry(tried(*[ERROR] * most), limits, 0.5) == GiveUp("attempts exhausted")
    assert isinstance(decide_retry(tried(*[ERROR] * (most - 1)), limits, 0.5), Retry)


_CAUSES = st.sampled_from(["crash", "lease_expired", "timeout", ERROR, "replay"])


@given(st.lists(st.tuples(_CAUSES, st.integers(2, 9))), st.integers(1, 4))
def test_no_job_is_given_up_for_what_another_may_have_done(runs: list[tuple[str, int]], most: int):
    shared = tried(*runs, ("crash", 2))
    assert decide_retry(shared, Limits(max_attempts=most), 0.5) == Retry(0.0)


@given(st.lists(_CAUSES), st.integers(1, 9))
def test_every_job_that_runs_alone_comes_to_an_end(causes: list[str], most: int):
    alone = tried(*causes, *["crash"] * most)
    assert isinstance(decide_retry(alone, Limits(max_attempts=most), 0.5), GiveUp)


# --- when --------------------------------------------------------------------------------------------


def test_delays_double_up_to_the_longest():
    limits = Limits(max_attempts=9, retry_delay=0.5, retry_delay_max=3)
    delays = [decide_retry(tried(*[ERROR] * runs), limits, 1.0) for runs in range(1, 7)]
    assert delays == [Retry(0.5), Retry(1), Retry(2), Retry(3), Retry(3), Retry(3)]


@given(st.integers(1, 5000), st.floats(0, 1), st.floats(0, 1e9), st.floats(0, 1e9))
def test_a_delay_is_anything_from_nothing_to_the_longest(runs: int, chance: float, first: float, longest: float):
    limits = Limits(max_attempts=10_000, retry_delay=first, retry_delay_max=longest)
    got = decide_retry(tried(*[ERROR] * runs), limits, chance)
    assert isinstance(got, Retry)
    assert 0 <= got.after <= longest


def test_what_was_lost_runs_again_at_once():
    assert decide_retry(tried("crash"), Limits(), 1.0) == Retry(0.0)
    assert decide_retry(tried(("timeout", 3)), Limits(), 1.0) == Retry(0.0)
