"""Each job of a claim gets an outcome, with a dead letter if it failed, or is requeued with its history."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from headrace.errors import InvalidInput, ModelError, StoreUnavailable, TransientError, UnknownModel
from headrace.wire.attempts import REQUEUED, Attempt, decode_delayed, decode_queued_message
from headrace.wire.dead_letter import DeadLetter, malformed_letter_id
from headrace.wire.message import Job, encode_message
from headrace.wire.outcome import Expired, Failure, Outcome, Prediction, Success
from headrace.wire.parsing import MalformedMessage
from headrace.wire.queues import FIRST_RETRIED_SOURCE, ISOLATED_SOURCE
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


class Claim:
    """A claim whose jobs have run, with the results that a test adds."""

    def __init__(self, registry: Registry, *, chance: float = 0.5) -> None:
        self._registry = registry
        self._results: list[JobResult] = []
        self._decider = OutcomeDecider(
            queue="predict.obedient", owner="host/1/ab", worker="w@host", now_ms=NOW_MS, chance=lambda: chance
        )

    def add(self, job: Job, result: Outcome | NotRunnableHere | BaseException, *earlier: Attempt) -> Claim:
        claimed = claimed_job(job, *earlier)
        value: Outcome | NotRunnableHere | FailedRun
        if isinstance(result, BaseException):
            admitted = admit(claimed, self._registry, datetime.fromtimestamp(NOW_MS / 1000, UTC))
            assert isinstance(admitted, Admitted)
            value = FailedRun(admitted, result)
        else:
            value = result
        self._results.append(JobResult(claimed, value))
        return self

    def decide(self) -> ClaimDecisions:
        self._decider.add_results(self._results)
        return self._decider.decisions


def attempt(cause: str, claim_size: int = 1) -> Attempt:
    return Attempt(cause=cause, owner="other/1", at_ms=1, claim_size=claim_size)


def only_letter(decisions: ClaimDecisions) -> DeadLetter:
    [(letter, _)] = decisions.letters
    return letter


def test_a_success_is_an_outcome_and_nothing_else(registry: Registry):
    decisions = Claim(registry).add(job("a"), success("a")).add(job("b"), Expired(job="b")).decide()
    assert decisions.outcomes == {"a": success("a"), "b": Expired(job="b")}
    assert decisions == ClaimDecisions(outcomes=decisions.outcomes)


def test_a_permanent_error_is_a_failure_with_a_letter(registry: Registry):
    failed = job("a", version="1", metadata={"shop": "7"})
    error = ValueError("it was Xyzzy")
    decisions = Claim(registry).add(failed, error).add(job("b"), success("b")).decide()
    failure = decisions.outcomes["a"]
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.error) == ("permanent", "ValueError")
    [(letter, message)] = decisions.letters
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
        runs=1,
        metadata={"shop": "7"},
    )
    assert b"Xyzzy" not in letter.encode()
    [failed_run] = decisions.model_errors
    assert (type(failed_run.error), failed_run.admitted.claimed.job.id) == (ValueError, "a")
    assert decisions.delayed == decisions.retried == []


def test_a_letter_names_the_version_that_ran(registry: Registry):
    assert only_letter(Claim(registry).add(job("a"), ValueError()).decide()).version == "1"


def test_a_letter_counts_the_runs_since_the_last_replay(registry: Registry):
    earlier = (attempt("crash"), attempt("replay"), attempt("error:OSError"), attempt(REQUEUED))
    assert only_letter(Claim(registry).add(job("a"), ValueError("no"), *earlier).decide()).runs == 2
    assert only_letter(Claim(registry).add(job("a"), ValueError("no")).decide()).runs == 1
    # Given up by its last run, which is among the attempts of the letter.
    transient = TransientError("away")
    attempts = [attempt("error:TransientError") for _ in range(30)]
    assert only_letter(Claim(registry).add(job("a"), transient, *attempts).decide()).runs == 31
    # Never admitted: nothing ran.
    failure = Failure(job="a", reason="bad input", error="InvalidInput", module="headrace.errors", message="no")
    assert only_letter(Claim(registry).add(job("a"), failure).decide()).runs == 0


def test_invalid_input_that_the_model_detects_is_not_an_error_of_the_model(registry: Registry):
    decisions = Claim(registry).add(job("a"), InvalidInput("instance 0 has no age")).decide()
    assert only_letter(decisions).reason == "bad input"
    assert decisions.model_errors == []


def test_a_job_that_was_not_admitted_has_a_letter_with_the_version_it_named(registry: Registry):
    failure = Failure(
        job="a", reason="unknown model", error="UnknownModel", module="headrace.errors", message="no"
    )
    letter = only_letter(Claim(registry).add(job("a", version="9"), failure).decide())
    assert (letter.reason, letter.version) == ("unknown model", "9")


def test_a_transient_error_returns_the_job_to_its_queue_with_an_attempt(registry: Registry):
    claim = Claim(registry, chance=0.25).add(job("a"), TransientError("unreachable")).add(job("b"), success("b"))
    decisions = claim.decide()
    assert list(decisions.outcomes) == ["b"]
    assert decisions.letters == decisions.model_errors == []
    [(milliseconds, member)] = decisions.delayed
    source, queued_message = decode_delayed(member)
    assert (milliseconds, source) == (250, FIRST_RETRIED_SOURCE)
    assert decode_queued_message(queued_message) == (
        (Attempt(cause="error:TransientError", owner="host/1/ab", at_ms=NOW_MS, claim_size=2, version="1"),),
        encode_message(job("a")),
    )
    assert [(run.admitted.claimed.job.id, str(run.error)) for run in decisions.retried] == [("a", "unreachable")]


def test_a_job_that_this_worker_cannot_run_is_requeued_soon_and_without_a_counted_attempt(registry: Registry):
    claim = Claim(registry, chance=1.0).add(job("a"), NotRunnableHere(UnknownModel("no version '9'")))
    decisions = claim.decide()
    assert decisions.outcomes == {}
    [(milliseconds, member)] = decisions.delayed
    source, queued_message = decode_delayed(member)
    assert (milliseconds, source) == (100, FIRST_RETRIED_SOURCE)
    [requeue] = decode_queued_message(queued_message)[0]
    assert (requeue.cause, requeue.claim_size, requeue.version) == (REQUEUED, 0, None)


@pytest.mark.parametrize(("seconds", "is_requeued"), [(31, True), (599, True), (601, False)])
def test_a_job_whose_version_another_worker_has_waits_for_that_one(
    registry: Registry, seconds: int, is_requeued: bool
):
    first = Attempt(cause=REQUEUED, owner="other/1/ab", at_ms=NOW_MS - 1000 * seconds, claim_size=0)
    requeues = [first] * 12  # the delays have grown to the longest
    error = ModelError("the runtime tree needs a library")
    decisions = Claim(registry, chance=1.0).add(job("a"), NotRunnableHere(error, True), *requeues).decide()
    assert bool(decisions.outcomes) is not is_requeued
    assert [milliseconds <= 1000 for milliseconds, _ in decisions.delayed] == [True] * is_requeued


@pytest.mark.parametrize(
    ("error", "seconds", "reason"),
    [
        (UnknownModel("no version '9'"), 31, "unknown model"),
        (ModelError("the runtime tree needs a library"), 31, "permanent"),
        (StoreUnavailable("the store is unreachable"), 601, "attempts exhausted"),
    ],
)
def test_a_job_that_no_worker_can_run_is_a_failure_with_the_reason(
    registry: Registry, error: Exception, seconds: int, reason: str
):
    first = Attempt(cause=REQUEUED, owner="other/1/ab", at_ms=NOW_MS - 1000 * seconds, claim_size=0)
    decisions = Claim(registry).add(job("a"), NotRunnableHere(error), first).decide()
    failure = decisions.outcomes["a"]
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.error) == (reason, type(error).__name__)
    assert failure.message == f"{error}; no worker could run the job in the time it waited for one"
    [(letter, message)] = decisions.letters
    assert ([attempt.cause for attempt in letter.attempts], message) == (
        [REQUEUED, REQUEUED],
        encode_message(job("a")),
    )


def test_a_job_given_up_by_its_last_run_has_the_error_of_that_run(registry: Registry):
    earlier = [attempt("error:TimeoutError"), attempt("crash")]
    decisions = Claim(registry).add(job("a"), ConnectionResetError("by peer"), *earlier).decide()
    failure = decisions.outcomes["a"]
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.error, failure.message) == (
        "attempts exhausted",
        "ConnectionResetError",
        "by peer",
    )
    assert failure.traceback is not None
    [(letter, message)] = decisions.letters
    assert message == encode_message(job("a"))
    assert [attempt.cause for attempt in letter.attempts] == [
        "error:TimeoutError",
        "crash",
        "error:ConnectionResetError",
    ]
    assert len(decisions.model_errors) == 1
    assert decisions.delayed == []


def test_after_a_time_limit_of_several_jobs_all_run_again_at_once(registry: Registry):
    time_up = SoftTimeLimitExceeded()
    decisions = Claim(registry).add(job("a"), time_up).add(job("b"), time_up, attempt("timeout", 9)).decide()
    assert decisions.outcomes == {}
    for milliseconds, member in decisions.delayed:
        source, queued_message = decode_delayed(member)
        attempts, _ = decode_queued_message(queued_message)
        assert (milliseconds, source) == (0, ISOLATED_SOURCE)
        assert (attempts[-1].cause, attempts[-1].claim_size) == ("timeout", 2)


def test_a_time_limit_of_a_single_job_is_its_failure(registry: Registry):
    decisions = Claim(registry).add(job("a"), SoftTimeLimitExceeded()).decide()
    assert only_letter(decisions).reason == "timeout"
    assert decisions.outcomes["a"].reason == "timeout"  # type: ignore[union-attr]  # a failure


def test_the_first_of_two_outcomes_of_one_id_counts_and_has_the_letter(registry: Registry):
    decisions = Claim(registry).add(job("a"), success("a")).add(job("a"), ValueError()).decide()
    assert decisions.outcomes == {"a": success("a")}
    assert decisions.letters == []
    decisions = Claim(registry).add(job("a"), ValueError("1")).add(job("a"), KeyError("2")).decide()
    assert only_letter(decisions).error == "ValueError"


@pytest.mark.parametrize("history", [[], [attempt("lease_expired")]])
def test_a_malformed_message_is_a_letter_without_an_outcome(history: list[Attempt]):
    decider = OutcomeDecider(queue="predict.churn", owner="o", worker="w@host", now_ms=NOW_MS, chance=lambda: 0.5)
    decider.add_malformed([MalformedEntry(b"\x00\xff", tuple(history), MalformedMessage("no Celery message"))])
    [(letter, message)] = decider.decisions.letters
    assert message == b"\x00\xff"
    assert letter.id == malformed_letter_id(b"\x00\xff")
    assert (letter.reason, letter.error, letter.model, letter.instances) == (
        "malformed",
        "MalformedMessage",
        None,
        None,
    )
    assert list(letter.attempts) == history
    assert decider.decisions.outcomes == {}


def test_the_limits_of_a_jobs_model_apply(registry: Registry, monkeypatch: pytest.MonkeyPatch):
    model = registry.get("obedient")
    limits = Limits(max_attempts=1, retry_on=("KeyError",))
    monkeypatch.setattr(model, "manifest", msgspec.structs.replace(model.manifest, limits=limits))
    assert only_letter(Claim(registry).add(job("a"), KeyError()).decide()).reason == "attempts exhausted"
    assert only_letter(Claim(registry).add(job("a"), ValueError()).decide()).reason == "permanent"
