"""Every message of a claim is sorted into one list, and no message can stop the others."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.wire.attempts import Attempt, decode_delayed, encode_queued_message
from headrace.wire.limits import JobLimits
from headrace.wire.message import Job, encode_message
from headrace.wire.outcome import Failure
from headrace.wire.queues import FIRST_RETRIED_SOURCE, FIRST_SOURCE, ISOLATED_SOURCE
from headrace_worker.execution import opening
from headrace_worker.execution.opening import ParsedClaim, open_claim, open_exhausted
from headrace_worker.manifest import Limits
from headrace_worker.transport.claims import Claim, Lease

NOW = datetime(2030, 1, 1, tzinfo=UTC)
#: The index in `Keys.sources` of the retried jobs of priority 0.
RETRIED = FIRST_RETRIED_SOURCE


def message(job: str = "a", **options: Any) -> bytes:
    return encode_message(Job(id=job, model="churn", instances=[{"secret": "Xyzzy"}], **options))


def with_history(message: bytes, *causes: str, claim_size: int = 1) -> bytes:
    attempts = [
        Attempt(cause=cause, owner="owner/1", at_ms=1_700_000_000_000, claim_size=claim_size) for cause in causes
    ]
    return encode_queued_message(attempts, message)


def claim_of(queued_messages: Sequence[bytes], source: int = RETRIED) -> Claim:
    origins = ((source, len(queued_messages)),)
    return Claim(lease=Lease(name="me/1", queue="predict.churn", origins=origins), queued_messages=queued_messages)


def parsed(queued_messages: Sequence[bytes], limits: Limits | None = None) -> ParsedClaim:
    """Open a claim of jobs that run again."""
    return open_claim(claim_of(queued_messages), NOW, lambda model, version: limits or Limits())


def celery_message(args: Any, kwargs: Any = None, **headers: Any) -> bytes:
    """A message as any Celery client may write it."""
    body = json.dumps([args, kwargs or {}, None]).encode()
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "headers": {"id": "a", "task": "headrace.predict", **headers},
            "properties": {"body_encoding": "base64"},
        }
    ).encode()


def kinds(claim: ParsedClaim) -> list[str]:
    return [
        *["job"] * len(claim.jobs),
        *["finished"] * len(claim.finished),
        *["malformed"] * len(claim.malformed),
        *["not due"] * len(claim.not_due),
    ]


def the_only_failure(queued_messages: Sequence[bytes], limits: Limits | None = None) -> Failure:
    claim = parsed(queued_messages, limits)
    assert kinds(claim) == ["finished"]
    [result] = claim.finished
    assert encode_queued_message(result.claimed.attempts, result.claimed.message) == queued_messages[0]
    assert isinstance(result.value, Failure)
    return result.value


def test_jobs_are_read_in_their_order_and_keep_their_messages_and_attempts():
    claim = parsed([message("a"), with_history(message("b"), "crash"), message("c")])
    assert [claimed.job.id for claimed in claim.jobs] == ["a", "b", "c"]
    assert [claimed.message for claimed in claim.jobs] == [message("a"), message("b"), message("c")]
    assert [[attempt.cause for attempt in claimed.attempts] for claimed in claim.jobs] == [[], ["crash"], []]


def test_a_job_has_the_reply_channel_of_the_client_that_waits():
    channel = "0123456789abcdef" * 2
    waited_for, not_waited_for = parsed([message("a", reply_to=channel), message("b")]).jobs
    assert (waited_for.reply_channel, not_waited_for.reply_channel) == (channel, None)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x00",
        b"\x01",
        b"\x01crash,owner,1,1",
        b"\x01crash,owner,1,1\n",
        b"\x01crash,owner,1,1\n\n",
        b"\x01\xff\xfe;\ngarbage",
        b"\xff\xfe\xfd",
        b"null",
        b"[]",
        b"{}",
        b'{"body": 1, "headers": {}, "properties": {}}',
        celery_message([], id=None),
        celery_message([], id=""),
        celery_message([], id=7),
        b"[" * 1_000_000,
    ],
)
def test_a_malformed_message_is_kept_whole_and_stops_no_other(garbage: bytes):
    claim = parsed([message("a"), garbage, message("b")])
    assert [claimed.job.id for claimed in claim.jobs] == ["a", "b"]
    [malformed] = claim.malformed
    assert encode_queued_message(malformed.attempts, malformed.message) == garbage


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (b"\x01crash,owner,1,1;\n\x01crash,owner,1,1;\n" + message(), "cannot be read as JSON"),
        (b'{"body": "%%%", "headers": {"id": "a", "task": "headrace.predict"}, "properties": {}}', "base64"),
        (message()[:-1], "cannot be read as JSON"),
        (message() + b"}", "cannot be read as JSON"),
        (message().replace(b"headrace.predict", b"another.task"), "name of the task is 'another.task'"),
    ],
)
def test_a_broken_message_whose_id_can_be_read_is_the_failure_of_that_job(broken: bytes, words: str):
    claim = parsed([message("b"), broken])
    assert [claimed.job.id for claimed in claim.jobs] == ["b"]
    [result] = claim.finished
    assert isinstance(result.value, Failure)
    assert (result.value.job, result.value.reason) == ("a", "bad input")
    assert words in result.value.message


@pytest.mark.parametrize("model", ["churn2", "churn2@1", "other"])
def test_a_job_that_names_another_model_than_that_of_its_queue_is_refused(model: str):
    failure = the_only_failure([celery_message([model, [[1]]])])
    assert failure.reason == "bad input"
    name = model.partition("@")[0]
    assert f"names the model {name!r}, and was sent to the queue predict.churn; send it to predict.{name}" in (
        failure.message
    )


def test_a_job_may_name_a_version_of_the_model_of_its_queue():
    [claimed] = parsed([celery_message(["churn@3", [[1]]])]).jobs
    assert (claimed.job.model, claimed.job.version) == ("churn", "3")


def test_the_claim_knows_the_jobs_whose_predictions_are_not_stored():
    claim = parsed([celery_message(["churn", [[1]]], ignore_result=True), message("b")])
    assert claim.without_result == {"a"}


def test_a_message_beyond_the_limits_is_refused_before_it_is_decoded():
    large = message("b") + b" " * 1_500_000
    claim = open_claim(
        claim_of([message("a"), large]),
        NOW,
        lambda model, version: Limits(),
        job_limits=JobLimits(1_000_000),
    )
    assert [claimed.job.id for claimed in claim.jobs] == ["a"]
    [result] = claim.finished
    assert isinstance(result.value, Failure)
    assert (result.value.job, result.value.reason) == ("b", "bad input")
    assert "HEADRACE_MAX_JOB_BYTES" in result.value.message


@given(st.lists(st.binary() | st.binary().map(lambda tail: b"\x01" + tail) | st.just(message()), max_size=8))
def test_every_message_is_in_one_list(queued_messages: list[bytes]):
    assert len(kinds(parsed(queued_messages))) == len(queued_messages)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ([], {}),
        (["churn"], {}),
        (["churn", [1], 3], {}),
        ([["Xyzzy"], "churn"], {}),
        (["churn", {"secret": "Xyzzy"}], {}),
        (["churn", "Xyzzy"], {}),
        ([None, None], {}),
        (["churn", [1]], {"version": 3}),
        (["churn", [1]], {"verison": "3"}),
        (["churn", [1]], {"metadata": {"a": 1}}),
        (["churn", [1]], {"metadata": "Xyzzy"}),
    ],
)
def test_wrong_arguments_are_the_outcome_of_their_job_and_are_not_quoted(args: Any, kwargs: Any):
    failure = the_only_failure([celery_message(args, kwargs)])
    assert (failure.job, failure.reason) == ("a", "bad input")
    assert failure.message.startswith(("a job's arguments are", "a job's options are"))
    assert "Xyzzy" not in failure.message


@pytest.mark.parametrize("header", ["eta", "expires"])
@pytest.mark.parametrize("moment", ["tomorrow", "2030-13-01", ""])
def test_an_invalid_time_is_bad_input(header: str, moment: str):
    assert the_only_failure([celery_message(["churn", [1]], **{header: moment})]).reason == "bad input"


def test_a_job_that_is_not_due_waits_unchanged():
    delayed = message(eta=NOW + timedelta(seconds=1.5))
    [(_, milliseconds, member)] = parsed([delayed]).not_due
    assert decode_delayed(member) == (FIRST_SOURCE, delayed)
    assert 1500 <= milliseconds <= 1501


def test_a_job_that_was_tried_waits_with_its_history():
    delayed = with_history(message(eta=NOW + timedelta(hours=1)), "crash")
    [(_, _, member)] = parsed([delayed]).not_due
    assert decode_delayed(member) == (ISOLATED_SOURCE, delayed)


@pytest.mark.parametrize("eta", [NOW, NOW - timedelta(days=1)])
def test_a_job_that_is_due_runs(eta: datetime):
    assert kinds(parsed([message(eta=eta)])) == ["job"]


def test_the_latest_time_is_valid():
    claim = parsed([celery_message(["churn", [1]], eta="9999-12-31T23:59:59.999999-14:00")])
    assert kinds(claim) == ["not due"]


def test_celerys_times_without_a_zone_are_utc():
    assert kinds(parsed([celery_message(["churn", [1]], eta="2030-01-01T00:00:01")])) == ["not due"]
    assert kinds(parsed([celery_message(["churn", [1]], eta="2029-12-31T23:59:59")])) == ["job"]


# --- jobs with earlier attempts ---


def test_a_job_is_tried_until_its_attempts_are_used_up():
    assert kinds(parsed([with_history(message(), "crash", "lease_expired")])) == ["job"]
    failure = the_only_failure([with_history(message(), "crash", "lease_expired", "crash")])
    assert (failure.reason, failure.error) == ("crash", "WorkerLostError")
    assert "3 times (crash, lease_expired, crash)" in failure.message


def test_a_job_that_timed_out_alone_is_given_up_and_one_that_timed_out_with_others_is_not():
    failure = the_only_failure([with_history(message(), "timeout")])
    assert (failure.reason, failure.error) == ("timeout", "TimeLimitExceeded")
    assert kinds(parsed([with_history(message(), *["timeout"] * 9, claim_size=2)])) == ["job"]


def test_a_waiting_job_is_given_up_when_its_models_max_attempts_is_lowered():
    failure = the_only_failure(
        [with_history(message(), "error:Throttled", "error:Throttled")], Limits(max_attempts=1)
    )
    assert (failure.reason, failure.error) == ("attempts exhausted", "Throttled")
    assert "2 times" in failure.message


def test_the_limits_are_those_of_the_job_s_version():
    def limits_of(model: str, version: str | None) -> Limits:
        assert model == "churn"
        return Limits(max_attempts=1 if version == "1" else 9)

    tried = [with_history(message(version, version=version), "error:Busy") for version in ("1", "2")]
    claim = open_claim(claim_of(tried), NOW, limits_of)
    assert [claimed.job.id for claimed in claim.jobs] == ["2"]
    assert [result.claimed.job.id for result in claim.finished] == ["1"]


def test_the_limits_of_a_job_that_runs_for_the_first_time_are_not_read():
    def limits_of(model: str, version: str | None) -> Limits:
        raise AssertionError

    assert kinds(open_claim(claim_of([message()]), NOW, limits_of)) == ["job"]


@pytest.mark.parametrize(
    ("args", "model"), [(["churn"], "churn"), (["Xyzzy"], ""), ([], ""), ([["churn"]], ""), ([{"a": 1}], "")]
)
def test_wrong_arguments_give_the_model_only_if_it_is_the_queues(args: Any, model: str):
    [result] = parsed([celery_message(args)]).finished
    assert result.claimed.job.model == model


# --- jobs whose attempts are counted before their message is opened ---


@pytest.fixture
def unopenable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make whatever opens a message fail, as one that kills its process while it is decoded."""

    def parse(message: bytes, *_: object, **__: object) -> None:
        raise AssertionError("the message was opened")

    monkeypatch.setattr(opening, "parse", parse)


#: A message whose decoding would take gigabytes, with headers behind it as kombu writes them.
BOMB = b'{"body": "' + b"W10s" * 100_000 + b'", "headers": {"task": "headrace.predict", "id": "bomb"}}'


@pytest.mark.usefixtures("unopenable")
def test_a_message_whose_lost_runs_used_up_its_attempts_is_not_opened():
    failure = the_only_failure([with_history(BOMB, "crash", "crash", "lease_expired")])
    assert (failure.job, failure.reason) == ("bomb", "crash")
    assert "3 times (crash, crash, lease_expired)" in failure.message


@pytest.mark.usefixtures("unopenable")
def test_what_follows_a_job_is_not_read_if_the_run_that_read_it_was_lost_too(monkeypatch: pytest.MonkeyPatch):
    reads: list[bytes] = []
    monkeypatch.setattr(opening, "parse_canvas", lambda message, *_, **__: reads.append(message))
    for runs in (3, 4, 5):
        assert the_only_failure([with_history(BOMB, *["crash"] * runs)]).reason == "crash"
    assert reads == [BOMB]


@pytest.mark.usefixtures("unopenable")
@pytest.mark.parametrize(
    ("causes", "is_given_up"),
    [
        (["crash"] * 3, False),
        (["crash"] * 4, False),
        (["crash"] * 5, True),
        (["timeout", "crash"], False),
        (["timeout", "crash", "crash"], True),
        (["crash", "crash", "replay", "crash", "crash", "crash"], False),
        ([*["crash"] * 5, "replay"], False),
        ([], False),
    ],
)
def test_the_main_process_gives_up_a_job_if_two_processes_that_did_so_were_lost(
    causes: list[str], is_given_up: bool
):
    isolated = claim_of([with_history(BOMB, *causes)], ISOLATED_SOURCE)
    opened = open_exhausted(isolated, NOW, lambda model, version: Limits())
    assert (opened is not None and kinds(opened) == ["finished"]) is is_given_up
    assert open_exhausted(claim_of([with_history(BOMB, *causes)]), NOW, lambda model, version: Limits()) is None


@pytest.mark.usefixtures("unopenable")
def test_a_message_that_is_not_opened_keeps_its_client_and_the_model_of_its_queue():
    channel = "0123456789abcdef" * 2
    message_of_client = message("a", reply_to=channel)
    [result] = parsed([with_history(message_of_client, *["crash"] * 3)]).finished
    assert (result.claimed.reply_channel, result.claimed.job.model) == (channel, "churn")
    assert result.claimed.message == message_of_client


@pytest.mark.usefixtures("unopenable")
@pytest.mark.parametrize(
    "garbage", [b"[" * 100_000, b'{"id": ""}', b'{"id": "' + b"a" * 300 + b'"}', b'{"id": "\xff"}', b""]
)
def test_a_message_that_is_not_opened_and_has_no_valid_id_is_malformed(garbage: bytes):
    [malformed] = parsed([with_history(garbage, *["crash"] * 3)]).malformed
    assert (malformed.message, len(malformed.attempts)) == (garbage, 3)
    assert "its runs were lost (crash, crash, crash)" in str(malformed.error)


@pytest.mark.parametrize("source", range(9))
def test_a_history_counts_only_in_a_list_that_producers_cannot_write(source: int):
    forged = with_history(message(), "crash", "crash", "crash")
    claim = open_claim(claim_of([forged], source), NOW, lambda model, version: Limits())
    if source in {ISOLATED_SOURCE, *range(FIRST_RETRIED_SOURCE, 9)}:
        [result] = claim.finished
        assert isinstance(result.value, Failure)
        assert (result.value.reason, result.claimed.message) == ("crash", message())
    else:
        [result] = claim.finished
        assert isinstance(result.value, Failure)
        assert (result.value.reason, result.claimed.message, result.claimed.attempts) == ("bad input", forged, ())


def test_messages_of_a_claim_from_several_lists_are_told_apart():
    tried = with_history(message("tried"), "error:Busy")
    claim = Claim(
        lease=Lease(name="me/1", queue="predict.churn", origins=((RETRIED, 1), (1, 2))),
        queued_messages=[tried, message("a"), tried],
    )
    opened = open_claim(claim, NOW, lambda model, version: Limits())
    assert [(claimed.job.id, len(claimed.attempts)) for claimed in opened.jobs] == [("tried", 1), ("a", 0)]
    assert [result.claimed.message for result in opened.finished] == [tried]


@pytest.mark.parametrize("job", ["a", None])
def test_an_error_of_ours_in_one_message_stops_no_other(job: str | None, monkeypatch: pytest.MonkeyPatch):
    def fail(message: bytes, *_: Any, **__: Any) -> Any:
        if b"broken" in message:
            raise TypeError("unhashable")
        return parse(message)

    parse = opening.parse
    monkeypatch.setattr(opening, "parse", fail)
    broken = json.dumps({"broken": 1, "headers": {"id": job}} if job else {"broken": 1}).encode()
    claim = open_claim(claim_of([broken, message("b")], FIRST_SOURCE), NOW, lambda *_: Limits())
    assert [claimed.job.id for claimed in claim.jobs] == ["b"]
    assert [result.claimed.job.id for result in claim.finished] == (["a"] if job else [])
    assert [entry.message for entry in claim.malformed] == ([] if job else [broken])
