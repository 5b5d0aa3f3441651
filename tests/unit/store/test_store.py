from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.errors import InvalidInput, ModelError, StoreUnavailable, UnknownModel
from headrace_worker.store.store import Store
from tests.support.stored_versions import DATA, make_manifest


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def test_versions_are_numbered_from_one(store: Store) -> None:
    assert [store.add(make_manifest(), DATA).version for _ in range(3)] == ["1", "2", "3"]
    assert store.versions("churn") == ["1", "2", "3"]
    assert store.latest("churn") == "3"


def test_versions_sort_as_numbers(store: Store) -> None:
    for _ in range(11):
        store.add(make_manifest(), DATA)
    assert store.latest("churn") == "11"


def test_an_added_version_is_read_back_unchanged(store: Store) -> None:
    added = store.add(make_manifest(), DATA)
    assert store.read_manifest("churn", "1") == added
    assert added.contract.version == "1"
    assert store.read_artifact("churn", "1", max_bytes=100) == DATA


def test_a_manifest_is_readable_by_people(store: Store) -> None:
    store.add(make_manifest(), DATA)
    text = (store.path / "churn/1/manifest.json").read_text()
    assert '\n  "name": "churn",\n' in text
    assert sorted(path.name for path in (store.path / "churn/1").iterdir()) == ["artifact.skops", "manifest.json"]


def test_a_store_that_does_not_exist_is_empty(store: Store) -> None:
    assert store.models() == []
    assert store.versions("churn") == []
    with pytest.raises(UnknownModel, match="it is empty; `headrace models add` adds one"):
        store.latest("churn")


def test_the_error_for_an_unknown_model_suggests_a_similar_name(store: Store) -> None:
    store.add(make_manifest("churn"), DATA)
    with pytest.raises(UnknownModel, match=r"no model 'chrun' in .*; did you mean 'churn'"):
        store.read_manifest("chrun", "1")
    with pytest.raises(UnknownModel, match=r"no model 'penguins' in .*; it has churn"):
        store.latest("penguins")


@pytest.mark.parametrize("version", ["2", "0", "01", "-1", "latest", "", "1/../1", "../churn/1", "x" * 999])
def test_the_error_for_an_unknown_version_lists_the_versions(store: Store, version: str) -> None:
    store.add(make_manifest(), DATA)
    with pytest.raises(UnknownModel, match=r"churn has no version .*; it has 1"):
        store.read_manifest("churn", version)


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc", ".hidden", "a b", "ä", "x" * 65])
def test_a_name_that_could_leave_the_store_is_refused(store: Store, name: str) -> None:
    for operation in (store.versions, store.latest, lambda name: store.add(make_manifest(name), DATA)):
        with pytest.raises(InvalidInput, match="a model's name"):
            operation(name)


def test_unfinished_versions_and_other_files_are_invisible(store: Store) -> None:
    store.add(make_manifest(), DATA)
    (store.path / "churn/.adding-before-a-crash").mkdir()
    (store.path / "churn/notes").mkdir()
    (store.path / ".git").mkdir()
    (store.path / "README.md").write_text("models")
    (store.path / "empty").mkdir()
    assert store.models() == ["churn"]
    assert store.versions("churn") == ["1"]


def test_many_writers_at_once_get_a_number_each(store: Store) -> None:
    numbers: list[str] = []

    def add(writer: int) -> None:
        data = str(writer).encode()
        added = store.add(make_manifest(data=data), data)
        numbers.append(added.version)
        assert store.read_artifact("churn", added.version, max_bytes=100) == data

    threads = [threading.Thread(target=add, args=(writer,)) for writer in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(map(int, numbers)) == list(range(1, 17))
    assert sorted(int(path.name) for path in (store.path / "churn").iterdir()) == list(range(1, 17))


def test_a_version_is_never_overwritten(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add(make_manifest(), DATA)
    # A second writer that listed the versions before the first finished wants number 1 too.
    monkeypatch.setattr(store, "versions", lambda _: [])
    assert store.add(make_manifest(data=b"other"), b"other").version == "2"
    assert (store.path / "churn/1/artifact.skops").read_bytes() == DATA


def test_a_failed_add_removes_its_files(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path, __: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(ModelError, match=r"churn cannot be written to .*: No space left on device"):
        store.add(make_manifest(), DATA)
    assert not list((store.path / "churn").iterdir())


def test_a_store_that_is_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        Store(tmp_path / "models").add(make_manifest(), DATA)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"name": 1}', "\xff", "[" * 100_000])
def test_a_damaged_manifest_is_reported(store: Store, text: str) -> None:
    store.add(make_manifest(), DATA)
    (store.path / "churn/1/manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match="the manifest of churn@1 cannot be read"):
        store.read_manifest("churn", "1")


def test_a_missing_manifest_is_reported(store: Store) -> None:
    store.add(make_manifest(), DATA)
    (store.path / "churn/1/manifest.json").unlink()
    with pytest.raises(ModelError, match=r"churn@1 cannot be read: .*manifest.json: No such file"):
        store.read_manifest("churn", "1")


def test_a_version_copied_by_hand_is_reported(store: Store) -> None:
    store.add(make_manifest(), DATA)
    (store.path / "churn/1").rename(store.path / "churn/7")
    with pytest.raises(ModelError, match="the manifest of churn@7 names churn@1"):
        store.read_manifest("churn", "7")


def test_an_artifact_over_the_limit_is_not_read(store: Store) -> None:
    store.add(make_manifest(), DATA)
    with pytest.raises(ModelError, match="churn@1 takes 20 bytes, more than the 10 of HEADRACE_MAX_MODEL_BYTES"):
        store.read_artifact("churn", "1", max_bytes=10)


def test_a_file_url_is_a_folder(store: Store) -> None:
    store.add(make_manifest(), DATA)
    assert Store(f"file://{store.path}").latest("churn") == "1"
    assert Store(f"file://{store.path}").path == store.path


def test_a_url_needs_a_package_that_supports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"the model store nosuch://x cannot be used: ValueError"):
        Store("nosuch://user:secret@x").models()
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ModelError, match=r"not a folder: pip install 'headrace-worker\[s3\]'"):
        Store("s3://models").models()


def test_a_mounted_folder_that_does_not_answer_is_unavailable(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add(make_manifest(), DATA)

    def stale(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", stale)
        with pytest.raises(StoreUnavailable, match=r"churn@1 cannot be read: .*manifest.json: Stale file handle"):
            store.read_manifest("churn", "1")
    monkeypatch.setattr(os, "listdir", stale)
    with pytest.raises(StoreUnavailable, match="Stale file handle"):
        store.models()


def test_a_removed_version_disappears_in_one_step(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        store.add(make_manifest(), DATA)
    assert store.size("churn", "1") > len(DATA)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda _: None)  # as if killed after the first step
        store.remove("churn", "1")
    assert store.versions("churn") == ["2"]
    with pytest.raises(UnknownModel):
        store.remove("churn", "1")
    (unfinished,) = store.list_unfinished(datetime.now(UTC) + timedelta(minutes=1))
    assert unfinished.size > len(DATA)
    store.remove_unfinished(unfinished)
    assert [path.name for path in (store.path / "churn").iterdir()] == ["2"]
