"""Promotion: an alias moves once every worker has the version in memory, and not at all if a check fails."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import skops.io
from sklearn.dummy import DummyRegressor

from headrace.catalog.aliases import ARRIVING, Alias, move_alias
from headrace.catalog.workers import publish_status
from headrace.connection.commands import execute
from headrace.errors import HeadraceError, InvalidInput, ModelError, UnknownModel
from headrace.wire.keys import Keys
from headrace_worker.packaging.package import package
from headrace_worker.rollout.alias_moves import RolloutStatus
from headrace_worker.rollout.promotion import Promoter
from headrace_worker.store.store import Store
from tests.support.waiting import wait_until

KEYS = Keys("promotion-test:")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with three versions of one contract, and a model whose second version has one more feature."""
    folder = tmp_path_factory.mktemp("promotion")
    store = Store(folder / "models")
    for number, (name, width) in enumerate([("churn", 1), ("churn", 1), ("churn", 1), ("wide", 1), ("wide", 2)]):
        rows = [[float(row)] * width for row in range(3)]
        skops.io.dump(
            DummyRegressor(strategy="constant", constant=float(number)).fit(rows, [0.0] * 3), folder / "m.skops"
        )
        (folder / "rows.json").write_text(json.dumps(rows))
        package(store, folder / "m.skops", name=name, example=folder / "rows.json", runtime="sklearn")
    return store


@pytest.fixture
def promoter(server: redis.Redis, store: Store) -> Iterator[Promoter]:
    yield Promoter(server, KEYS, store, by="ann@here", max_bytes=1 << 30)
    names = (KEYS.aliases, KEYS.alias_history, KEYS.loaded, KEYS.refused)
    server.delete(*(key(model) for model in ("churn", "wide") for key in names))


def worker(server: redis.Redis, *versions: str, name: str = "a", **refused: str) -> None:
    """Publish the status of a worker."""
    execute(
        server,
        publish_status(
            KEYS, "churn", name, versions, {key.removeprefix("v"): reason for key, reason in refused.items()}
        ),
    )


def on_arriving(server: redis.Redis, action: Callable[[], None]) -> threading.Thread:
    """Start a thread that acts as soon as a version is announced to the workers."""

    def run() -> None:
        wait_until(lambda: server.hexists(KEYS.aliases("churn"), ARRIVING), 10)
        action()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def versions_by_alias(promoter: Promoter) -> dict[str, str]:
    return {name: alias.version for name, alias in promoter.aliases("churn").by_name.items()}


def test_an_alias_moves_when_the_last_worker_has_the_version(promoter: Promoter, server: redis.Redis):
    worker(server, "1", name="a")
    worker(server, "1", "2", name="b")
    pending: list[tuple[str, ...]] = []

    def load_on_status(status: RolloutStatus) -> None:
        pending.append(status.pending)
        worker(server, "1", "2", name="a")

    promotion = promoter.promote("churn", "2", reason="better", wait=10, on_status=load_on_status)
    assert pending == [("a",), ()]
    assert promotion.workers == ("a", "b")
    assert versions_by_alias(promoter) == {"production": "2"}
    (move,) = promoter.history("churn")
    assert (move.alias, move.version, move.former, move.by, move.reason) == (
        "production",
        "2",
        None,
        "ann@here",
        "better",
    )
    assert abs(move.at_ms / 1000 - time.time()) < 60


def test_a_promotion_ends_when_each_worker_routes_jobs_by_the_alias(promoter: Promoter, server: redis.Redis):
    old = {"production": Alias(version="1")}
    new = old | {"canary": Alias(version="2", share=0.2)}
    routed = {"a": old, "b": new, "c": new | {"canary": Alias(version="2", share=0.1)}}

    def publish() -> None:
        worker(server, "1", "2", name="of an older Headrace")
        for name, aliases in routed.items():
            execute(server, publish_status(KEYS, "churn", name, ["1", "2"], {}, aliases=aliases))

    def follow(_: float) -> None:
        name = next(name for name, aliases in routed.items() if aliases != new)
        routed[name] = new
        publish()

    publish()
    promoter._sleep = follow
    promoter.promote("churn", "2", alias="canary", share=0.2)
    assert set(map(str, routed.values())) == {str(new)}


def test_a_promotion_does_not_wait_for_ever_for_a_worker_that_routes_jobs_otherwise(
    promoter: Promoter, server: redis.Redis
):
    execute(server, publish_status(KEYS, "churn", "a", ["1", "2"], {}, aliases={}))
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.5
        return now

    promoter._clock, promoter._sleep = clock, lambda _: None
    assert promoter.promote("churn", "2").workers == ("a",)


def test_nothing_changes_if_a_worker_refuses_the_version(promoter: Promoter, server: redis.Redis):
    promoter.promote("churn", "1")
    worker(server, "1")
    thread = on_arriving(server, lambda: worker(server, "1", v2="churn@2 gives other predictions"))
    with pytest.raises(ModelError, match=r"nothing was changed\. a: churn@2 gives other predictions"):
        promoter.promote("churn", "2", wait=10)
    thread.join()
    assert versions_by_alias(promoter) == {"production": "1"}


def test_nothing_changes_if_a_worker_is_too_slow(promoter: Promoter, server: redis.Redis):
    worker(server, "1")
    with pytest.raises(HeadraceError, match=r"a had not loaded churn@2 after 0\.3 s; nothing was changed"):
        promoter.promote("churn", "2", wait=0.3)
    assert versions_by_alias(promoter) == {}
    promoter.promote("churn", "2", wait=0)
    assert versions_by_alias(promoter) == {"production": "2"}


def test_a_version_that_breaks_producers_needs_force(promoter: Promoter):
    promoter.promote("wide", "1", force=True)
    with pytest.raises(ModelError, match=r"wide@2 breaks producers: .*--force"):
        promoter.promote("wide", "2")
    assert promoter.aliases("wide").by_name["production"].version == "1"
    assert promoter.promote("wide", "2", force=True).changes
    assert promoter.aliases("wide").by_name["production"].version == "2"


def test_a_version_that_is_missing_or_damaged_is_refused_at_once(promoter: Promoter, store: Store, tmp_path: Path):
    with pytest.raises(UnknownModel, match="'9'"):
        promoter.promote("churn", "9")
    with pytest.raises(InvalidInput, match="a version is a number"):
        promoter.promote("churn", "../1")
    artifact = store.path / "churn" / "3" / "artifact.skops"
    good = artifact.read_bytes()
    try:
        artifact.chmod(0o600)
        artifact.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(ModelError, match="digest"):
            promoter.promote("churn", "3")
    finally:
        artifact.write_bytes(good)
    assert versions_by_alias(promoter) == {}


def test_a_second_rollback_goes_further_back(promoter: Promoter):
    for version in ("1", "2", "3"):
        promoter.promote("churn", version)
    assert promoter.rollback("churn", reason="worse").version == "2"
    assert promoter.rollback("churn").version == "1"
    with pytest.raises(HeadraceError, match=r"has pointed to churn@1 only: promote the version you want"):
        promoter.rollback("churn")
    assert versions_by_alias(promoter) == {"production": "1"}
    assert [move.rollback for move in promoter.history("churn")] == [True, True, False, False, False]


def test_a_canary_has_a_share_and_ends_when_it_becomes_production(promoter: Promoter):
    promoter.promote("churn", "1")
    promotion = promoter.promote("churn", "2", alias="canary", share=0.1)
    assert (promotion.alias, promotion.share) == ("canary", 0.1)
    assert versions_by_alias(promoter) == {"production": "1", "canary": "2"}
    promoter.promote("churn", "2")
    assert versions_by_alias(promoter) == {"production": "2"}
    promoter.promote("churn", "3", alias="canary", share=1.0)
    promoter.rollback("churn", alias="canary")
    assert versions_by_alias(promoter) == {"production": "2"}


@pytest.mark.parametrize(
    ("alias", "share"),
    [("canary", None), ("production", 0.5), ("canary", 0.0), ("canary", 1.5), ("arriving", None), ("No!", None)],
)
def test_an_invalid_alias_or_share_is_refused(promoter: Promoter, alias: str, share: float | None):
    with pytest.raises(InvalidInput):
        promoter.promote("churn", "1", alias=alias, share=share)


def test_of_two_concurrent_changes_of_an_alias_one_fails(promoter: Promoter, server: redis.Redis):
    promoter.promote("churn", "1")
    worker(server, "1")

    def other() -> None:
        execute(
            server,
            move_alias(
                KEYS, "churn", "production", Alias(version="1"), Alias(version="3"), by="bob@there", reason=""
            ),
        )
        worker(server, "1", "2")

    thread = on_arriving(server, other)
    with pytest.raises(HeadraceError, match="production of churn was changed by somebody else"):
        promoter.promote("churn", "2", wait=10)
    thread.join()
    assert versions_by_alias(promoter) == {"production": "3"}


def test_without_workers_a_promotion_does_not_wait(promoter: Promoter):
    sleeps: list[float] = []
    promoter._sleep = sleeps.append
    assert promoter.promote("churn", "1", wait=10).workers == ()
    assert sleeps == []
    with pytest.raises(HeadraceError, match="no alias staging"):
        promoter.rollback("churn", alias="staging")
