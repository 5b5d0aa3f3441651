"""A model store in S3, served by a local server."""

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

from headrace.errors import ModelError, StoreUnavailable, UnknownModel
from headrace_worker.store import remote
from headrace_worker.store.cache import Cache
from headrace_worker.store.object_storage import ObjectStorage
from headrace_worker.store.store import Store
from tests.support.s3_server import S3, s3, s3_of_module
from tests.support.stored_versions import DATA, make_manifest
from tests.support.waiting import wait_until

__all__ = ["s3", "s3_of_module"]  # fixtures

URL = "s3://models/production"


@pytest.fixture
def files(s3: S3) -> fsspec.AbstractFileSystem:
    """Return the file system with the objects of the store."""
    return fsspec.filesystem("s3", use_listings_cache=False)


@pytest.fixture
def cached(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Store]:
    """Return a function that opens the store as a worker does when it starts."""
    monkeypatch.setattr(remote, "_REFRESH_SECONDS", 0.05)
    return lambda: Store(URL, cache=Cache(tmp_path / "cache", max_bytes=1_000_000))


def test_versions_are_added_listed_and_read_back(s3: S3, files: fsspec.AbstractFileSystem) -> None:
    store = Store(URL)
    assert store.models() == []
    with pytest.raises(UnknownModel, match="no model 'churn' in s3://models/production; it is empty"):
        store.latest("churn")
    assert [store.add(make_manifest(), DATA).version for _ in range(11)][-1] == "11"
    assert store.models() == ["churn"]
    assert store.latest("churn") == "11"
    assert store.read_manifest("churn", "2").version == "2"
    assert store.read_artifact("churn", "2", max_bytes=100) == DATA
    assert store.verify("churn", "2", max_bytes=100).title == "churn@2"
    assert sorted(name.rpartition("/")[2] for name in files.find("models/production/churn/1")) == [
        "artifact.skops",
        "manifest.json",
        "reserved",
    ]
    with pytest.raises(UnknownModel, match=r"churn has no version '../1'; it has"):
        store.read_manifest("churn", "../1")


@pytest.mark.parametrize("conditional_writes", [True, False])
def test_many_writers_at_once_get_a_number_each(s3: S3, conditional_writes: bool) -> None:
    s3.conditional_writes = conditional_writes
    numbers: list[str] = []

    def add(writer: int) -> None:
        data = f"model of {writer}".encode()
        numbers.append(Store(URL).add(make_manifest(data=data), data).version)
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
    if conditional_writes:
        assert sorted(map(int, numbers)) == [1, 2, 3, 4, 5, 6]


def test_support_for_conditional_writes_is_detected(s3: S3) -> None:
    assert remote.RemoteBackend(URL)._supports_conditional_writes()
    assert remote.RemoteBackend(URL)._supports_conditional_writes()
    s3.conditional_writes = False
    assert not remote.RemoteBackend(URL)._supports_conditional_writes()


def test_a_reservation_that_is_written_twice_after_a_lost_reply_succeeds(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = remote.RemoteBackend(URL)
    create = ObjectStorage.create

    def create_twice(self: ObjectStorage, path: str, data: bytes) -> bool:
        create(self, path, data)
        return create(self, path, data)

    monkeypatch.setattr(ObjectStorage, "create", create_twice)
    assert backend._reserve("churn", "1")
    assert not backend._reserve("churn", "1")


def test_unfinished_versions_are_invisible_and_their_numbers_are_not_reused(
    s3: S3, files: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(URL)
    store.add(make_manifest(), DATA)
    put = remote.RemoteBackend.put

    def put_until_killed(self: remote.RemoteBackend, model: str, version: str, name: str, data: bytes) -> None:
        if name == "manifest.json":
            raise KeyboardInterrupt
        put(self, model, version, name, data)

    monkeypatch.setattr(remote.RemoteBackend, "put", put_until_killed)
    with pytest.raises(KeyboardInterrupt):
        store.add(make_manifest(), DATA)
    monkeypatch.setattr(remote.RemoteBackend, "put", put)
    assert store.versions("churn") == ["1"]
    assert store.add(make_manifest(), DATA).version == "3"
    now = datetime.now(UTC)
    assert store.list_unfinished(now - timedelta(hours=1)) == []
    (unfinished,) = store.list_unfinished(now + timedelta(minutes=1))
    assert (unfinished.model, unfinished.name) == ("churn", "2")
    store.remove_unfinished(unfinished)
    assert store.list_unfinished(now + timedelta(minutes=1)) == []
    assert [name.rpartition("/")[2] for name in files.find("models/production/churn/2")] == ["reserved"]
    assert store.add(make_manifest(), DATA).version == "4"


def test_removing_a_version_removes_all_its_files(s3: S3, files: fsspec.AbstractFileSystem) -> None:
    store = Store(URL)
    store.add(make_manifest(), DATA)
    store.add(make_manifest(), DATA)
    assert store.size("churn", "1") > len(DATA)
    store.remove("churn", "1")
    assert store.versions("churn") == ["2"]
    assert files.find("models/production/churn/1") == []
    assert store.add(make_manifest(), DATA).version == "3"


def test_a_missing_bucket_is_reported(s3: S3) -> None:
    store = Store("s3://nowhere/models")
    assert store.models() == []
    with pytest.raises(ModelError, match="s3://nowhere/models does not exist; create the bucket first"):
        store.add(make_manifest(), DATA)


def test_an_artifact_is_fetched_once_and_again_if_its_cached_copy_was_changed(
    s3: S3, cached: Callable[[], Store], files: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    Store(URL).add(make_manifest(), DATA)
    assert cached().read_artifact("churn", "1", max_bytes=100) == DATA
    copy = tmp_path / "cache/artifacts" / hashlib.sha256(DATA).hexdigest()
    copy.write_bytes(b"changed")
    assert cached().read_artifact("churn", "1", max_bytes=100) == DATA
    assert copy.read_bytes() == DATA
    files.pipe_file("models/production/churn/1/artifact.skops", b"changed")
    assert cached().read_artifact("churn", "1", max_bytes=100) == DATA
    copy.unlink()
    changed = cached().read_artifact("churn", "1", max_bytes=100)
    assert changed == b"changed"  # `verify` and the loader check the digest
    assert not copy.exists()
    with pytest.raises(ModelError, match="churn@1 has another digest than its manifest says"):
        Store(URL).verify("churn", "1", max_bytes=100)


def test_a_damaged_manifest_in_the_cache_is_fetched_again(cached: Callable[[], Store], tmp_path: Path) -> None:
    Store(URL).add(make_manifest(), DATA)
    assert cached().read_manifest("churn", "1").title == "churn@1"
    (copy,) = (tmp_path / "cache/stores").rglob("manifest.json")
    copy.write_text("{")
    assert cached().read_manifest("churn", "1").title == "churn@1"


def test_an_artifact_over_the_limit_is_not_read(s3: S3, files: fsspec.AbstractFileSystem) -> None:
    store = Store(URL)
    store.add(make_manifest(), DATA)
    with pytest.raises(ModelError, match="churn@1 takes 20 bytes, more than the 10"):
        store.read_artifact("churn", "1", max_bytes=10)
    files.pipe_file("models/production/churn/1/artifact.skops", b"x" * 5000)
    with pytest.raises(ModelError, match=r"churn@1 takes .* bytes, more than the 100"):
        store.read_artifact("churn", "1", max_bytes=100)


def test_new_versions_are_listed_in_the_background(
    s3: S3, cached: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = cached()
    assert store.models() == []
    listing_threads: set[str] = set()
    list_sizes = ObjectStorage.list_sizes

    def list_and_record(self: ObjectStorage, path: str) -> dict[str, int]:
        listing_threads.add(threading.current_thread().name)
        return list_sizes(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStorage, "list_sizes", list_and_record)
        Store(URL).add(make_manifest(), DATA)
        listing_threads.clear()
        wait_until(lambda: store.versions("churn") == ["1"])
    assert listing_threads == {"headrace-store"}


def test_cached_versions_serve_and_one_warning_is_logged_while_the_store_is_unavailable(
    s3: S3, cached: Callable[[], Store], caplog: pytest.LogCaptureFixture
) -> None:
    Store(URL).add(make_manifest(), DATA)
    running = cached()
    assert running.read_artifact("churn", "1", max_bytes=100) == DATA
    Store(URL).add(make_manifest(data=b"newer"), b"newer")
    wait_until(lambda: running.versions("churn") == ["1", "2"])
    s3.stop()
    try:
        with caplog.at_level(logging.WARNING, "headrace.models"):
            wait_until(lambda: running.versions("churn") and "serving the versions cached" in caplog.text)
            for _ in range(5):
                assert running.versions("churn") == ["1", "2"]
                time.sleep(0.06)
            assert caplog.text.count("is unavailable") == 1
        # A worker that starts meanwhile uses the copies that another process has cached.
        started = cached()
        assert started.versions("churn") == ["1", "2"]
        assert started.read_manifest("churn", "1").title == "churn@1"
        assert started.read_artifact("churn", "1", max_bytes=100) == DATA
        with pytest.raises(StoreUnavailable, match="s3://models/production is unavailable"):
            started.read_manifest("churn", "2")
        with pytest.raises(StoreUnavailable, match="is unavailable"):
            Store(URL).models()
        with pytest.raises(StoreUnavailable, match="is unavailable"):
            Store(URL).add(make_manifest(), DATA)
    finally:
        s3.start()
    with caplog.at_level(logging.WARNING, "headrace.models"):
        wait_until(lambda: running.versions("churn") and "is available again" in caplog.text)
    assert running.read_manifest("churn", "2").title == "churn@2"


def test_copies_of_removed_versions_are_dropped(cached: Callable[[], Store], tmp_path: Path) -> None:
    Store(URL).add(make_manifest(), DATA)
    Store(URL).add(make_manifest(), DATA)
    running = cached()
    running.read_manifest("churn", "1")
    Store(URL).remove("churn", "1")
    wait_until(lambda: running.versions("churn") == ["2"])
    wait_until(lambda: not list((tmp_path / "cache/stores").rglob("1")))


def test_a_forked_process_can_read(s3: S3, cached: Callable[[], Store]) -> None:
    import os

    Store(URL).add(make_manifest(), DATA)
    store = cached()
    assert store.versions("churn") == ["1"]
    child = os.fork()
    if child == 0:  # like a pool process, which needs a connection of its own
        try:
            code = 0 if store.read_artifact("churn", "1", max_bytes=100) == DATA else 2
        except BaseException:  # noqa: BLE001  # pytest must not continue in two processes
            code = 1
        os._exit(code)
    wait_until(lambda: os.waitpid(child, os.WNOHANG) == (child, 0))
