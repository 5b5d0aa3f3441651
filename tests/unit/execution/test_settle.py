"""Everything of a claim goes to one place: an outcome, a letter beside it, or back with its history."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from headrace.errors import InvalidInput, ModelError, StoreUnavailable, TransientError, UnknownModel
from headrace.wire.attempts import REQUEUED, Attempt, decode_queued_message
from headrace.wire.dead_letter import DeadLetter, malformed_letter_id
from headrace.wire.message import Job, encode_message
from headrace.wire.outcome import Expired, Failure, Outcome, Prediction, Success
from headrace.wire.parsing import MalformedMessage
from headrace_worker.execution.batching import admit
from headrace_worker.execution.claimed_job import Admitted, FailedRun, JobResult, NotRunnableHere
from headrace_worker.execution.opening import MalformedEntry
from headrace_worker.execution.settle import ClaimDecisions, OutcomeDecider
from headrace_worker.manifest import Limits
from headrace_worker.models.registry import Registry
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store
from tests.support import hostile_models
from tests.support.claim_reports import claimed_job

NOW_MS = 1_900_000_000_000


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    store = Store(tmp_path_factory.mktemp("store") / "models")
    hostile_models.add(store)
    registry = Registry(store, WorkerSettings(trust_pickle=True))
    assert not registry.preload()
    return registry


def job(name: str, **options: Any) -> Job:
    return Job(id=name, model="obedient", instances=[hostile_models.instance(secret="Xyzzy")], **options)


def success(name: str) -> Success:
    return Success(job=name, prediction=Prediction(model="obedient", version="1", predictions=[2]))


class Settling:
    """A claim whose jobs were run, with the results a test wants."""

    def __init__(self, registry: Registry, *, chance: float = 0.5) -> None:
        self._registry = registry
        self._results: list[JobResult] = []
        self._settler = OutcomeDecider(
            queue="predict.obedient", owner="host/1/ab", worker="w@host", now_ms=NOW_MS, chance=lambda: chance
        )

    def add(self, one: Job, result: Outcome | NotRunnableHere | BaseException, *before: Attempt) -> Settling:
        claimed = claimed_job(one, *before)
        value: Outcome | NotRunnableHere | FailedRun
        if isinstance(result, BaseException):
            admitted = admit(claimed, self._registry, datetime.fromtimestamp(NOW_MS / 1000, UTC))
            assert isinstance(admitted, Admitted)
            value = FailedRun(admitted, result)
        else:
            value = result
        self._results.append(JobResult(claimed, value))
        return self

    def settled(self) -> ClaimDecisions:
        self._settler.add_results(self._results)
        return self._settler.decisions


def attempt(cause: str, company: int = 1) -> Attempt:
    return Attempt(cause=cause, owner="other/1", at_ms=1, claim_size=company)


def only_letter(settled: ClaimDecisions) -> DeadLetter:
    [(letter, _)] = settled.letters
    return letter


def test_what_ended_well_is_an_outcome_and_nothing_else(registry: Registry):
    settled = Settling(registry).add(job("a"), success("a")).add(job("b"), Expired(job="b")).settled()
    assert settled.outcomes == {"a": success("a"), "b": Expired(job="b")}
    assert settled == ClaimDecisions(outcomes=settled.outcomes)


def test_a_permanent_error_is_a_failure_with_a_letter(registry: Registry):
    failed = job("a", version="1", metadata={"shop": "7"})
    error = ValueError("it was Xyzzy")
    settled = Settling(registry).add(failed, error).add(job("b"), success("b")).settled()
    failure = settled.outcomes["a"]
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.error) == ("permanent", "ValueError")
    [(letter, message)] = settled.letters
    assert message == encode_message(failed)
    assert letter == DeadLetter(
        id="a",
        model="obedient",
        version="1",
        queue="predict.obedient",
        reason="permanent",
        error="ValueError",
        module="builtins",
        message=failure.message,
        traceback=failure.traceback,
        instances=1,
        worker="w@host",
        metadata={"shop": "7"},
    )
    assert b"Xyzzy" not in letter.encode()
    [failed_run] = settled.model_errors
    assert (type(failed_run.error), failed_run.admitted.claimed.job.id) == (ValueError, "a")
    assert settled.delayed == settled.retried == []


def test_a_letter_tells_the_version_that_ran(registry: Registry):
    assert only_letter(Settling(registry).add(job("a"), ValueError()).settled()).version == "1"


def test_bad_input_found_by_the_model_is_no_error_of_the_model(registry: Registry):
    settled = Settling(registry).add(job("a"), InvalidInput("instance 0 has no age")).settled()
    assert only_letter(settled).reason == "bad input"
    assert settled.model_errors == []


def test_a_job_that_was_not_admitted_is_a_letter_with_what_it_asked_for(registry: Registry):
    failure = Failure(
        job="a", reason="unknown model", error="UnknownModel", module="headrace.errors", message="no"
    )
    letter = only_letter(Settling(registry).add(job("a", version="9"), failure).settled())
    assert (letter.reason, letter.version) == ("unknown model", "9")


def test_a_transient_error_sends_the_job_back_with_its_attempt(registry: Registry):
    settling = Settling(registry, chance=0.25).add(job("a"), TransientError("away")).add(job("b"), success("b"))
    settled = settling.settled()
    assert list(settled.outcomes) == ["b"]
    assert settled.letters == settled.model_errors == []
    [(milliseconds, frame)] = settled.delayed
    assert milliseconds == 250
    assert decode_queued_message(frame) == (
        (Attempt(cause="error:TransientError", owner="host/1/ab", at_ms=NOW_MS, claim_size=2, version="1"),),
        encode_message(job("a")),
    )
    assert [(run.admitted.claimed.job.id, str(run.error)) for run in settled.retried] == [("a", "away")]


def test_a_job_this_worker_cannot_run_goes_back_uncounted_and_soon(registry: Registry):
    settling = Settling(registry, chance=1.0).add(job("a"), NotRunnableHere(UnknownModel("no version '9'")))
    settled = settling.settled()
    assert settled.outcomes == {}
    [(milliseconds, frame)] = settled.delayed
    assert milliseconds == 100
    [one] = decode_queued_message(frame)[0]
    assert (one.cause, one.claim_size, one.version) == (REQUEUED, 0, None)


@pytest.mark.parametrize(
    ("error", "seconds", "reason"),
    [
        (UnknownModel("no version '9'"), 31, "unknown model"),
        (ModelError("the runtime tree needs a library"), 31, "permanent"),
        (StoreUnavailable("the store is away"), 601, "attempts exhausted"),
    ],
)
def test_a_job_that_no_worker_can_run_is_a_failure_that_says_what_was_missing(
    registry: Registry, error: Exception, seconds: int, reason: str
):
    first = Attempt(cause=REQUEUED, owner="other/1/ab", at_ms=NOW_MS - 1000 * seconds, claim_size=0)
    settled = Settling(registry).add(job("a"), NotRunnableHere(error), first).settled()
    failure = settled.outcomes["a"]
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.error) == (reason, type(error).__name__)
    assert failure.message == f"{error}; no worker could run the job in the time it waited for one"
    [(kept, message)] = settled.letters
    assert ([one.cause for one in kept.attempts], message) == ([REQUEUED, REQUEUED], encode_message(job("a")))


def test_the_last_attempt_tells_its_own_error(registry: Registry):
    before = [attempt("error:TimeoutError"), attempt("crash")]
    settled = Settling(registry).add(job("a"), ConnectionResetError("by peer"), *before).settled()
    failure = settled.outcomes["a"]
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.error, failure.message) == (
        "attempts exhausted",
        "ConnectionResetError",
        "by peer",
    )
    assert failure.traceback is not None
    [(letter, message)] = settled.letters
    assert message == encode_message(job("a"))
    assert [one.cause for one in letter.attempts] == ["error:TimeoutError", "crash", "error:ConnectionResetError"]
    assert len(settled.model_errors) == 1
    assert settled.delayed == []


def test_when_time_is_up_for_several_all_run_again_at_once(registry: Registry):
    time_up = SoftTimeLimitExceeded()
    settled = Settling(registry).add(job("a"), time_up).add(job("b"), time_up, attempt("timeout", 9)).settled()
    assert settled.outcomes == {}
    for milliseconds, frame in settled.delayed:
        attempts, _ = decode_queued_message(frame)
        assert milliseconds == 0
        assert (attempts[-1].cause, attempts[-1].claim_size) == ("timeout", 2)


def test_when_time_is_up_for_one_alone_it_is_a_failure(registry: Registry):
    settled = Settling(registry).add(job("a"), SoftTimeLimitExceeded()).settled()
    assert only_letter(settled).reason == "timeout"
    assert settled.outcomes["a"].reason == "timeout"  # type: ignore[union-attr]  # a failure


def test_of_two_outcomes_of_one_id_the_first_counts_and_has_the_letter(registry: Registry):
    settled = Settling(registry).add(job("a"), success("a")).add(job("a"), ValueError()).settled()
    assert settled.outcomes == {"a": success("a")}
    assert settled.letters == []
    settled = Settling(registry).add(job("a"), ValueError("1")).add(job("a"), KeyError("2")).settled()
    assert only_letter(settled).error == "ValueError"


@pytest.mark.parametrize("history", [[], [attempt("lease_expired")]])
def test_bytes_that_are_no_job_are_a_letter_without_an_outcome(history: list[Attempt]):
    settler = OutcomeDecider(queue="predict.churn", owner="o", worker="w@host", now_ms=NOW_MS, chance=lambda: 0.5)
    settler.add_malformed([MalformedEntry(b"\x00\xff", tuple(history), MalformedMessage("no Celery message"))])
    [(letter, message)] = settler.decisions.letters
    assert message == b"\x00\xff"
    assert letter.id == malformed_letter_id(b"\x00\xff")
    assert (letter.reason, letter.error, letter.model, letter.instances) == (
        "malformed",
        "MalformedMessage",
        None,
        None,
    )
    assert list(letter.attempts) == history
    assert settler.decisions.outcomes == {}


def test_a_model_s_own_limits_decide(registry: Registry, monkeypatch: pytest.MonkeyPatch):
    model = registry.get("obedient")
    limits = Limits(max_attempts=1, retry_on=("KeyError",))
    monkeypatch.setattr(model, "manifest", msgspec.structs.replace(model.manifest, limits=limits))
    assert only_letter(Settling(registry).add(job("a"), KeyError()).settled()).reason == "attempts exhausted"
    assert only_letter(Settling(registry).add(job("a"), ValueError()).settled()).reason == "permanent"
