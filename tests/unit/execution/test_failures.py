"""A failure describes its exception without a value of the job, and no exception can break a claim."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.errors import InvalidInput, ModelError, UnknownModel
from headrace.wire.attempts import Attempt
from headrace.wire.message import Instance, Job
from headrace.wire.outcome import Failure, encode_outcome
from headrace_worker.failures import make_failure, make_failure_from_attempts
from headrace_worker.redaction import PLACEHOLDER, redact


def failed(error: BaseException, *instances: Instance) -> Failure:
    return make_failure(error, Job(id="a", model="churn", instances=list(instances)))


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except type(error) as caught:
        return caught


def stored(failure: Failure) -> str:
    return encode_outcome(failure, datetime.now(UTC)).decode()


# --- the failure of an exception ---


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UnknownModel("no model 'chrun'"), "unknown model"),
        (InvalidInput("churn@1: instance 0 has no 'age'"), "bad input"),
        (ModelError("the model gave 2 predictions for 3 instances"), "permanent"),
        (SoftTimeLimitExceeded(), "timeout"),
        (ValueError("no"), "permanent"),
        (MemoryError(), "permanent"),
        (SystemExit(3), "permanent"),
    ],
)
def test_the_reason_follows_from_the_class_of_the_error(error: BaseException, reason: str):
    assert failed(error).reason == reason


def test_headraces_own_message_is_kept_unchanged_and_has_no_traceback():
    failure = failed(InvalidInput("churn@1: instance 0: 'age' is a string, must be a number"), {"age": "string"})
    assert failure.message == "churn@1: instance 0: 'age' is a string, must be a number"
    assert failure.traceback is None


def test_a_traceback_shows_the_frames_of_an_error_and_of_its_cause_but_no_message():
    failure = failed(raised(RuntimeError("outer words"), raised(KeyError("inner words"))))
    assert failure.traceback is not None
    assert failure.traceback.index("KeyError") < failure.traceback.index("RuntimeError")
    assert "in raised" in failure.traceback
    assert "inner words" not in failure.traceback
    assert "outer words" not in failure.traceback


def test_the_traceback_of_errors_that_cause_each_other_is_finite():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert failed(first).traceback is not None


def test_an_error_whose_message_cannot_be_read_is_a_failure():
    class Unreadable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no message")

    failure = failed(Unreadable())
    assert (failure.error, failure.message) == ("Unreadable", "(its message cannot be read)")


def test_a_message_that_json_cannot_hold_is_stored_replaced():
    assert json.loads(stored(failed(ValueError("cut off: \ud83d"))))["status"] == "FAILURE"


def test_the_start_of_a_huge_message_is_kept():
    failure = failed(ValueError("the beginning " + "and so on " * 1_000_000))
    assert failure.message.startswith("the beginning and so on")
    assert failure.message.endswith(" ...")
    assert len(failure.message) <= 2_004


@pytest.mark.parametrize("before", range(1_980, 2_005))
def test_a_value_that_is_cut_at_the_end_of_a_message_is_removed_too(before: int):
    failure = failed(ValueError("x" * (before - 1) + " Rumpelstiltskin " + "y" * 100), "Rumpelstiltskin")
    assert "Rum" not in failure.message


@pytest.mark.parametrize(
    ("causes", "reason", "error", "message"),
    [
        (["crash", "lease_expired"], "crash", "WorkerLostError", "2 times (crash, lease_expired)"),
        (["crash", "replay", "crash"], "crash", "WorkerLostError", "once (crash)"),
        (["timeout"], "timeout", "TimeLimitExceeded", "exceeded its time limit"),
        (["crash", "error:Throttled"], "attempts exhausted", "Throttled", "2 times (crash, error:Throttled)"),
    ],
)
def test_a_job_given_up_for_its_attempts_lists_them(causes: list[str], reason: Any, error: str, message: str):
    attempts = [Attempt(cause=cause, owner="me/1", at_ms=1, claim_size=1) for cause in causes]
    failure = make_failure_from_attempts(Job(id="a", model="churn", instances=[]), attempts, reason)
    assert (failure.job, failure.reason, failure.error) == ("a", reason, error)
    assert message in failure.message


# --- redaction ---

_WORDS = st.text("abcdefghijklmnopqrstuvwxyzäöüéßñøπж", min_size=5, max_size=12).map(lambda word: f"q{word}q")
_TEXTS = st.lists(_WORDS, min_size=1, max_size=3).map(" ".join) | st.from_regex(
    r"[A-Z]{2}[0-9]{6}", fullmatch=True
)

_QUOTED_TEXTS: list[Callable[[Any], str]] = [
    str,
    repr,
    ascii,
    json.dumps,
    lambda value: repr(value.encode()),
    lambda value: f"could not convert string to float: {value!r}",
    lambda value: f"Found unknown categories {np.array([value], dtype=object)} in column 0 during transform",
    lambda value: f"Found unknown categories [{np.str_(value)!r}] in column 0",
    lambda value: str(KeyError(value)),
    lambda value: f"column plan_{value}",
    lambda value: f"id:{value},",
    lambda value: f"{value[:-2]}... is too long",
    lambda value: value.upper(),
    lambda value: str({"plan": value, "rows": [value, (value,)]}),
    lambda value: "<b>" + value + "</b>" + value,
    lambda value: value.replace(" ", "\n"),
]

_QUOTED_NUMBERS: list[Callable[[Any], str]] = [
    str,
    repr,
    lambda value: f"{value:.2f}",
    lambda value: f"{value:.6g}",
    lambda value: f"{value:.3e}",
    lambda value: f"{value:,}",
    lambda value: f"{value:+.1f}",
    lambda value: f"{value:012.3f}",
    lambda value: str(int(value)),
    lambda value: f"size{value}",
    lambda value: f"Input X contains {np.float64(value)!r}",
    lambda value: str(np.array([value, value])),
    lambda value: str(np.float32(value)),
    lambda value: str([value, value]).replace(" ", ""),
    lambda value: f"{float(value).hex()}",
]


def _instances_with(value: Any) -> list[list[Instance]]:
    return [
        [{"plan": value, "age": 3}],
        [[1.5, value]],
        [[[value]], "other"],
        [value],
        [{"deep": {"er": [value]}}],
    ]


@given(_TEXTS, st.sampled_from(_QUOTED_TEXTS), st.integers(0, 4))
@example("Zoë Ångström", ascii, 0)
@example("AB123456", _QUOTED_TEXTS[-2], 1)
def test_no_failure_holds_a_text_of_an_instance(value: str, quote: Callable[[Any], str], holder: int):
    error = raised(ValueError(f"it was {quote(value)} here"), raised(TypeError(quote(value))))
    text = stored(failed(error, *_instances_with(value)[holder]))
    assert PLACEHOLDER in text
    message = json.loads(text)["result"]["exc_message"][0]
    for word in value.casefold().split():
        assert word not in text.casefold()
        assert word[:4] not in message.casefold()


@given(
    st.floats(1_000, 1e12) | st.floats(-1e12, -1_000) | st.integers(1_000, 10**12),
    st.sampled_from(_QUOTED_NUMBERS),
    st.integers(0, 4),
)
def test_no_failure_holds_a_number_of_an_instance(value: float, quote: Callable[[Any], str], holder: int):
    message = failed(ValueError(f"it was {quote(value)} here"), *_instances_with(value)[holder]).message
    assert message.startswith("it was ")
    assert message.endswith(" here")
    digits = sum(map(str.isdigit, message.replace("float64", "").replace("float32", "")))
    assert digits == 0, message


@pytest.mark.parametrize(
    ("message", "instance", "expected"),
    [
        (
            "could not convert string to float: 'Ann'",
            {"name": "Ann"},
            f"could not convert string to float: '{PLACEHOLDER}'",
        ),
        ("sex is M, not F", {"sex": "M"}, f"sex is {PLACEHOLDER}, not F"),
        ("age 0.25 or .25 or 25e-2", [0.25], f"age {PLACEHOLDER} or {PLACEHOLDER} or {PLACEHOLDER}"),
        ("in half precision 41.53125", [41.537], f"in half precision {PLACEHOLDER}"),
        ("3 is not 7", [3, 0.1], f"{PLACEHOLDER} is not 7"),
        ("nothing in Ann Lee but Ann.", "ann lee", f"nothing in {PLACEHOLDER} but {PLACEHOLDER}."),
        ("what is -- or 😀", ["--", "😀"], f"what is {PLACEHOLDER} or {PLACEHOLDER}"),
        ("card ends in 1111", "4111 1111 1111 1111", f"card ends in {PLACEHOLDER}"),
        ("row 9999999999999999999", [1], f"row {PLACEHOLDER}"),
        ("[41, 42, 43]", [41, 42, 43], f"[{PLACEHOLDER}]"),
    ],
)
def test_values_are_replaced_one_by_one(message: str, instance: Instance, expected: str):
    assert redact(message, [instance]) == expected


@pytest.mark.parametrize(
    "message",
    [
        "X has 5 features, but LogisticRegression is expecting 4 features as input.",
        "operands could not be broadcast together with shapes (1,5) (4,)",
        "Found unknown categories in column 0 during transform",
        "column 'age' of DataFrame",
    ],
)
def test_words_that_no_instance_holds_are_kept(message: str):
    assert redact(message, [{"age": 41.5, "plan": "gold", "member": True, "since": None}]) == message


def test_instances_of_any_depth_and_size_are_searched():
    deep: Any = "Rumpelstiltskin"
    for _ in range(100_000):
        deep = [deep]
    assert redact("Rumpelstiltskin", [deep, 10**400, float("nan"), float("inf")]) == PLACEHOLDER
