"""A model store in S3, on a real server of this machine."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest

from headrace.catalog.contract import Contract, Output, Text
from headrace.errors import ModelError, StoreUnavailable, UnknownModel
from headrace_worker import manifest as manifests
from headrace_worker.manifest import Example, Manifest
from headrace_worker.store import remote
from headrace_worker.store.cache import Cache
from headrace_worker.store.store import Store
from tests.support.s3_server import S3, s3, s3_of_module
from tests.support.waiting import wait_until

__all__ = ["s3", "s3_of_module"]  # fixtures

DATA = b"the bytes of a model"
URL = "s3://models/production"


def manifest(name: str = "churn", data: bytes = DATA) -> Manifest:
    return Manifest(
        name=name,
        version="0",
        created=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        estimator="Dummy",
        format="skops",
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        libraries=manifests.installed_libraries(),
        contract=Contract(model=name, version="0", input=Text(), methods={"predict": Output(shape=())}),
        example=Example(instances=["a"], expected={"predict": [1.5]}),
    )


@pytest.fixture
def files(s3: S3) -> fsspec.AbstractFileSystem:
    """The objects behind the store."""
    return fsspec.filesystem("s3", use_listings_cache=False)


@pytest.fixture
def cached(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Store]:
    """A store as a worker has it, each time as a worker that has just started."""
    monkeypatch.setattr(remote, "_LOOK_EVERY", 0.05)
    return lambda: Store(URL, cache=Cache(tmp_path / "cache", max_bytes=1_000_000))


def test_versions_are_added_listed_and_read_back(s3: S3, files: fsspec.AbstractFileSystem) -> None:
    store = Store(URL)
    assert store.models() == []
    with pytest.raises(UnknownModel, match="no model 'churn' in s3://models/production; it is empty"):
        store.latest("churn")
    assert [store.add(manifest(), DATA).version for _ in range(11)][-1] == "11"
    assert store.models() == ["churn"]
    assert store.latest("churn") == "11"
    assert store.read_manifest("churn", "2").version == "2"
    assert store.read_artifact("churn", "2", max_bytes=100) == DATA
    assert store.verify("churn", "2", max_bytes=100).title == "churn@2"
    assert sorted(name.rpartition("/")[2] for name in files.find("models/production/churn/1")) == [
        "artifact.skops",
        "claim",
        "manifest.json",
    ]
    with pytest.raises(UnknownModel, match=r"churn has no version '../1'; it has"):
        store.read_manifest("churn", "../1")


@pytest.mark.parametrize("heeds_conditions", [True, False])
def test_many_writers_at_once_get_a_number_each(s3: S3, heeds_conditions: bool) -> None:
    s3.heeds_conditions = heeds_conditions
    numbers: list[str] = []

    def add(writer: int) -> None:
        data = f"model of {writer}".encode()
        numbers.append(Store(URL).add(manifest(data=data), data).version)
        assert Store(URL).read_artifact("churn", numbers[-1], max_bytes=100)

    threads = [threading.Thread(target=add, args=(writer,)) for writer in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(set(numbers)) == 6
    store = Store(URL)
    assert store.versions("churn") == sorted(numbers, key=int)
    for number in numbers:
        store.verify("churn", number, max_bytes=100)
    if heeds_conditions:
        assert sorted(map(int, numbers)) == [1, 2, 3, 4, 5, 6]


def test_a_store_that_heeds_conditions_is_told_from_one_that_does_not(s3: S3) -> None:
    assert remote.Remote(URL)._conditions_count()
    assert remote.Remote(URL)._conditions_count()
    s3.heeds_conditions = False
    assert not remote.Remote(URL)._conditions_count()


def test_a_claim_whose_reply_was_lost_is_still_ones_own(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    place = remote.Remote(URL)
    create = remote.Remote._create

    def sent_twice(self: remote.Remote, path: str, data: bytes) -> bool:
        create(self, path, data)
        return create(self, path, data)

    monkeypatch.setattr(remote.Remote, "_create", sent_twice)
    assert place._claim("churn", "1")
    assert not place._claim("churn", "1")


def test_half_written_versions_are_invisible_and_their_numbers_are_not_used_again(
    s3: S3, files: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(URL)
    store.add(manifest(), DATA)
    put = remote.Remote.put

    def dies(self: remote.Remote, model: str, version: str, name: str, data: bytes) -> None:
        if name == "manifest.json":
            raise KeyboardInterrupt
        put(self, model, version, name, data)

    monkeypatch.setattr(remote.Remote, "put", dies)
    with pytest.raises(KeyboardInterrupt):
        store.add(manifest(), DATA)
    monkeypatch.setattr(remote.Remote, "put", put)
    assert store.versions("churn") == ["1"]
    assert store.add(manifest(), DATA).version == "3"
    now = datetime.now(UTC)
    assert store.list_unfinished(now - timedelta(hours=1)) == []
    (left,) = store.list_unfinished(now + timedelta(minutes=1))
    assert (left.model, left.name) == ("churn", "2")
    store.remove_unfinished(left)
    assert store.list_unfinished(now + timedelta(minutes=1)) == []
    assert [name.rpartition("/")[2] for name in files.find("models/production/churn/2")] == ["claim"]
    assert store.add(manifest(), DATA).version == "4"


def test_a_removed_version_is_gone_with_all_its_files(s3: S3, files: fsspec.AbstractFileSystem) -> None:
    store = Store(URL)
    store.add(manifest(), DATA)
    store.add(manifest(), DATA)
    assert store.size("churn", "1") > len(DATA)
    store.remove("churn", "1")
    assert store.versions("churn") == ["2"]
    assert files.find("models/production/churn/1") == []
    assert store.add(manifest(), DATA).version == "3"


def test_a_bucket_that_is_not_there_is_told(s3: S3) -> None:
    store = Store("s3://nowhere/models")
    assert store.models() == []
    with pytest.raises(ModelError, match="s3://nowhere/models is not there; create the bucket first"):
        store.add(manifest(), DATA)


def test_artifacts_are_fetched_once_and_again_when_what_is_kept_was_changed(
    s3: S3, cached: Callable[[], Store], files: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    Store(URL).add(manifest(), DATA)
    assert cached().read_artifact("churn", "1", max_bytes=100) == DATA
    kept = tmp_path / "cache/artifacts" / hashlib.sha256(DATA).hexdigest()
    kept.write_bytes(b"changed")
    assert cached().read_artifact("churn", "1", max_bytes=100) == DATA
    assert kept.read_bytes() == DATA
    files.pipe_file("models/production/churn/1/artifact.skops", b"changed")
    assert cached().read_artifact("churn", "1", max_bytes=100) == DATA
    kept.unlink()
    assert (
        cached().read_artifact("churn", "1", max_bytes=100) == b"changed"
    )  # as `verify` and the loader will find
    assert not kept.exists()
    with pytest.raises(ModelError, match="churn@1 has another digest than its manifest says"):
        Store(URL).verify("churn", "1", max_bytes=100)


def test_a_manifest_that_was_damaged_in_the_cache_is_read_again(
    cached: Callable[[], Store], tmp_path: Path
) -> None:
    Store(URL).add(manifest(), DATA)
    assert cached().read_manifest("churn", "1").title == "churn@1"
    (kept,) = (tmp_path / "cache/stores").rglob("manifest.json")
    kept.write_text("{")
    assert cached().read_manifest("churn", "1").title == "churn@1"


def test_an_object_larger_than_it_may_be_is_not_read(s3: S3, files: fsspec.AbstractFileSystem) -> None:
    store = Store(URL)
    store.add(manifest(), DATA)
    with pytest.raises(ModelError, match="churn@1 takes 20 bytes, more than the 10"):
        store.read_artifact("churn", "1", max_bytes=10)
    files.pipe_file("models/production/churn/1/artifact.skops", b"x" * 5000)
    with pytest.raises(ModelError, match=r"churn@1 takes .* bytes, more than the 100"):
        store.read_artifact("churn", "1", max_bytes=100)


def test_new_versions_are_seen_within_moments_and_nobody_waits_for_the_store(
    s3: S3, cached: Callable[[], Store]
) -> None:
    store = cached()
    assert store.models() == []
    Store(URL).add(manifest(), DATA)
    wait_until(lambda: store.versions("churn") == ["1"])
    s3.stop()
    try:
        time.sleep(0.1)
        began = time.monotonic()
        assert store.versions("churn") == ["1"]
        assert time.monotonic() - began < 0.2
    finally:
        s3.start()


def test_a_store_that_is_away_serves_on_and_says_so(
    s3: S3, cached: Callable[[], Store], caplog: pytest.LogCaptureFixture
) -> None:
    Store(URL).add(manifest(), DATA)
    running = cached()
    assert running.read_artifact("churn", "1", max_bytes=100) == DATA
    Store(URL).add(manifest(data=b"newer"), b"newer")
    wait_until(lambda: running.versions("churn") == ["1", "2"])
    s3.stop()
    try:
        with caplog.at_level(logging.WARNING, "headrace.models"):
            wait_until(lambda: running.versions("churn") and "serves on" in caplog.text)
            for _ in range(5):
                assert running.versions("churn") == ["1", "2"]
                time.sleep(0.06)
            assert caplog.text.count("is away") == 1
        # One that starts meanwhile has what was read before, by whomever.
        started = cached()
        assert started.versions("churn") == ["1", "2"]
        assert started.read_manifest("churn", "1").title == "churn@1"
        assert started.read_artifact("churn", "1", max_bytes=100) == DATA
        with pytest.raises(StoreUnavailable, match="s3://models/production is away"):
            started.read_manifest("churn", "2")
        with pytest.raises(StoreUnavailable, match="is away"):
            Store(URL).models()
        with pytest.raises(StoreUnavailable, match="is away"):
            Store(URL).add(manifest(), DATA)
    finally:
        s3.start()
    with caplog.at_level(logging.WARNING, "headrace.models"):
        wait_until(lambda: running.versions("churn") and "is back" in caplog.text)
    assert running.read_manifest("churn", "2").title == "churn@2"


def test_what_the_store_has_no_more_is_forgotten(cached: Callable[[], Store], tmp_path: Path) -> None:
    Store(URL).add(manifest(), DATA)
    Store(URL).add(manifest(), DATA)
    running = cached()
    running.read_manifest("churn", "1")
    Store(URL).remove("churn", "1")
    wait_until(lambda: running.versions("churn") == ["2"])
    wait_until(lambda: not list((tmp_path / "cache/stores").rglob("1")))


def test_a_forked_process_reads_on(s3: S3, cached: Callable[[], Store]) -> None:
    import os

    Store(URL).add(manifest(), DATA)
    store = cached()
    assert store.versions("churn") == ["1"]
    child = os.fork()
    if child == 0:  # a pool process: what it has not read yet, it reads over a connection of its own
        try:
            code = 0 if store.read_artifact("churn", "1", max_bytes=100) == DATA else 2
        except BaseException:  # noqa: BLE001  # pytest is not to go on in two processes
            code = 1
        os._exit(code)
    wait_until(lambda: os.waitpid(child, os.WNOHANG) == (child, 0))
