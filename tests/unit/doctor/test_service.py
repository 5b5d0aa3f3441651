"""The doctor's findings on who may come in, and on who serves what: pure functions."""

from __future__ import annotations

import pytest

from headrace.catalog.aliases import Alias, Aliases
from headrace.catalog.workers import LoadError, WorkerStatus
from headrace.connection import url as address
from headrace.doctor.access import access
from headrace.doctor.service import Model, Service, service
from headrace.inspection.queues import QueueDepth

NOW = 1_700_000_000_000


@pytest.mark.parametrize(
    ("url", "user", "told"),
    [
        ("redis://127.0.0.1/0", "default", []),
        ("redis://localhost/0", None, []),
        ("redis://[::1]/0", None, []),
        ("unix:///run/redis.sock", None, []),
        ("sentinel://127.0.0.1:26379/0?master_name=mymaster", None, []),
        ("redis://10.0.0.7/0", "default", ["weakens HEADRACE_REDIS_URL", "breaks requirepass"]),
        ("redis://producer:pw@10.0.0.7/0", "producer", ["weakens HEADRACE_REDIS_URL"]),
        ("rediss://:pw@redis.example/0", "default", ["weakens ACL"]),
        ("rediss://producer:pw@redis.example/0", "producer", []),
        ("rediss://producer:pw@redis.example/0?ssl_cert_reqs=none", "producer", ["weakens ssl_cert_reqs"]),
        ("rediss://producer:pw@redis.example/0", None, []),
    ],
)
def test_whoever_is_on_the_way_or_comes_in_is_told_of(url: str, user: str | None, told: list[str]):
    found = list(access(address.read_address(url), user))
    assert [f"{one.level} {one.directive}" for one in found] == told
    assert "pw" not in " ".join(map(str, found))


def model(waiting: int = 0, **more: object) -> Model:
    queue = QueueDepth(model="churn", queue="predict.churn", by_priority={0: waiting, 3: 0, 6: 0, 9: 0})
    usual = {
        "queue": queue,
        "aliases": Aliases("churn"),
        "loaded": {"w@host": WorkerStatus(versions=("1", "2"))},
        "refused": {},
    }
    return Model(**{**usual, **more})  # type: ignore[arg-type]  # the fields of a Model, as a test wants them


def found(*models: Model, lapses: tuple[int, ...] = ()) -> list[str]:
    seen = Service(now_ms=NOW, models=models, lapses_ms=lapses)
    return [f"{one.level} {one.directive} {one.actual}" for one in service(seen)]


def test_all_is_well_where_workers_have_what_aliases_name():
    aliases = Aliases("churn", {"production": Alias(version="2")})
    assert found(model(waiting=5, aliases=aliases), lapses=(NOW + 1, NOW - 2000)) == []


def test_jobs_without_a_worker_break_a_promise_and_a_queue_without_one_does_not():
    assert found(model(waiting=3, loaded={})) == [
        "breaks predict.churn served by no worker, with 3 jobs in it",
    ]
    assert found(model(loaded={})) == ["weakens predict.churn served by no worker, with 0 jobs in it"]


def test_an_alias_to_a_version_no_worker_has_is_told_and_a_refused_one_with_its_reason():
    aliases = Aliases("churn", {"production": Alias(version="3")})
    assert found(model(aliases=aliases)) == ["breaks churn@production version 3, which no worker has"]
    refused = {"3": LoadError(worker="w@host", reason="its digest is wrong")}
    assert found(model(aliases=aliases, refused=refused)) == [
        "weakens churn@3 refused by w@host: its digest is wrong",
    ]


def test_leases_nobody_sweeps_are_told():
    assert found(lapses=(NOW - 60_000, NOW - 11_000, NOW)) == [
        "breaks headrace:leases 2 lapsed, the first 1 min 0 s ago",
    ]
