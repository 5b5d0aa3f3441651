"""A job's attempts are stored before its message, which stays unchanged."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.wire.attempts import (
    MAX_ATTEMPTS,
    REPLAY,
    REQUEUED,
    Attempt,
    add_requeue,
    decode_delayed,
    decode_queued_message,
    encode_delayed,
    encode_queued_message,
    find_pinned_version,
    must_run_alone,
    select_counted,
    select_requeues,
    select_source,
)
from headrace.wire.queues import holds_histories


def attempt(cause: str = "crash", claim_size: int = 1, owner: str = "host/1/ab") -> Attempt:
    return Attempt(cause=cause, owner=owner, at_ms=1_700_000_000_000, claim_size=claim_size)


_FIELDS = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters=",\x01"), min_size=1, max_size=40
).map(lambda text: "_".join(text.split()) or "_")
_ATTEMPTS = st.lists(
    st.builds(
        Attempt,
        cause=_FIELDS.map(lambda cause: cause.replace("@", "_")),
        owner=_FIELDS,
        at_ms=st.integers(0, 10**15 - 1),
        claim_size=st.integers(0, 10**9 - 1),
        version=st.none() | st.integers(1).map(str),
    )
)


@given(_ATTEMPTS, st.binary().filter(lambda message: decode_queued_message(message)[1] == message))
def test_an_encoded_queued_message_is_decoded_unchanged(attempts: list[Attempt], message: bytes):
    assert decode_queued_message(encode_queued_message(attempts, message)) == (tuple(attempts), message)


@given(st.binary() | st.binary().map(lambda suffix: b"\x01crash,me,1,1\n" + suffix))
def test_decoding_any_bytes_keeps_the_message_byte_for_byte(queued_message: bytes):
    attempts, message = decode_queued_message(queued_message)
    assert queued_message.endswith(message)
    assert decode_queued_message(encode_queued_message(attempts, message)) == (attempts, message)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{}",
        b"\x01",
        b"\x01\n{}",
        b"\x01\n\n{}",
        b"\x01crash,me,1,1",
        b"\x01crash,me,1,1\n",
        b"\x01crash,me,1,1\n{}",
        b"\x01crash,me,1\n\n{}",
        b"\x01crash,me,one,1\n\n{}",
        b"\x01crash,me,1,1,1\n\n{}",
        b"\x01crash,me,1,1;\n\n{}",
        b"\x01,me,1,1\n\n{}",
        b"\x01crash,me,1,1\n\x01\n{}",
        b"\x01crash,me," + b"9" * 5000 + b",1\n\n{}",
        b"\x01" + b"a" * 5000 + b",me,1,1\n\n{}",
    ],
)
def test_bytes_with_invalid_attempts_are_a_message(message: bytes):
    assert decode_queued_message(message) == ((), message)


def test_the_format_of_an_attempt():
    assert (
        encode_queued_message([attempt("error:OSError", 3), attempt()], b"{}")
        == b"\x01crash,host/1/ab,1700000000000,1\n\x01error:OSError,host/1/ab,1700000000000,3\n\n{}"
    )


@pytest.mark.parametrize("name", ["a,b", "a\x01b", "a\nb", "a\rb", "a\x85b", "\ud800"])
def test_no_name_can_break_the_format(name: str):
    attempts, message = decode_queued_message(encode_queued_message([attempt(f"error:{name}", owner=name)], b"{}"))
    assert len(attempts) == 1
    assert message == b"{}"


def test_a_message_that_looks_like_a_queued_message_is_kept_unchanged():
    inner = encode_queued_message([attempt()], b"{}")
    assert decode_queued_message(encode_queued_message([attempt("lease_expired")], inner)) == (
        (attempt("lease_expired"),),
        inner,
    )


def test_attempts_before_a_replay_do_not_count():
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
def test_a_job_with_a_lost_attempt_must_run_alone(causes: list[str], alone: bool):
    assert must_run_alone([attempt(cause) for cause in causes]) is alone


def test_a_requeue_is_no_attempt():
    requeue = attempt(REQUEUED, claim_size=0)
    attempts = (attempt(), requeue, attempt("error:Busy"), requeue, requeue)
    assert [counted.cause for counted in select_counted(attempts)] == ["crash", "error:Busy"]
    assert select_requeues(attempts) == (requeue, requeue)
    assert select_requeues((*attempts, attempt(REPLAY, claim_size=0))) == ()


def test_a_job_stays_on_its_version_until_it_is_replayed():
    ran = msgspec.structs.replace(attempt("error:Busy"), version="7")
    assert find_pinned_version((ran, attempt())) == "7"
    assert find_pinned_version(decode_queued_message(encode_queued_message((ran, attempt()), b"{}"))[0]) == "7"
    assert find_pinned_version((ran, attempt(REPLAY, claim_size=0))) is None
    assert find_pinned_version((attempt(),)) is None


def test_a_job_that_is_requeued_for_ever_keeps_a_short_history_and_its_first_and_last_requeue():
    attempts: tuple[Attempt, ...] = (attempt("error:Busy"),)
    for number in range(10_000):
        attempts = add_requeue(attempts, Attempt(cause=REQUEUED, owner="o", at_ms=number, claim_size=0))
    assert len(attempts) == 10
    assert select_counted(attempts) == attempts[:1]
    assert [requeue.at_ms for requeue in select_requeues(attempts)] == [0, *range(9_992, 10_000)]


def test_a_requeue_after_another_attempt_starts_anew():
    requeue = attempt(REQUEUED, claim_size=0)
    attempts = (requeue,) * 5 + (attempt("error:Busy"),)
    assert add_requeue(attempts, requeue) == (*attempts, requeue)
    assert add_requeue((), requeue) == (requeue,)


def test_a_history_keeps_a_bounded_number_of_attempts_and_all_that_decides():
    requeue, crash = attempt(REQUEUED, claim_size=0), attempt("crash")
    many = [requeue, requeue, attempt("error:Busy")] * 100 + [crash] * 100 + [requeue]
    attempts, message = decode_queued_message(encode_queued_message(many, b"{}"))
    assert message == b"{}"
    assert len(attempts) == MAX_ATTEMPTS
    assert select_counted(attempts)[-100:] == (crash,) * 100  # as many as the largest max_attempts
    assert select_requeues(attempts) == (requeue,)
    assert len(decode_queued_message(encode_queued_message(many * 100, b"{}"))[0]) == MAX_ATTEMPTS


def test_the_longest_history_that_is_written_can_be_read_also_after_more_runs_that_were_lost():
    longest = Attempt(cause="c" * 999, owner="€" * 999, at_ms=10**15 - 1, claim_size=10**9 - 1, version="v" * 999)
    queued_message = encode_queued_message([longest] * MAX_ATTEMPTS, b"{}")
    line = queued_message[: queued_message.index(b"\n") + 1]
    attempts, message = decode_queued_message(line * 100 + queued_message)
    assert (len(attempts), message) == (MAX_ATTEMPTS + 100, b"{}")


@pytest.mark.parametrize(
    "hostile",
    [
        lambda size: b"\x01" + b"a" * size + b";\n",
        lambda size: b"\x01" + b"a," * size + b"\n\n",
        lambda size: b"\x01a,b,1,1\n" * size,
        lambda size: b"\x01\n" * size,
        lambda size: b"\x01a,b," + b"1" * size + b",1\n\n",
    ],
)
def test_decoding_takes_no_longer_than_a_history_is_allowed_to_be(hostile: Callable[[int], bytes]):
    queued_message = hostile(4_000_000)
    started = time.process_time()
    assert decode_queued_message(queued_message) == ((), queued_message)
    assert time.process_time() - started < 1  # it takes a few milliseconds


@pytest.mark.parametrize(
    ("causes", "priority", "source"),
    [
        ([], 0, 1),
        ([], 5, 2),
        ([], 255, 4),
        ([], -7, 1),
        (["error:Busy"], 0, 5),
        (["error:crash"], 9, 8),
        (["replay"], 6, 7),
        (["requeued"], 3, 6),
        (["crash"], 9, 0),
        (["lease_expired", "replay"], 9, 0),
        (["error:Busy", "timeout"], 9, 0),
    ],
)
def test_a_job_goes_to_the_list_of_its_priority_and_its_attempts(causes: list[str], priority: int, source: int):
    assert select_source([attempt(cause) for cause in causes], priority) == source
    assert holds_histories(source) is bool(causes)


@given(st.integers(0, 8), st.binary())
def test_a_delayed_job_names_its_list(source: int, queued_message: bytes):
    assert decode_delayed(encode_delayed(source, queued_message)) == (source, queued_message)


@given(st.binary())
def test_any_member_of_the_delayed_jobs_can_be_decoded(member: bytes):
    source, queued_message = decode_delayed(member)
    assert source in range(9)
    assert member.endswith(queued_message)
    assert len(member) - len(queued_message) == (member[:1] in b"012345678" and bool(member))
