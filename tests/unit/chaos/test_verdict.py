"""The master check of the chaos suite finds what is wrong: a check that never fails proves nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.evidence import Kill, recoveries
from tests.chaos.ledger import LedgerContents, Line, read
from tests.chaos.verdict import Evidence, Run, judge, percentile
from tests.chaos.witness import stored_twice


def success(number: int, prediction: float | None = None) -> bytes:
    """An outcome as the model of the suite gives it to the job of that number."""
    value = 20 * number if prediction is None else prediction
    return json.dumps({"status": "SUCCESS", "result": {"predictions": [value]}}).encode()


def failure(reason: str = "crash") -> bytes:
    return json.dumps({"status": "FAILURE", "result": {"exc_type": "E"}, "reason": reason}).encode()


EXPIRED = json.dumps({"status": "REVOKED", "result": {"exc_message": ["expired"]}}).encode()
CANCELLED = json.dumps({"status": "REVOKED", "result": {"exc_message": ["revoked"]}}).encode()


def evidence(**changed: Any) -> Evidence:
    """Four jobs that ended well, each in its own way."""
    submitted = {
        f"job-{n}": Line(do="asked", ids=[f"job-{n}"], written_at=100.0, expires=float(n == 4))
        for n in range(1, 5)
    }
    fields: dict[str, Any] = {
        "ledgers": LedgerContents(
            submitted=submitted, confirmed=dict.fromkeys(submitted, 100.1), cancelled={"job-3"}
        ),
        "stored": {"job-1": success(1), "job-2": failure(), "job-3": CANCELLED, "job-4": EXPIRED},
        "published": {job: [101.5] for job in submitted},
        "runs": [Run(7, 101.0, "job-1"), Run(7, 101.0, "job-2")],
        "stored_twice": 0,
        "dead": frozenset({"job-2", "from-elsewhere"}),
        "still_there": frozenset(),
        "leftovers": [],
        "recovery": [3.0, 11.9],
        "resumed": [0.4],
        "lease": 10.0,
    }
    return Evidence(**(fields | changed))


def test_jobs_that_end_as_they_should_break_nothing() -> None:
    judged = judge(evidence())
    assert judged.broken == []
    assert (judged.confirmed, judged.succeeded, judged.dead, judged.cancelled, judged.expired) == (4, 1, 1, 1, 1)
    assert judged.reasons == {"crash": 1}


def without(job: str) -> dict[str, bytes]:
    stored = dict(evidence().stored)
    del stored[job]
    return stored


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"stored": without("job-1")}, "lost: 1 (job-1)"),
        ({"stored": without("job-1"), "still_there": frozenset({"job-1"})}, "without an outcome: 1 (job-1)"),
        ({"stored": evidence().stored | {"job-1": success(2)}}, "another job's answer: 1 (job-1)"),
        ({"stored": evidence().stored | {"job-3": success(3)}}, "cancelled and yet another outcome: 1 (job-3)"),
        ({"stored": evidence().stored | {"job-1": EXPIRED}}, "expired too early: 1 (job-1)"),
        ({"published": evidence().published | {"job-4": [100.5]}}, "expired too early: 1 (job-4)"),
        ({"stored": evidence().stored | {"job-9": success(9)}}, "an outcome nobody asked for: 1 (job-9)"),
        ({"stored": evidence().stored | {"job-1": b"{}"}}, "no outcome that can be read: 1 (job-1)"),
        ({"runs": [Run(7, 99.0, "job-1")]}, "run before its time: 1 (job-1)"),
        ({"dead": frozenset()}, "failed and no dead letter: 1 (job-2)"),
        ({"dead": frozenset({"job-1", "job-2"})}, "a dead letter and not failed: 1 (job-1)"),
        ({"published": evidence().published | {"job-1": [101.0, 102.0]}}, "1 outcomes published twice"),
        ({"stored_twice": 2}, "2 outcomes published twice"),
        ({"leftovers": ["headrace:lease:x"]}, "keys left: 1 (headrace:lease:x)"),
        ({"recovery": [12.1]}, "recovery p99 12.1 s, more than the lease of 10 s and 2 s"),
        ({"resumed": [0.1, 5.1]}, "work went on only after 5.1 s"),
    ],
)
def test_whatever_is_wrong_is_said(changed: dict[str, Any], words: str) -> None:
    assert words in judge(evidence(**changed)).broken


def test_a_job_that_may_be_lost_counts_and_breaks_nothing() -> None:
    judged = judge(evidence(stored=without("job-1"), may_lose=frozenset({"job-1"})))
    assert judged.lost == 1
    assert judged.broken == []


def test_jobs_that_ran_again_are_counted_once_each() -> None:
    again = [Run(7, 101.0, "job-1"), Run(8, 102.0, "job-1"), Run(9, 103.0, "job-1"), Run(9, 103.0, "job-2")]
    assert judge(evidence(runs=again)).ran_again == 1


def test_recovery_is_counted_from_the_last_kill_that_hit_a_job() -> None:
    kills = [Kill(10.0, frozenset({"a", "b"})), Kill(12.0, frozenset({"b"})), Kill(13.0, frozenset())]
    assert recoveries(kills, {"a": [11.0], "b": [15.0]}) == [1.0, 3.0]


def test_percentiles_are_values_that_were_measured() -> None:
    assert [percentile([5, 1, 3, 2, 4], percent) for percent in (1, 50, 99, 100)] == [1, 3, 5, 5]


def test_a_ledger_cut_off_in_a_line_is_read_up_to_it(tmp_path: Path) -> None:
    whole = (
        b'{"do":"asked","ids":["job-1"],"written_at":1.0}\n{"do":"confirmed","ids":["job-1"],"written_at":2.0}\n'
    )
    (tmp_path / "one.ledger").write_bytes(whole + b'{"do":"confirmed","ids":["job-2"')
    books = read(tmp_path)
    assert books.confirmed == {"job-1": 2.0}


def test_the_append_only_file_tells_of_a_second_outcome(tmp_path: Path) -> None:
    def command(*words: bytes) -> bytes:
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)

    log = tmp_path / "appendonlydir" / "appendonly.aof.1.incr.aof"
    log.parent.mkdir()
    once = command(b"SET", b"celery-task-meta-a", b"1", b"PXAT", b"9") + command(b"DEL", b"celery-task-meta-a")
    log.write_bytes(once + command(b"SET", b"celery-task-meta-b", b"*1\r\n"))
    assert stored_twice(tmp_path) == 0
    log.write_bytes(once + once + command(b"SET", b"celery-task-meta-a", b"1")[:-3])
    assert stored_twice(tmp_path) == 1
