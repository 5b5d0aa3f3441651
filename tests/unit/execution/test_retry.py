"""A job is retried while that may help, and is given up only for its own runs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import BrokerUnavailable, InvalidInput, ModelError, TransientError
from headrace.wire.attempts import Attempt
from headrace_worker.execution.retry import GiveUp, Retry, decide_retry
from headrace_worker.failures import find_retry_cause
from headrace_worker.manifest import Limits


def attempts_of(*runs: tuple[str, int] | str) -> list[Attempt]:
    """Return attempts with these causes, each in a claim of one job or of the number in the pair."""
    pairs = [(run, 1) if isinstance(run, str) else run for run in runs]
    return [Attempt(cause=cause, owner="me/1", at_ms=1, claim_size=claim_size) for cause, claim_size in pairs]


class Unreachable(TransientError):
    pass


class Throttled(RuntimeError):
    pass


class MoreThrottled(Throttled):
    pass


# --- which errors are retried ---


@pytest.mark.parametrize(
    "error",
    [
        TransientError("the feature store is unreachable"),
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
    assert find_retry_cause(error, Limits()) == f"error:{type(error).__name__}"


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
    assert find_retry_cause(error, Limits()) is None


@pytest.mark.parametrize("name", ["Throttled", f"{__name__}.Throttled", "RuntimeError", "builtins.RuntimeError"])
@pytest.mark.parametrize("error", [Throttled(), MoreThrottled()], ids=["itself", "derived"])
def test_a_model_can_name_further_exceptions(name: str, error: BaseException):
    assert find_retry_cause(error, Limits(retry_on=("another.Error", name))) == f"error:{type(error).__name__}"
    assert find_retry_cause(ValueError(), Limits(retry_on=(name,))) is None


@pytest.mark.parametrize("error", [InvalidInput("bad"), MemoryError()])
def test_invalid_input_and_memory_errors_are_permanent_even_if_retry_on_names_them(error: BaseException):
    assert find_retry_cause(error, Limits(retry_on=("Exception", "ValueError", "MemoryError"))) is None


def test_a_transient_cause_does_not_make_an_error_transient():
    error = ValueError()
    error.__cause__ = ConnectionError()
    assert find_retry_cause(error, Limits()) is None


def test_a_soft_time_limit_is_an_attempt_of_its_own_cause():
    assert find_retry_cause(SoftTimeLimitExceeded(), Limits()) == "timeout"


@pytest.mark.parametrize("name", ["", "a b", "a.", ".a", "1a", "a;b", "a-b"])
def test_a_name_that_no_class_can_have_is_refused(name: str):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"retry_on": [name]}, Limits)


@pytest.mark.parametrize(
    "limits",
    [{"max_attempts": 0}, {"retry_delay": -1}, {"retry_delay_max": -0.5}],
    ids=lambda limits: next(iter(limits)),
)
def test_a_limit_out_of_its_range_is_refused(limits: dict[str, Any]):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(limits, Limits)


# --- retried, or given up ---

ERROR = "error:ConnectionError"


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        (attempts_of(), "retry"),
        (attempts_of(ERROR), "retry"),
        (attempts_of(ERROR, ERROR), "retry"),
        (attempts_of(ERROR, ERROR, ERROR), "attempts exhausted"),
        (attempts_of((ERROR, 9), (ERROR, 9), (ERROR, 9)), "attempts exhausted"),
        (attempts_of(("crash", 9), "crash"), "retry"),
        (attempts_of("crash", "crash", "crash"), "crash"),
        (attempts_of(("crash", 9), "crash", "lease_expired"), "crash"),
        (attempts_of("crash", "crash", ERROR), "attempts exhausted"),
        (attempts_of(*[("crash", 9)] * 5), "retry"),
        (attempts_of(*[("lease_expired", 9)] * 5, "lease_expired"), "crash"),
        (attempts_of("timeout"), "timeout"),
        (attempts_of(("timeout", 2)), "retry"),
        (attempts_of(*[("timeout", 2)] * 5), "retry"),
        (attempts_of(("timeout", 2), "timeout"), "timeout"),
        (attempts_of(("timeout", 2), "crash", ERROR), "attempts exhausted"),
        (attempts_of("crash", "crash", "crash", ("replay", 0)), "retry"),
        (attempts_of("crash", "crash", ("replay", 0), "crash", "crash"), "retry"),
        (attempts_of("timeout", ("replay", 0), "crash"), "retry"),
        (attempts_of(ERROR, ERROR, ERROR, ("replay", 0), ERROR, ERROR, ERROR), "attempts exhausted"),
    ],
    ids=lambda value: (
        ",".join(f"{run.cause}/{run.claim_size}" for run in value) if isinstance(value, list) else value
    ),
)
def test_a_job_has_three_runs_of_its_own(attempts: list[Attempt], expected: str):
    decision = decide_retry(attempts, Limits(), 0.5)
    assert (decision.reason if isinstance(decision, GiveUp) else "retry") == expected


@pytest.mark.parametrize("max_attempts", [1, 2, 7])
def test_a_models_limits_can_allow_more_runs_or_fewer(max_attempts: int):
    limits = Limits(max_attempts=max_attempts)
    assert decide_retry(attempts_of(*[ERROR] * max_attempts), limits, 0.5) == GiveUp("attempts exhausted")
    assert isinstance(decide_retry(attempts_of(*[ERROR] * (max_attempts - 1)), limits, 0.5), Retry)


_CAUSES = st.sampled_from(["crash", "lease_expired", "timeout", ERROR, "replay"])


@given(st.lists(st.tuples(_CAUSES, st.integers(2, 9))), st.integers(1, 4))
def test_no_job_is_given_up_for_a_run_that_another_may_have_ended(runs: list[tuple[str, int]], max_attempts: int):
    shared = attempts_of(*runs, ("crash", 2))
    assert decide_retry(shared, Limits(max_attempts=max_attempts), 0.5) == Retry(0.0)


@given(st.lists(_CAUSES), st.integers(1, 9))
def test_every_job_that_runs_alone_is_given_up_in_the_end(causes: list[str], max_attempts: int):
    alone = attempts_of(*causes, *["crash"] * max_attempts)
    assert isinstance(decide_retry(alone, Limits(max_attempts=max_attempts), 0.5), GiveUp)


# --- the delay ---


def test_delays_double_up_to_the_longest():
    limits = Limits(max_attempts=9, retry_delay=0.5, retry_delay_max=3)
    delays = [decide_retry(attempts_of(*[ERROR] * runs), limits, 1.0) for runs in range(1, 7)]
    assert delays == [Retry(0.5), Retry(1), Retry(2), Retry(3), Retry(3), Retry(3)]


@given(st.integers(1, 5000), st.floats(0, 1), st.floats(0, 1e9), st.floats(0, 1e9))
def test_a_delay_is_between_zero_and_the_longest(runs: int, chance: float, first: float, longest: float):
    limits = Limits(max_attempts=10_000, retry_delay=first, retry_delay_max=longest)
    decision = decide_retry(attempts_of(*[ERROR] * runs), limits, chance)
    assert isinstance(decision, Retry)
    assert 0 <= decision.after <= longest


def test_a_lost_job_runs_again_at_once():
    assert decide_retry(attempts_of("crash"), Limits(), 1.0) == Retry(0.0)
    assert decide_retry(attempts_of(("timeout", 3)), Limits(), 1.0) == Retry(0.0)
