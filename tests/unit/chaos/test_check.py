"""The final check of the chaos suite reports every kind of fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.chaos import report
from tests.chaos.check import Evidence, Run, check_promises, percentile
from tests.chaos.evidence import Kill, recovery_seconds
from tests.chaos.ledger import LedgerContents, Line, read
from tests.chaos.outcome_recorder import count_repeated_writes


def success(number: int, prediction: float | None = None) -> bytes:
    """Return a stored success of job `number`; the suite's model predicts 20 times the number."""
    value = 20 * number if prediction is None else prediction
    return json.dumps({"status": "SUCCESS", "result": {"predictions": [value]}}).encode()


def failure(reason: str = "crash") -> bytes:
    return json.dumps({"status": "FAILURE", "result": {"exc_type": "E"}, "reason": reason}).encode()


EXPIRED = json.dumps({"status": "REVOKED", "result": {"exc_message": ["expired"]}}).encode()
CANCELLED = json.dumps({"status": "REVOKED", "result": {"exc_message": ["revoked"]}}).encode()


def evidence(**changes: Any) -> Evidence:
    """Return the evidence of four jobs with one correct outcome of each kind, with some fields changed."""
    submitted = {
        f"job-{n}": Line(event="submitted", ids=[f"job-{n}"], written_at=100.0, expires=float(n == 4))
        for n in range(1, 5)
    }
    fields: dict[str, Any] = {
        "ledgers": LedgerContents(
            submitted=submitted, confirmed=dict.fromkeys(submitted, 100.1), cancelled={"job-3"}
        ),
        "stored": {"job-1": success(1), "job-2": failure(), "job-3": CANCELLED, "job-4": EXPIRED},
        "published": {job: [101.5] for job in submitted},
        "runs": [Run(7, 101.0, "job-1"), Run(7, 101.0, "job-2")],
        "repeated_writes": 0,
        "dead": frozenset({"job-2", "from-elsewhere"}),
        "in_redis": frozenset(),
        "leftovers": [],
        "recovery": [3.0, 11.9],
        "resumed": [0.4],
        "lease": 10.0,
    }
    return Evidence(**(fields | changes))


def test_correct_outcomes_break_no_guarantee() -> None:
    result = check_promises(evidence())
    assert result.broken_promises == []
    assert (result.confirmed, result.succeeded, result.dead, result.cancelled, result.expired) == (4, 1, 1, 1, 1)
    assert result.reasons == {"crash": 1}


def without(job: str) -> dict[str, bytes]:
    stored = dict(evidence().stored)
    del stored[job]
    return stored


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"stored": without("job-1")}, "lost: 1 (job-1)"),
        ({"stored": without("job-1"), "in_redis": frozenset({"job-1"})}, "without an outcome: 1 (job-1)"),
        ({"stored": evidence().stored | {"job-1": success(2)}}, "predictions of another job: 1 (job-1)"),
        ({"stored": evidence().stored | {"job-3": success(3)}}, "cancelled, but with another outcome: 1 (job-3)"),
        ({"stored": evidence().stored | {"job-1": EXPIRED}}, "expired too early: 1 (job-1)"),
        ({"published": evidence().published | {"job-4": [100.5]}}, "expired too early: 1 (job-4)"),
        (
            {"stored": evidence().stored | {"job-9": success(9)}},
            "an outcome of a job that was not submitted: 1 (job-9)",
        ),
        ({"stored": evidence().stored | {"job-1": b"{}"}}, "an outcome that cannot be read: 1 (job-1)"),
        ({"runs": [Run(7, 99.0, "job-1")]}, "run before it was due: 1 (job-1)"),
        ({"dead": frozenset()}, "failed without a dead letter: 1 (job-2)"),
        ({"dead": frozenset({"job-1", "job-2"})}, "a dead letter of a job that did not fail: 1 (job-1)"),
        ({"published": evidence().published | {"job-1": [101.0, 102.0]}}, "1 outcomes published twice"),
        ({"repeated_writes": 2}, "2 outcomes published twice"),
        ({"leftovers": ["headrace:lease:x"]}, "keys left: 1 (headrace:lease:x)"),
    ],
)
def test_every_fault_is_reported(changes: dict[str, Any], fault: str) -> None:
    assert fault in check_promises(evidence(**changes)).broken_promises


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"recovery": [12.1]}, "recovery p99 12.1 s, more than the lease of 10 s and 2 s"),
        ({"resumed": [0.1, 5.1]}, "the next outcome took 5.1 s after Redis answered again"),
    ],
)
def test_a_promise_of_seconds_is_reported_by_itself(changes: dict[str, Any], fault: str) -> None:
    result = check_promises(evidence(**changes))
    assert (result.broken_promises, result.missed_deadlines) == ([], [fault])
    run = {"number": 1, "title": "a fault", "system": "headrace", "check": msgspec.to_builtins(result)}
    assert report.broken_promises({"runs": [run], "failed": []}) == [f"1 a fault: {fault}"]


def test_a_job_that_may_be_lost_is_counted_but_is_no_fault() -> None:
    result = check_promises(evidence(stored=without("job-1"), may_be_lost=frozenset({"job-1"})))
    assert result.lost == 1
    assert result.broken_promises == []


def test_a_job_whose_first_outcome_a_failover_lost_may_expire() -> None:
    published = evidence().published | {"job-4": [100.5, 101.5]}
    assert check_promises(evidence(published=published, may_be_repeated=True)).broken_promises == []


def test_jobs_that_ran_twice_are_counted_once_each() -> None:
    runs = [Run(7, 101.0, "job-1"), Run(8, 102.0, "job-1"), Run(9, 103.0, "job-1"), Run(9, 103.0, "job-2")]
    assert check_promises(evidence(runs=runs)).ran_again == 1


def test_recovery_is_counted_from_the_last_kill_that_hit_a_job() -> None:
    kills = [Kill(10.0, frozenset({"a", "b"})), Kill(12.0, frozenset({"b"})), Kill(13.0, frozenset())]
    assert recovery_seconds(kills, {"a": [11.0], "b": [15.0]}) == [1.0, 3.0]


def test_recovery_is_counted_from_the_last_return_of_redis_before_it() -> None:
    kills = [Kill(10.0, frozenset({"a"})), Kill(20.0, frozenset({"b"}))]
    assert recovery_seconds(kills, {"a": [17.0], "b": [23.0]}, [9.0, 14.0, 22.5, 30.0]) == [3.0, 0.5]


def test_percentiles_are_measured_values() -> None:
    assert [percentile([5, 1, 3, 2, 4], percent) for percent in (1, 50, 99, 100)] == [1, 3, 5, 5]


def test_a_ledger_with_a_truncated_last_line_is_read_up_to_it(tmp_path: Path) -> None:
    complete_lines = (
        b'{"event":"submitted","ids":["job-1"],"written_at":1.0}\n'
        b'{"event":"confirmed","ids":["job-1"],"written_at":2.0}\n'
    )
    (tmp_path / "one.ledger").write_bytes(complete_lines + b'{"event":"confirmed","ids":["job-2"')
    ledgers = read(tmp_path)
    assert ledgers.confirmed == {"job-1": 2.0}


def test_a_second_outcome_in_the_append_only_file_is_counted(tmp_path: Path) -> None:
    def command(*arguments: bytes) -> bytes:
        encoded = (b"$%d\r\n%s\r\n" % (len(argument), argument) for argument in arguments)
        return b"*%d\r\n" % len(arguments) + b"".join(encoded)

    log = tmp_path / "appendonlydir" / "appendonly.aof.1.incr.aof"
    log.parent.mkdir()
    running = command(b"SET", b"celery-task-meta-a", b'{"status":"STARTED","result":{}}')  # no outcome yet
    once = running + command(b"SET", b"celery-task-meta-a", b"1", b"PXAT", b"9")
    once += command(b"DEL", b"celery-task-meta-a")
    log.write_bytes(once + command(b"SET", b"celery-task-meta-b", b"*1\r\n"))
    assert count_repeated_writes(tmp_path) == 0
    log.write_bytes(once + once + command(b"SET", b"celery-task-meta-a", b"1")[:-3])
    assert count_repeated_writes(tmp_path) == 1


def test_an_update_replaces_the_scenarios_that_ran_and_keeps_the_others() -> None:
    def entry(number: int, seconds: float) -> dict[str, Any]:
        return {"number": number, "seconds": seconds, "notes": []}

    stored = {
        "date": "d1",
        "commit": "c1",
        "runs": [entry(1, 5), entry(2, 5)],
        "skipped": [],
        "failed": [entry(3, 0)],
    }
    measured = {"date": "d2", "commit": "c2", "runs": [entry(2, 7), entry(3, 7)], "skipped": [], "failed": []}
    updated = report.update(stored, measured)
    assert [(run["number"], run["seconds"]) for run in updated["runs"]] == [(1, 5), (2, 7), (3, 7)]
    assert [run["notes"] for run in updated["runs"]] == [[], *[["run on d2 at commit c2"]] * 2]
    assert updated["failed"] == []
    assert updated["commit"] == "c1"
