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

from headrace.envelope import Job, encode
from headrace.outcome import Failure
from headrace_worker.claim import MOST_ATTEMPTS, Opened, open_claim

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def frame(job: str = "a", **options: Any) -> bytes:
    return encode(Job(id=job, model="churn", instances=[{"secret": "Xyzzy"}], **options))


def tried(message: bytes, *causes: str) -> bytes:
    return b"\x01" + "".join(f"{cause},owner/1,1700000000000;" for cause in causes).encode() + b"\n" + message


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


def places(opened: Opened) -> list[str]:
    return [
        *["job"] * len(opened.jobs),
        *["ended"] * len(opened.ended),
        *["malformed"] * len(opened.malformed),
        *["early"] * len(opened.early),
    ]


def only(frames: Sequence[bytes]) -> Failure:
    opened = open_claim(frames, NOW)
    assert places(opened) == ["ended"]
    [failure] = opened.ended
    assert isinstance(failure, Failure)
    return failure


def test_jobs_are_read_in_their_order():
    assert [job.id for job in open_claim([frame("a"), frame("b"), frame("c")], NOW).jobs] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x00",
        b"\x01",
        b"\x01crash,owner,1;",
        b"\x01crash,owner,1;\n",
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
    opened = open_claim([frame("a"), garbage, frame("b")], NOW)
    assert [job.id for job in opened.jobs] == ["a", "b"]
    assert opened.malformed == [garbage]


@given(st.lists(st.binary() | st.binary().map(lambda tail: b"\x01" + tail) | st.just(frame()), max_size=8))
def test_every_message_is_in_one_place(frames: list[bytes]):
    assert len(places(open_claim(frames, NOW))) == len(frames)


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
    opened = open_claim([delayed], NOW)
    assert opened.early == [(int(NOW.timestamp() * 1000) + 1500, delayed)]


def test_a_job_that_was_tried_waits_with_its_attempts():
    delayed = tried(frame(eta=NOW + timedelta(hours=1)), "crash")
    assert [kept for _, kept in open_claim([delayed], NOW).early] == [delayed]


@pytest.mark.parametrize("eta", [NOW, NOW - timedelta(days=1)])
def test_a_job_whose_time_has_come_runs(eta: datetime):
    assert places(open_claim([frame(eta=eta)], NOW)) == ["job"]


def test_the_end_of_time_is_a_time():
    opened = open_claim([message(["churn", [1]], eta="9999-12-31T23:59:59.999999-14:00")], NOW)
    assert places(opened) == ["early"]


def test_celery_s_moments_without_a_zone_are_utc():
    assert places(open_claim([message(["churn", [1]], eta="2030-01-01T00:00:01")], NOW)) == ["early"]
    assert places(open_claim([message(["churn", [1]], eta="2029-12-31T23:59:59")], NOW)) == ["job"]


def test_a_job_is_tried_until_its_attempts_are_used_up():
    assert places(open_claim([tried(frame(), *["crash"] * (MOST_ATTEMPTS - 1))], NOW)) == ["job"]
    failure = only([tried(frame(), *["crash"] * (MOST_ATTEMPTS - 1), "timeout")])
    assert failure.reason == "crash"
    assert "3 times (crash, crash, timeout)" in failure.message
