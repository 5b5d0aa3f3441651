"""A signature is valid for the signed job only, and keys can be changed one after the other."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.dead_letters.replay import prepare_replay
from headrace.errors import NotTrusted, SettingError
from headrace.wire import parsing
from headrace.wire.attempts import decode_queued_message
from headrace.wire.dead_letter import DeadLetter, attach_message
from headrace.wire.message import Job, encode_message
from headrace.wire.parsing import ParsedMessage
from headrace.wire.signing import SIGNATURE_HEADER, JobKeys, SignedContent, Trust

OLD, NEW = "2026a:" + "a" * 44, "2026b:" + "b" * 44
KEYS = JobKeys.parse(OLD)
assert KEYS is not None
TRUST = Trust(keys=KEYS, required=True, max_age=3600)
QUEUE = "predict.churn"
JOB = Job(
    id="job-1",
    model="churn",
    instances=[{"age": 41}],
    version="3",
    expires=datetime(2030, 1, 1, tzinfo=UTC),
    metadata={"user": "ann"},
    reply_to="0123456789abcdef" * 2,
    eta=datetime(2029, 1, 1, tzinfo=UTC),
    trace={"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
)


def parse(message: bytes, trust: Trust | None = None, *, queue: str = QUEUE, now: float | None = None) -> Any:
    """Parse a message as it is in its queue, now."""
    return parsing.parse(message, trust, queue=queue, now=time.time() if now is None else now)


def job_of(parsed: ParsedMessage) -> Job:
    """Return the job with its reply channel, which is no part of what `to_job` makes."""
    return msgspec.structs.replace(parsed.to_job(), reply_to=parsed.reply_to)


def rewrite(message: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    parts = json.loads(message)
    change(parts)
    return json.dumps(parts).encode()


def change_arguments(parts: dict[str, Any]) -> None:
    body = base64.b64decode(parts["body"]).replace(b"41", b"42")
    parts["body"] = base64.b64encode(body).decode()


def test_a_signed_job_is_parsed_unchanged():
    assert job_of(parse(encode_message(JOB, KEYS), TRUST)) == JOB
    assert job_of(parse(encode_message(JOB, KEYS))) == JOB
    assert json.loads(encode_message(JOB, KEYS))["headers"].pop(SIGNATURE_HEADER).startswith("2026a:")
    plain, signed = json.loads(encode_message(JOB)), json.loads(encode_message(JOB, KEYS))
    del signed["headers"][SIGNATURE_HEADER]
    assert signed == plain


@pytest.mark.parametrize(
    ("change", "message_text"),
    [
        (change_arguments, "were changed"),
        (lambda parts: parts["headers"].update(id="job-2"), "were changed"),
        (lambda parts: parts["headers"].update(expires=None), "were changed"),
        (lambda parts: parts["headers"].update(eta=None), "were changed"),
        (lambda parts: parts["headers"].update(eta=7), "were changed"),
        (lambda parts: parts["properties"].update(reply_to="f" * 32), "were changed"),
        (lambda parts: parts["properties"].update(reply_to=None), "were changed"),
        (lambda parts: parts["headers"].update(timelimit=[1, 1], id="job-2"), "were changed"),
        (lambda parts: parts["headers"].update(expires="2031-01-01T00:00:00+00:00"), "were changed"),
        (lambda parts: parts["headers"].update({SIGNATURE_HEADER: "2026a:"}), "were changed"),
        (lambda parts: parts["headers"].update({SIGNATURE_HEADER: "2026a:é"}), "were changed"),
        (
            lambda parts: parts["headers"].update({SIGNATURE_HEADER: "none:" + "x" * 500}),
            "a key this worker does not have",
        ),
        (lambda parts: parts["headers"].update({SIGNATURE_HEADER: ["2026a"]}), "is not signed"),
        (lambda parts: parts["headers"].pop(SIGNATURE_HEADER), "is not signed"),
        (lambda parts: parts.update(body="no base64, no JSON"), "were changed"),
    ],
)
def test_a_changed_job_is_not_trusted_and_its_arguments_are_not_read(
    change: Callable[[dict[str, Any]], None], message_text: str
):
    parsed = parse(rewrite(encode_message(JOB, KEYS), change), TRUST)
    assert parsed.args == []
    with pytest.raises(NotTrusted, match=message_text):
        parsed.to_job()


def test_a_signature_holds_for_one_queue():
    message = encode_message(JOB, KEYS)
    with pytest.raises(NotTrusted, match="queue"):
        parse(message, TRUST, queue="predict.churn2").to_job()


def test_a_signature_holds_for_a_time_that_begins_with_the_start_of_the_job():
    message = encode_message(msgspec.structs.replace(JOB, eta=None), KEYS)
    now = time.time()
    assert parse(message, TRUST, now=now + 3590).to_job()
    with pytest.raises(NotTrusted, match=r"signed 3,\d+ seconds ago, and HEADRACE_MAX_SIGNATURE_AGE is 3,600"):
        parse(message, TRUST, now=now + 3610).to_job()
    delayed = encode_message(JOB, KEYS)
    assert JOB.eta is not None
    assert parse(delayed, TRUST, now=JOB.eta.timestamp() + 3590).to_job()
    with pytest.raises(NotTrusted, match="seconds ago"):
        parse(delayed, TRUST, now=JOB.eta.timestamp() + 3610).to_job()


def test_the_time_of_a_signature_cannot_be_changed():
    message = encode_message(JOB, KEYS)

    def make_later(parts: dict[str, Any]) -> None:
        name, signed_at, mac = parts["headers"][SIGNATURE_HEADER].split(":")
        parts["headers"][SIGNATURE_HEADER] = f"{name}:{int(signed_at) + 60}:{mac}"

    with pytest.raises(NotTrusted, match="were changed"):
        parse(rewrite(message, make_later), TRUST).to_job()
    with pytest.raises(NotTrusted, match="in the future"):
        parse(message, TRUST, now=time.time() - 1000).to_job()


CONTENTS = st.fixed_dictionaries(
    {
        **dict.fromkeys(("job", "queue", "reply_to", "eta", "expires"), st.text("a\n0 ", max_size=3)),
        "body": st.binary(max_size=3),
    }
)


@given(CONTENTS, CONTENTS)
def test_two_contents_are_signed_as_different_bytes(first: dict[str, Any], second: dict[str, Any]):
    if first != second:
        assert SignedContent(**first).encode("1") != SignedContent(**second).encode("1")


def test_unsigned_jobs_may_be_trusted_but_never_jobs_with_an_invalid_signature():
    lenient = Trust(keys=KEYS, required=False)
    assert job_of(parse(encode_message(JOB), lenient)) == JOB
    with pytest.raises(NotTrusted):
        parse(rewrite(encode_message(JOB, KEYS), change_arguments), lenient).to_job()


def test_the_first_key_signs_and_every_key_verifies():
    both = JobKeys.parse(f"{NEW}, {OLD}\n")
    assert both is not None
    assert json.loads(encode_message(JOB, both))["headers"][SIGNATURE_HEADER].startswith("2026b:")
    for keys in (KEYS, both):
        assert job_of(parse(encode_message(JOB, keys), Trust(keys=both, required=True))) == JOB
    with pytest.raises(NotTrusted, match="does not have: '2026b'"):
        parse(encode_message(JOB, both), TRUST).to_job()


@pytest.mark.parametrize(
    ("text", "message_text"),
    [
        ("hunter2-hunter2-hunter2", "key 1 is not id:secret"),
        (f"{OLD},:secret", "key 2 is not id:secret"),
        ("a:hunter2", "the secret of key 'a' is too short"),
        (f"{OLD},{OLD}", "two keys '2026a'"),
    ],
)
def test_invalid_keys_are_refused_without_a_secret(text: str, message_text: str):
    with pytest.raises(SettingError, match=message_text) as refused:
        JobKeys.parse(text)
    assert "hunter2" not in str(refused.value)
    assert "aaaa" not in str(refused.value)


def test_an_empty_setting_has_no_keys():
    assert JobKeys.parse("") is None
    assert JobKeys.parse(" \n") is None


def replayed(message: bytes, *, version: str | None = None, keys: JobKeys | None = KEYS) -> bytes:
    letter = DeadLetter(
        id="job-1",
        model="churn",
        queue=QUEUE,
        reason="permanent",
        error="E",
        module="m",
        worker="w",
        message="",
    )
    with_message = attach_message(letter, message)
    return decode_queued_message(
        prepare_replay(
            with_message, replayed_by="ann", now_ms=int(time.time() * 1000), version=version, keys=keys
        ).queued_message
    )[1]


def test_a_replay_that_changes_signed_content_signs_it_again():
    for version in (None, "4"):
        job = job_of(parse(replayed(encode_message(JOB, KEYS), version=version), TRUST))
        assert job == msgspec.structs.replace(JOB, eta=None, expires=None, version=version or "3")
    without_deadline = msgspec.structs.replace(JOB, eta=None, expires=None)
    assert job_of(parse(replayed(encode_message(without_deadline, KEYS), keys=None), TRUST)) == without_deadline
    with pytest.raises(SettingError, match="HEADRACE_JOB_KEYS"):
        replayed(encode_message(JOB, KEYS), keys=None)


def test_a_replay_does_not_make_an_untrusted_job_trusted():
    forged = rewrite(encode_message(JOB, KEYS), change_arguments)
    with pytest.raises(NotTrusted):
        parse(replayed(forged, version="4"), TRUST).to_job()
    with pytest.raises(NotTrusted):
        parse(replayed(encode_message(JOB), version="4"), TRUST).to_job()
