"""A message in another client's form is taken, or is the failure of its job, in words that say what to change."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import math
import pickle
import zlib
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import InvalidInput
from headrace.wire import foreign_message
from headrace.wire.limits import JobLimits
from headrace.wire.message import Job, encode_message
from headrace.wire.parsing import MalformedMessage, parse

ARGS = ["churn", [{"age": 41}]]
BODY = json.dumps([ARGS, {}, None]).encode()


def message(
    body: bytes | str = BODY, headers: Any = None, properties: Any = None, *, plain: bool = False, **fields: Any
) -> bytes:
    """Return a message as kombu writes it, with further headers, properties and fields."""
    text = body if isinstance(body, str) else body.decode() if plain else base64.b64encode(body).decode()
    return json.dumps(
        {
            "body": text,
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"id": "a", "task": "headrace.predict", **(headers or {})},
            "properties": {
                "correlation_id": "a",
                "priority": 0,
                **({} if plain else {"body_encoding": "base64"}),
                **(properties or {}),
            },
            **fields,
        }
    ).encode()


def refusal_of(message: bytes, limits: JobLimits | None = None) -> str:
    """Return the words of the refusal of the job `a`."""
    parsed = parse(message, limits=limits or JobLimits())
    assert parsed.id == "a"
    with pytest.raises(InvalidInput) as refused:
        parsed.to_job()
    return str(refused.value)


def protocol_1(**changes: Any) -> bytes:
    """Return a message of Celery's protocol 1: the headers are empty, and the body holds the call."""
    call = {
        "task": "headrace.predict",
        "id": "a",
        "args": ARGS,
        "kwargs": {},
        "retries": 0,
        "eta": None,
        "expires": None,
        "utc": True,
        "callbacks": None,
        "errbacks": None,
        "timelimit": [None, None],
        "taskset": None,
        "chord": None,
        **changes,
    }
    envelope = json.loads(message(json.dumps(call).encode()))
    return json.dumps({**envelope, "headers": {}}).encode()


# --- taken ---


@pytest.mark.parametrize(
    "accepted",
    [
        message(zlib.compress(BODY), {"compression": "application/x-gzip"}),
        message(zlib.compress(BODY), {"compression": "zlib"}),
        message(gzip.compress(BODY), {"compression": "application/x-gzip"}),
        message(gzip.compress(BODY), {"compression": "gzip"}),
        message(BODY, plain=True),
        message(base64.b64encode(BODY).decode(), properties={"body_encoding": None}),
        message(BODY.decode().encode("utf-16"), **{"content-encoding": "utf-16"}),
        message(**{"content-type": None, "content-encoding": None}),
        message(**{"content-type": "application/json; charset=utf-8", "content-encoding": "UTF-8"}),
        message(**{"content-encoding": "binary"}),
        message(json.dumps([ARGS, None, None]).encode()),
        message(json.dumps([ARGS, {}]).encode()),
        message(properties={"priority": None}),
        message(properties={"priority": "high"}),
        message(headers={"id": None}),
        protocol_1(),
        protocol_1(kwargs=None),
        protocol_1(id=None),
    ],
)
def test_these_forms_are_taken(accepted: bytes):
    job = parse(accepted).to_job()
    assert (job.id, job.model, job.instances, job.priority) == ("a", "churn", [{"age": 41}], 0)


def test_a_body_that_is_json_and_no_text_is_taken():
    fields = json.loads(message())
    assert parse(json.dumps({**fields, "body": [ARGS, {}, None]}).encode()).to_job().instances == [{"age": 41}]


def test_latin_1_is_decoded_as_the_message_says():
    body = '[["churn", [["é"]]], {}, null]'.encode("latin-1")
    assert parse(message(body, **{"content-encoding": "latin-1"})).to_job().instances == [["é"]]
    assert "JSON in UTF-8" in refusal_of(message(body))


def test_nan_and_infinity_are_read_for_the_check_of_the_contract():
    [[missing, infinite]] = parse(message(b'[["churn", [[NaN, -Infinity]]], {}, null]')).to_job().instances
    assert math.isnan(missing)
    assert infinite == float("-inf")


@pytest.mark.parametrize(
    ("priority", "read"), [("3", 3), (3.7, 3), (12, 9), (-1, 0), ("x", 0), ([], 0), (True, 1)]
)
def test_a_priority_is_read_as_kombu_reads_it(priority: Any, read: int):
    assert parse(message(properties={"priority": priority})).to_job().priority == read


def test_protocol_1_has_its_times_and_options_in_the_body():
    job = parse(protocol_1(expires="2030-01-01T00:00:00", kwargs={"version": "3"})).to_job()
    assert (job.version, job.expires) == ("3", datetime(2030, 1, 1, tzinfo=UTC))
    assert "time zone" in refusal_of(protocol_1(expires="2030-01-01T00:00:00", utc=False))
    assert parse(protocol_1(expires="2030-01-01T00:00:00+02:00", utc=False)).to_job()


# --- refused under the id of the job ---


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (message(pickle.dumps(ARGS), **{"content-type": "application/x-python-serialize"}), "serializer='json'"),
        (message(msgspec.msgpack.encode(ARGS), **{"content-type": "application/x-msgpack"}), r"(msgpack)"),
        (message(b"- - churn\n", **{"content-type": "application/x-yaml"}), "(yaml)"),
        (message(b"\x80\x04\x95", **{"content-type": "application/x-our-own"}), "JSON in UTF-8"),
        (message(bz2.compress(BODY), {"compression": "application/x-bz2"}), "compression='zlib'"),
        (message(lzma.compress(BODY), {"compression": "application/x-lzma"}), "'application/x-lzma'"),
        (message(BODY, {"compression": "application/zstd"}), "'application/zstd'"),
        (message(BODY, {"compression": "br" * 500}), "compression"),
        (message(BODY, {"compression": 7}), "unreadable"),
        (message(BODY, {"compression": "zlib"}), "is not zlib"),
        (message(zlib.compress(BODY)[:-8], {"compression": "zlib"}), "cut off"),
        (message(b'[["churn", [["\\ud800"]]], {}, null]'), "surrogate"),
        (message(b"[" * 5000 + b"]" * 5000), "nested too deeply"),
        (message(b'[["churn", [[1]]], {}, null'), "JSON in UTF-8"),
        (message(json.dumps([1, {}, None]).encode()), "positional arguments"),
        (message(json.dumps([ARGS, [], None]).encode()), "named arguments"),
        (message(b"[]"), "[args, kwargs, options]"),
        (message(b"{}", {"task": "headrace.predict"}), "[args, kwargs, options]"),
        (message(headers={"task": "headrace.predcit"}), "the name of the task is 'headrace.predcit'"),
        (message(headers={"task": ["x"]}), "the name of the task is missing"),
        (message(headers={"timelimit": [10, None]}), "limits of a model"),
        (message(headers={"timelimit": [None, 5]}), "limits of a model"),
        (message(headers={"eta": 1_900_000_000}), "ISO 8601"),
        (message(headers={"expires": 30.5}), "ISO 8601"),
        (message(headers={"eta": 0}), "ISO 8601"),
        (message(headers={"expires": {}}), "ISO 8601"),
        (protocol_1(task="tasks.add"), "the name of the task is 'tasks.add'"),
        (protocol_1(timelimit=[None, 3]), "limits of a model"),
        (protocol_1(args="churn"), "positional arguments"),
    ],
)
def test_these_forms_are_refused_under_the_id_of_the_job(refused: bytes, words: str):
    assert words in refusal_of(refused)


def test_a_compressed_body_is_decompressed_up_to_the_limit_only():
    limits = JobLimits(max_bytes=100_000)
    bomb = message(zlib.compress(b"[" + b" " * 50_000_000 + b"]"), {"compression": "zlib"})
    assert len(bomb) < 100_000
    assert "more than HEADRACE_MAX_JOB_BYTES of the worker (100,000)" in refusal_of(bomb, limits)


def test_a_refusal_quotes_no_value():
    for body in (b'[["churn", [["Xyzzy"]]], {}, null', json.dumps([["Xyzzy"], "Xyzzy", None]).encode()):
        assert "Xyzzy" not in refusal_of(message(body))


# --- ids ---


@pytest.mark.parametrize(
    "nameless",
    [
        b"",
        b"\x80\x04\x95",
        b"{}",
        b'"id"',
        b'{"id": 7}',
        b'{"id": ""}',
        b'{"id": "\\ud800"}',
        b'{"correlation_id": "%s"}' % (b"x" * 300),
        message(headers={"id": 7}, properties={"correlation_id": None}),
        b"x" * 200_000 + b'"id": "a"' + b"x" * 200_000,
    ],
)
def test_a_message_without_a_readable_id_is_malformed(nameless: bytes):
    with pytest.raises(MalformedMessage):
        parse(nameless)


@pytest.mark.parametrize(
    "filler", [b"\x00" * 300_000, b'"' * 300_000, b'"id": ' * 50_000, b'"id"' + b" " * 300_000]
)
def test_an_id_is_found_at_either_end_of_a_message(filler: bytes):
    assert foreign_message.scan_id(b'{"correlation_id": "a", ' + filler) == "a"
    assert foreign_message.scan_id(filler + b'"correlation_id":"a"}') == "a"
    assert foreign_message.scan_id(encode_message(Job(id="a", model="m", instances=["x" * 300_000]))) == "a"


@pytest.mark.parametrize("size", [1, 300_000])
def test_the_client_that_waits_is_found_in_a_message_that_is_not_parsed(size: int):
    client = "0123456789abcdef" * 2
    encoded = encode_message(Job(id="a", model="m", instances=["x" * size], reply_to=client))
    assert foreign_message.scan_reply_to(encoded) == client
    assert foreign_message.scan_reply_to(encode_message(Job(id="a", model="m", instances=["x" * size]))) is None


@given(st.binary())
def test_any_bytes_are_a_message_with_an_id_or_malformed(data: bytes):
    with suppress(MalformedMessage):
        assert parse(data).id


@given(st.data())
def test_a_mutated_message_is_parsed_or_refused_and_raises_nothing_else(data: st.DataObject):
    original = data.draw(
        st.sampled_from([message(), protocol_1(), encode_message(Job(id="a", model="m", instances=[1]))])
    )
    position = data.draw(st.integers(0, len(original)))
    length = data.draw(st.integers(0, 20))
    with suppress(MalformedMessage, InvalidInput):
        parse(original[:position] + data.draw(st.binary(max_size=20)) + original[position + length :]).to_job()
