"""A job's history travels with its message and leaves the message alone."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.wire.attempts import (
    REPLAY,
    REQUEUED,
    Attempt,
    decode_queued_message,
    encode_queued_message,
    find_pinned_version,
    must_run_alone,
    select_counted,
    select_requeues,
)


def attempt(cause: str = "crash", company: int = 1, owner: str = "host/1/ab") -> Attempt:
    return Attempt(cause=cause, owner=owner, at_ms=1_700_000_000_000, claim_size=company)


_WORDS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters=",;"), min_size=1).map(
    lambda text: "_".join(text.split()) or "_"
)
_ATTEMPTS = st.lists(
    st.builds(
        Attempt,
        cause=_WORDS.map(lambda cause: cause.replace("@", "_")),
        owner=_WORDS,
        at_ms=st.integers(0, 10**15 - 1),
        claim_size=st.integers(0, 10**9 - 1),
        version=st.none() | st.integers(1).map(str),
    )
)


@given(_ATTEMPTS, st.binary().filter(lambda message: decode_queued_message(message)[1] == message))
def test_what_was_joined_is_split_again(attempts: list[Attempt], message: bytes):
    assert decode_queued_message(encode_queued_message(attempts, message)) == (tuple(attempts), message)


@given(st.binary() | st.binary().map(lambda rest: b"\x01crash,me,1,1;" + rest))
def test_any_bytes_keep_their_message_to_the_byte(frame: bytes):
    attempts, message = decode_queued_message(frame)
    assert frame.endswith(message)
    assert decode_queued_message(encode_queued_message(attempts, message)) == (attempts, message)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{}",
        b"\x01",
        b"\x01\n{}",
        b"\x01;\n{}",
        b"\x01crash,me,1,1;",
        b"\x01crash,me,1;\n{}",
        b"\x01crash,me,one,1;\n{}",
        b"\x01crash,me,1,1\n{}",
        b"\x01,me,1,1;\n{}",
        b"\x01crash,me,1,1;x\n{}",
        b"\x01crash,me," + b"9" * 5000 + b",1;\n{}",
    ],
)
def test_what_only_looks_like_a_frame_is_a_message(message: bytes):
    assert decode_queued_message(message) == ((), message)


def test_a_history_of_one_is_written_like_this():
    assert (
        encode_queued_message([attempt("error:OSError", 3)], b"{}")
        == b"\x01error:OSError,host/1/ab,1700000000000,3;\n{}"
    )


@pytest.mark.parametrize("name", ["a,b", "a;b", "a\nb", "a\rb", "a\x85b", "\ud800"])
def test_no_name_can_break_the_frame(name: str):
    attempts, message = decode_queued_message(encode_queued_message([attempt(f"error:{name}", owner=name)], b"{}"))
    assert len(attempts) == 1
    assert message == b"{}"


def test_a_message_that_is_a_frame_itself_is_kept_whole():
    inner = encode_queued_message([attempt()], b"{}")
    assert decode_queued_message(encode_queued_message([attempt("lease_expired")], inner)) == (
        (attempt("lease_expired"),),
        inner,
    )


def test_what_lies_before_a_replay_no_longer_counts():
    history = [attempt(), attempt("replay", 0), attempt("lease_expired"), attempt("replay", 0), attempt("timeout")]
    assert select_counted(history) == (attempt("timeout"),)
    assert select_counted(history[:4]) == ()
    assert select_counted(history[:1]) == (attempt(),)


@pytest.mark.parametrize(
    ("causes", "alone"),
    [
        ([], False),
        (["error:OSError", "replay"], False),
        (["crash"], True),
        (["lease_expired", "replay"], True),
        (["timeout", "error:OSError"], True),
    ],
)
def test_a_job_that_was_lost_once_runs_alone(causes: list[str], alone: bool):
    assert must_run_alone([attempt(cause) for cause in causes]) is alone


def test_to_be_given_back_for_another_worker_is_no_attempt():
    given_back = attempt(REQUEUED, company=0)
    attempts = (attempt(), given_back, attempt("error:Busy"), given_back, given_back)
    assert [one.cause for one in select_counted(attempts)] == ["crash", "error:Busy"]
    assert select_requeues(attempts) == (given_back, given_back)
    assert select_requeues((*attempts, attempt(REPLAY, company=0))) == ()


def test_a_job_keeps_the_version_it_ran_on_until_a_person_sends_it_again():
    ran = msgspec.structs.replace(attempt("error:Busy"), version="7")
    assert find_pinned_version((ran, attempt())) == "7"
    assert find_pinned_version(decode_queued_message(encode_queued_message((ran, attempt()), b"{}"))[0]) == "7"
    assert find_pinned_version((ran, attempt(REPLAY, company=0))) is None
    assert find_pinned_version((attempt(),)) is None
