"""A dead letter of another client's message is replayed byte for byte, or anew where its deadline must go."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from headrace.dead_letters.replay import PreparedReplay, prepare_replay
from headrace.wire.attempts import decode_queued_message
from headrace.wire.dead_letter import DeadLetter, attach_message
from headrace.wire.message import Job, encode_message
from headrace.wire.parsing import parse
from headrace.wire.signing import JobKeys
from tests.support.foreign_clients import gocelery_message

KEYS = JobKeys.parse("2026a:" + "a" * 44)


def replay(message: bytes, version: str | None = None, keys: JobKeys | None = None) -> PreparedReplay:
    letter = DeadLetter(
        id="a", queue="predict.doubling", reason="permanent", error="E", module="m", worker="w", message=""
    )
    with_message = attach_message(letter, message)
    return prepare_replay(with_message, replayed_by="ann", now_ms=1, version=version, keys=keys)


def compressed(**headers: Any) -> bytes:
    parts = json.loads(encode_message(Job(id="a", model="doubling", instances=[[7, 0, 0]], priority=9)))
    body = zlib.compress(base64.b64decode(parts["body"]))
    headers = {**parts["headers"], "compression": "application/x-gzip", **headers}
    return json.dumps({**parts, "body": base64.b64encode(body).decode(), "headers": headers}).encode()


@pytest.mark.parametrize("message", [gocelery_message(7, "a"), compressed()])
def test_a_message_without_deadline_is_replayed_byte_for_byte(message: bytes):
    prepared = replay(message, keys=KEYS)
    assert decode_queued_message(prepared.queued_message)[1] == message
    assert prepared.record


@pytest.mark.parametrize("version", [None, "4"])
@pytest.mark.parametrize(
    "message",
    [
        gocelery_message(7, "a", expires="2020-01-01T00:00:00Z", kwargs={"version": "3"}),
        gocelery_message(7, "a", eta="2020-01-01T00:00:00+00:00", kwargs={"version": "3"}),
    ],
)
def test_a_message_with_a_deadline_is_written_anew_without_it(message: bytes, version: str | None):
    job = parse(decode_queued_message(replay(message, version).queued_message)[1]).to_job()
    assert job == Job(id="a", model="doubling", instances=[[7, 0, 0]], version=version or "3")


def test_another_version_keeps_the_priority():
    job = parse(decode_queued_message(replay(compressed(), "4").queued_message)[1]).to_job()
    assert (job.version, job.priority, job.instances) == ("4", 9, [[7, 0, 0]])


def test_a_broken_signed_message_is_replayed_as_it_is():
    message = encode_message(Job(id="a", model="doubling", instances=[1]), KEYS)[:-1]
    assert decode_queued_message(replay(message, "4", KEYS).queued_message)[1] == message
