"""Tests of the findings about the access to Redis and about queues, workers and versions."""

from __future__ import annotations

import msgspec
import pytest

from headrace.bulk import make_run
from headrace.catalog.aliases import Alias, Aliases
from headrace.catalog.pauses import Pause
from headrace.catalog.workers import LoadError, WorkerStatus
from headrace.connection.url import parse_address
from headrace.doctor.access import check_access
from headrace.doctor.service import ServedModel, ServiceState, check_service
from headrace.inspection.queues import QueueDepth
from headrace.wire.bulk import RunProgress

NOW = 1_700_000_000_000


@pytest.mark.parametrize(
    ("url", "user", "expected"),
    [
        ("redis://127.0.0.1/0", "default", []),
        ("redis://localhost/0", None, []),
        ("redis://[::1]/0", None, []),
        ("unix:///run/redis.sock", None, []),
        ("sentinel://127.0.0.1:26379/0?master_name=mymaster", None, []),
        ("redis://10.0.0.7/0", "default", ["warning HEADRACE_REDIS_URL", "error requirepass"]),
        ("redis://producer:pw@10.0.0.7/0", "producer", ["warning HEADRACE_REDIS_URL"]),
        ("rediss://:pw@redis.example/0", "default", ["warning ACL"]),
        ("rediss://producer:pw@redis.example/0", "producer", []),
        ("rediss://producer:pw@redis.example/0?ssl_cert_reqs=none", "producer", ["warning ssl_cert_reqs"]),
        ("rediss://producer:pw@redis.example/0", None, []),
    ],
)
def test_missing_tls_password_and_user_are_findings(url: str, user: str | None, expected: list[str]):
    findings = list(check_access(parse_address(url), user))
    assert [f"{finding.severity} {finding.subject}" for finding in findings] == expected
    assert "pw" not in " ".join(map(str, findings))


def model(waiting: int = 0, **changes: object) -> ServedModel:
    queue = QueueDepth(model="churn", queue="predict.churn", by_priority={0: waiting, 3: 0, 6: 0, 9: 0})
    fields = {
        "queue": queue,
        "aliases": Aliases("churn"),
        "loaded": {"w@host": WorkerStatus(versions=("1", "2"))},
        "refused": {},
    }
    return ServedModel(**{**fields, **changes})  # type: ignore[arg-type]  # the values are right, their types unknown


def check(*models: ServedModel, expiries_ms: tuple[int, ...] = ()) -> list[str]:
    state = ServiceState(now_ms=NOW, models=models, lease_expiries_ms=expiries_ms)
    return [f"{finding.severity} {finding.subject} {finding.actual}" for finding in check_service(state)]


def test_there_is_no_finding_where_workers_have_loaded_the_versions_of_all_aliases():
    aliases = Aliases("churn", {"production": Alias(version="2")})
    assert check(model(waiting=5, aliases=aliases), expiries_ms=(NOW + 1, NOW - 2000)) == []


def test_a_paused_model_is_a_warning_that_says_who_paused_it():
    pause = Pause(by="ann@desk", at_ms=1000, reason="no features")
    queue = msgspec.structs.replace(model(waiting=5).queue, paused=pause)
    assert check(model(queue=queue)) == [
        "warning predict.churn paused by ann@desk at 1970-01-01 00:00:01 UTC: no features"
    ]


def test_a_queue_without_a_worker_is_an_error_with_jobs_and_a_warning_without():
    assert check(model(waiting=3, loaded={})) == [
        "error predict.churn served by no worker, with 3 jobs in it",
    ]
    assert check(model(loaded={})) == ["warning predict.churn served by no worker, with 0 jobs in it"]


def test_an_alias_to_a_version_that_is_not_loaded_is_an_error_and_a_refused_version_a_warning():
    aliases = Aliases("churn", {"production": Alias(version="3")})
    assert check(model(aliases=aliases)) == ["error churn@production version 3, which no worker has loaded"]
    refused = {"3": LoadError(worker="w@host", reason="its digest is wrong")}
    assert check(model(aliases=aliases, refused=refused)) == [
        "warning churn@3 refused by w@host: its digest is wrong",
    ]


def test_leases_that_stay_expired_are_an_error():
    assert check(expiries_ms=(NOW - 60_000, NOW - 11_000, NOW)) == [
        "error headrace:leases holding 2 expired leases, the first for 1 min 0 s",
    ]


def check_run(age_seconds: int = 300, *, loaded: bool = True, **depth: object) -> list[str]:
    bulk = QueueDepth(model="churn", queue="bulk.churn", **{"by_priority": {9: 0}, **depth})  # type: ignore[arg-type]
    run = make_run("churn", "in:a.parquet", "out:scores", name="nightly")
    progress = RunProgress(run=run, state="running", submitted_ms=NOW - 1000 * age_seconds)
    served = model(bulk_queue=bulk) if loaded else model(bulk_queue=bulk, loaded={})
    state = ServiceState(now_ms=NOW, models=(served,), lease_expiries_ms=(), runs=(progress,))
    return [f"{finding.subject}: {finding.actual}" for finding in check_service(state) if "run" in finding.subject]


def test_a_bulk_run_that_stands_still_is_a_finding_with_its_reason():
    assert check_run(by_priority={9: 3}) == [
        "bulk run nightly: running without progress for 5 min 0 s, with 3 jobs in bulk.churn that no worker claims"
    ]
    assert check_run() == ["bulk run nightly: running without progress for 5 min 0 s, with no job in bulk.churn"]


@pytest.mark.parametrize(
    ("age_seconds", "depth"),
    [
        (30, {"by_priority": {9: 3}}),
        (300, {"by_priority": {9: 3}, "leased": 1}),
        (300, {"delayed": 1}),
        (300, {"by_priority": {9: 3}, "paused": Pause(by="ann", at_ms=NOW)}),
        (300, {"by_priority": {9: 3}, "loaded": False}),
    ],
)
def test_a_bulk_run_that_goes_on_or_waits_for_a_reason_of_its_own_is_no_finding(
    age_seconds: int, depth: dict[str, object]
):
    assert check_run(age_seconds, **depth) == []  # type: ignore[arg-type]


def test_a_bulk_queue_that_no_worker_serves_is_a_finding_while_it_holds_jobs():
    bulk = QueueDepth(model="churn", queue="bulk.churn", by_priority={9: 20})
    empty = QueueDepth(model="churn", queue="bulk.churn", by_priority={9: 0})
    assert check(model(bulk_queue=bulk)) == []
    assert check(model(loaded={}, bulk_queue=bulk)) == [
        "warning predict.churn served by no worker, with 0 jobs in it",
        "error bulk.churn served by no worker, with 20 jobs in it",
    ]
    assert check(model(loaded={}, bulk_queue=empty)) == [
        "warning predict.churn served by no worker, with 0 jobs in it"
    ]
