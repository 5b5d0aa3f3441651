"""The published status of workers is decoded while it is valid."""

from __future__ import annotations

import msgspec

from headrace.catalog.workers import STATUS_TTL_SECONDS, LoadError, WorkerStatus, decode_loaded, decode_refused

NOW = 1_700_000_000_000


def hash_of(**entries: object) -> dict[bytes, bytes]:
    return {name.encode(): msgspec.json.encode(entry) for name, entry in entries.items()}


def test_valid_statuses_are_decoded_by_worker():
    reply = hash_of(
        b=WorkerStatus(versions=("2",), at_ms=NOW), a=WorkerStatus(versions=("1", "2"), at_ms=NOW - 1000)
    )
    assert {name: status.versions for name, status in decode_loaded("churn", reply, NOW).items()} == {
        "a": ("1", "2"),
        "b": ("2",),
    }


def test_an_expired_status_is_ignored():
    reply = hash_of(a=WorkerStatus(versions=("1",), at_ms=NOW - int(STATUS_TTL_SECONDS * 1000) - 1))
    assert decode_loaded("churn", reply, NOW) == {}


def test_a_refused_version_has_a_worker_and_a_reason():
    reply = hash_of(**{"7": LoadError(worker="celery@a", reason="churn@7 has another digest", at_ms=NOW)})
    assert decode_refused("churn", reply, NOW)["7"].reason == "churn@7 has another digest"


def test_entries_of_a_newer_headrace_are_skipped():
    reply = {b"a": b'{"versions": 3}', b"\xff": b"{}", b"b": b'{"versions": ["1"], "at_ms": %d, "more": 1}' % NOW}
    assert list(decode_loaded("churn", reply, NOW)) == ["b"]


def test_both_forms_of_a_reply_are_decoded():
    (pair,) = hash_of(a=WorkerStatus(versions=("1",), at_ms=NOW)).items()
    assert list(decode_loaded("churn", [*pair], NOW)) == ["a"]
