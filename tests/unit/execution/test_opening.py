"""A claim is opened: every message goes to one place, and none can stop the others."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.wire.attempts import Attempt, encode_queued_message
from headrace.wire.message import Job, encode_message
from headrace.wire.outcome import Failure
from headrace_worker.execution.opening import ParsedClaim, open_claim
from headrace_worker.manifest import Limits

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def frame(job: str = "a", **options: Any) -> bytes:
    return encode_message(Job(id=job, model="churn", instances=[{"secret": "Xyzzy"}], **options))


def tried(message: bytes, *causes: str, company: int = 1) -> bytes:
    attempts = [
        Attempt(cause=cause, owner="owner/1", at_ms=1_700_000_000_000, claim_size=company) for cause in causes
    ]
    return encode_queued_message(attempts, message)


def opened(frames: Sequence[bytes], limits: Limits | None = None) -> ParsedClaim:
    return open_claim(frames, "predict.churn", NOW, lambda job: limits or Limits())


def message(args: Any, kwargs: Any = None, **headers: Any) -> bytes:
    """A message as any Celery client may write it."""
    body = json.dumps([args, kwargs or {}, None]).encode()
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "headers": {"id": "a", "task": "headrace.predict", **headers},
            "properties": {"body_encoding": "base64"},
        }
    ).encode()


def places(claim: ParsedClaim) -> list[str]:
    return [
        *["job"] * len(claim.jobs),
        *["ended"] * len(claim.finished),
        *["malformed"] * len(claim.malformed),
        *["early"] * len(claim.not_due),
    ]


def only(frames: Sequence[bytes], limits: Limits | None = None) -> Failure:
    claim = opened(frames, limits)
    assert places(claim) == ["ended"]
    [result] = claim.finished
    assert encode_queued_message(result.claimed.attempts, result.claimed.message) == frames[0]
    assert isinstance(result.value, Failure)
    return result.value


def test_jobs_are_read_in_their_order_and_keep_their_messages_and_attempts():
    claim = opened([frame("a"), tried(frame("b"), "crash"), frame("c")])
    assert [claimed.job.id for claimed in claim.jobs] == ["a", "b", "c"]
    assert [claimed.message for claimed in claim.jobs] == [frame("a"), frame("b"), frame("c")]
    assert [[attempt.cause for attempt in claimed.attempts] for claimed in claim.jobs] == [[], ["crash"], []]


def test_a_job_has_the_reply_channel_of_the_client_that_waits():
    channel = "0123456789abcdef" * 2
    waited_for, not_waited_for = opened([frame("a", reply_to=channel), frame("b")]).jobs
    assert (waited_for.reply_channel, not_waited_for.reply_channel) == (channel, None)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x00",
        b"\x01",
        b"\x01crash,owner,1;",
        b"\x01crash,owner,1;\n",
        b"\x01crash,owner,1,1;\n",
        b"\x01crash,owner,1,1;\n\x01crash,owner,1,1;\n" + frame(),
        b"\x01\xff\xfe;\ngarbage",
        b"\xff\xfe\xfd",
        b"null",
        b"[]",
        b"{}",
        b'{"body": 1, "headers": {}, "properties": {}}',
        b'{"body": "%%%", "headers": {"id": "a", "task": "headrace.predict"}, "properties": {}}',
        frame()[:-1],
        frame() + b"}",
        frame().replace(b"headrace.predict", b"another.task"),
        message([], id=None),
        message([], id=""),
        message([], id=7),
        b"[" * 1_000_000,
    ],
)
def test_what_is_no_job_is_kept_whole_and_stops_no_other(garbage: bytes):
    claim = opened([frame("a"), garbage, frame("b")])
    assert [claimed.job.id for claimed in claim.jobs] == ["a", "b"]
    [malformed] = claim.malformed
    assert encode_queued_message(malformed.attempts, malformed.message) == garbage


@given(st.lists(st.binary() | st.binary().map(lambda tail: b"\x01" + tail) | st.just(frame()), max_size=8))
def test_every_message_is_in_one_place(frames: list[bytes]):
    assert len(places(opened(frames))) == len(frames)


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
def test_wrong_arguments_are_the_outcome_of_their_job_and_are_not_repeated(args: Any, kwargs: Any):
    failure = only([message(args, kwargs)])
    assert (failure.job, failure.reason) == ("a", "bad input")
    assert failure.message.startswith(("a job's arguments are", "a job's options are"))
    assert "Xyzzy" not in failure.message


@pytest.mark.parametrize("header", ["eta", "expires"])
@pytest.mark.parametrize("moment", ["tomorrow", "2030-13-01", ""])
def test_a_moment_that_is_none_is_bad_input(header: str, moment: str):
    assert only([message(["churn", [1]], **{header: moment})]).reason == "bad input"


def test_a_job_whose_time_has_not_come_waits_whole():
    delayed = frame(eta=NOW + timedelta(seconds=1.5))
    [(milliseconds, kept)] = opened([delayed]).not_due
    assert kept == delayed
    assert 1500 <= milliseconds <= 1501


def test_a_job_that_was_tried_waits_with_its_attempts():
    delayed = tried(frame(eta=NOW + timedelta(hours=1)), "crash")
    assert [kept for _, kept in opened([delayed]).not_due] == [delayed]


@pytest.mark.parametrize("eta", [NOW, NOW - timedelta(days=1)])
def test_a_job_whose_time_has_come_runs(eta: datetime):
    assert places(opened([frame(eta=eta)])) == ["job"]


def test_the_end_of_time_is_a_time():
    claim = opened([message(["churn", [1]], eta="9999-12-31T23:59:59.999999-14:00")])
    assert places(claim) == ["early"]


def test_celery_s_moments_without_a_zone_are_utc():
    assert places(opened([message(["churn", [1]], eta="2030-01-01T00:00:01")])) == ["early"]
    assert places(opened([message(["churn", [1]], eta="2029-12-31T23:59:59")])) == ["job"]


# --- tried before --------------------------------------------------------------------------------------


def test_a_job_is_tried_until_its_attempts_are_used_up():
    assert places(opened([tried(frame(), "crash", "lease_expired")])) == ["job"]
    failure = only([tried(frame(), "crash", "lease_expired", "crash")])
    assert (failure.reason, failure.error) == ("crash", "WorkerLostError")
    assert "3 times (crash, lease_expired, crash)" in failure.message


def test_a_job_that_took_too_long_alone_is_given_up_and_one_in_company_is_not():
    failure = only([tried(frame(), "timeout")])
    assert (failure.reason, failure.error) == ("timeout", "TimeLimitExceeded")
    assert places(opened([tried(frame(), *["timeout"] * 9, company=2)])) == ["job"]


def test_a_job_in_wait_when_its_model_s_attempts_were_lowered_is_given_up():
    failure = only([tried(frame(), "error:Throttled", "error:Throttled")], Limits(max_attempts=1))
    assert (failure.reason, failure.error) == ("attempts exhausted", "Throttled")
    assert "2 times" in failure.message


def test_the_limits_are_those_of_the_job_s_model():
    def limits_of(job: Job) -> Limits:
        return Limits(max_attempts=1 if job.id == "a" else 9)

    crashed = [tried(frame(name), "crash") for name in ("a", "b")]
    claim = open_claim(crashed, "predict.churn", NOW, limits_of)
    assert [claimed.job.id for claimed in claim.jobs] == ["b"]
    assert [result.claimed.job.id for result in claim.finished] == ["a"]


def test_nobody_is_asked_for_the_limits_of_a_job_that_runs_for_the_first_time():
    def limits_of(job: Job) -> Limits:
        raise AssertionError

    assert places(open_claim([frame()], "predict.churn", NOW, limits_of)) == ["job"]


@pytest.mark.parametrize(
    ("args", "model"), [(["churn"], "churn"), (["Xyzzy"], ""), ([], ""), ([["churn"]], ""), ([{"a": 1}], "")]
)
def test_only_a_name_that_is_known_is_taken_out_of_wrong_arguments(args: Any, model: str):
    [result] = opened([message(args)]).finished
    assert result.claimed.job.model == model
