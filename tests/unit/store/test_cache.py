from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from headrace.errors import ModelError
from headrace_worker.store.cache import Cache, VersionListing


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_an_artifact_is_kept_by_its_digest(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", max_bytes=100)
    assert cache.read_artifact(digest(b"model"), 10) is None
    cache.put_artifact(digest(b"model"), b"model")
    assert cache.read_artifact(digest(b"model"), 10) == b"model"
    assert cache.read_artifact(digest(b"model"), 4) is None
    assert cache.read_artifact(digest(b"model"), 5) == b"model"


def test_a_changed_artifact_is_dropped(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=100)
    cache.put_artifact(digest(b"model"), b"model")
    (tmp_path / "artifacts" / digest(b"model")).write_bytes(b"modem")
    assert cache.read_artifact(digest(b"model"), 10) is None
    assert not list((tmp_path / "artifacts").iterdir())


def test_the_least_recently_used_artifact_is_dropped_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=25)
    names = [digest(bytes([number]) * 10) for number in range(3)]
    for number, name in enumerate(names[:2]):
        cache.put_artifact(name, bytes([number]) * 10)
        os.utime(tmp_path / "artifacts" / name, (number, number))
    assert cache.read_artifact(names[0], 10)  # marks it as recently used
    cache.put_artifact(names[2], bytes([2]) * 10)
    assert {path.name for path in (tmp_path / "artifacts").iterdir()} == {names[0], names[2]}


def test_an_artifact_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", max_bytes=4)
    cache.put_artifact(digest(b"model"), b"model")
    assert not (tmp_path / "cache").exists()


def test_old_temporary_files_are_removed(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=100)
    cache.put_artifact(digest(b"a"), b"a")
    old, new = tmp_path / "artifacts/.old", tmp_path / "artifacts/.writing"
    for path in (old, new):
        path.write_bytes(b"incomplete")
    os.utime(old, (time.time() - 7200,) * 2)
    cache.put_artifact(digest(b"b"), b"b")
    assert not old.exists()
    assert new.exists()


def test_only_its_owner_can_read_a_cache(tmp_path: Path) -> None:
    Cache(tmp_path / "cache", max_bytes=100).put_artifact(digest(b"a"), b"a")
    assert stat.S_IMODE((tmp_path / "cache/artifacts").stat().st_mode) == 0o700


def test_a_cache_that_cannot_be_written_names_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"cannot be written: .*; set HEADRACE_MODEL_CACHE to a writable folder"):
        Cache(tmp_path / "file", max_bytes=100).put_artifact(digest(b"a"), b"a")


def test_many_threads_read_complete_artifacts_while_others_are_dropped(tmp_path: Path) -> None:
    artifacts = [bytes([number]) * 1000 for number in range(6)]
    wrong: list[bytes] = []

    def use(thread: int) -> None:
        cache = Cache(tmp_path, max_bytes=2500)
        for turn in range(60):
            data = artifacts[(thread + turn) % len(artifacts)]
            cached = cache.read_artifact(digest(data), 1000)
            if cached is None:
                cache.put_artifact(digest(data), data)
            elif cached != data:
                wrong.append(cached)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not wrong
    Cache(tmp_path, max_bytes=2500).put_artifact(digest(b"last"), b"last")
    assert sum(path.stat().st_size for path in (tmp_path / "artifacts").iterdir()) <= 2500


def test_a_listing_is_cached_and_removed_versions_are_dropped(tmp_path: Path) -> None:
    store = Cache(tmp_path, max_bytes=100).open("s3://models/a")
    assert store.read_listing() is None
    store.put("churn", "1", "manifest.json", b"{}")
    store.put("churn", "2", "manifest.json", b"{}")
    store.put_listing(VersionListing(read_at=1.0, versions={"churn": ["2"]}))
    assert store.read_listing() == VersionListing(read_at=1.0, versions={"churn": ["2"]})
    assert store.read("churn", "1", "manifest.json") is None
    assert store.read("churn", "2", "manifest.json") == b"{}"
    assert Cache(tmp_path, max_bytes=100).open("s3://models/b").read_listing() is None
    (tmp_path / "stores").rglob("versions.json").__next__().write_text("{")
    assert store.read_listing() is None
