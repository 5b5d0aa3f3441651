"""Names in a message, and files in a store, lead neither out of the store nor past its limits."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import skops.io
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

from headrace.catalog.contract import Contract, Output, Text
from headrace.errors import ModelError
from headrace.wire.message import Job
from headrace.wire.outcome import Failure
from headrace_worker import manifest as manifests
from headrace_worker.execution.batching import admit
from headrace_worker.manifest import Example, Manifest
from headrace_worker.models.loader import load
from headrace_worker.models.registry import Registry
from headrace_worker.packaging.package import package
from headrace_worker.settings import WorkerSettings
from headrace_worker.store import artifact
from headrace_worker.store import store as stores
from headrace_worker.store.store import Store
from tests.support.claim_reports import claimed_job

X, Y = make_classification(50, 5, random_state=0)
NOW = datetime(2026, 1, 2, tzinfo=UTC)
DIGITS = "1" * 300


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store with one version, beside a folder that looks like another store."""
    skops.io.dump(LogisticRegression().fit(X, Y), tmp_path / "model.skops")
    (tmp_path / "example.json").write_text(json.dumps(X[:2].tolist()))
    for name in ("models", "secret"):
        store = Store(tmp_path / name)
        package(store, tmp_path / "model.skops", name="churn", example=tmp_path / "example.json")
    return Store(tmp_path / "models")


def run_job(store: Store, model: str, version: str | None = None) -> Failure:
    """Return the failure of a job that names this model and version."""
    registry = Registry(store, WorkerSettings(models=str(store.path)))
    job = Job(id="a", model=model, version=version, instances=[X[0].tolist()])
    failure = admit(claimed_job(job), registry, NOW)
    assert isinstance(failure, Failure)
    assert len(failure.message) < 1000
    return failure


MODELS = [
    "",
    "..",
    "../secret/churn",
    "/etc",
    "churn/",
    "churn/1",
    "churn@1",
    "churn\x00",
    "churn\n",
    "file:///etc/passwd",
    "s3://bucket/churn",
    "\uff43hurn",
    "chu\u0301rn",
    ".adding-x",
    "x" * 300,
    "%2e%2e",
]
VERSIONS = [
    "",
    "0",
    "01",
    "+1",
    "-1",
    " 1",
    "1 ",
    "1\n",
    "1\x00",
    "1.0",
    "1e0",
    "..",
    "../x",
    "../../secret/churn/1",
    "latest/../..",
    "1/../1",
    "./1",
    "file:///etc/passwd",
    "s3://bucket/1",
    "\u0661",  # a digit, but not an ASCII digit
    "\uff11",
    "\u00b9",
    DIGITS,
]


@pytest.mark.parametrize("model", MODELS)
def test_no_name_leads_out_of_the_store(store: Store, model: str) -> None:
    assert run_job(store, model).reason == "bad input"


@pytest.mark.parametrize("version", VERSIONS)
def test_no_version_leads_out_of_the_store(store: Store, version: str) -> None:
    failure = run_job(store, "churn", version)
    assert failure.reason == "unknown model"
    assert "it has" in failure.message  # the versions, or the aliases if the name is not a number


def test_the_store_follows_no_name_in_a_manifest(store: Store) -> None:
    path = store.path / "churn/1/manifest.json"
    for change in ({"format": "../../../secret"}, {"runtime": "../x"}, {"name": "../churn"}, {"version": "../1"}):
        read = msgspec.json.decode(path.read_bytes())
        path.with_name("manifest.json").write_bytes(msgspec.json.encode(read | change))
        with pytest.raises(ModelError, match=r"the manifest of churn@1 (cannot be read|names)"):
            store.read_artifact("churn", "1", max_bytes=1_000_000)
        path.write_bytes(msgspec.json.encode(read))


def add_forged(store: Store, artifact: bytes, **fields: Any) -> None:
    """Add a forged version whose manifest describes its artifact correctly."""
    store.add(
        Manifest(
            **{
                "name": "forged",
                "version": "0",
                "created": NOW,
                "estimator": "Dummy",
                "format": "skops",
                "sha256": hashlib.sha256(artifact).hexdigest(),
                "size": len(artifact),
                "libraries": manifests.installed_libraries(),
                "contract": Contract(
                    model="forged", version="0", input=Text(), methods={"predict": Output(shape=())}
                ),
                "example": Example(instances=["a"], expected={"predict": [1]}),
                **fields,
            }
        ),
        artifact,
    )


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("_", "."), data)
    return file.getvalue()


def test_a_zip_bomb_in_the_store_is_not_unpacked(store: Store) -> None:
    add_forged(store, zipped(schema_json=b" " * 50_000_000))
    with pytest.raises(ModelError, match=r"forged@1 unpacks to 50,000,000 bytes, more than the 1,000,000"):
        load(store, "forged", "1", max_bytes=1_000_000)


def test_an_array_of_terabytes_in_the_store_is_not_allocated(store: Store) -> None:
    """The header of the .npy file names a shape that its few bytes do not hold."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    header = header.ljust(117) + b"\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    schema = {
        "__class__": "ndarray",
        "__module__": "numpy",
        "__loader__": "NdArrayNode",
        "type": "numpy",
        "file": "a.npy",
        "protocol": 2,
        "_skops_version": "0.16",
    }
    add_forged(store, zipped(schema_json=json.dumps(schema).encode(), a_npy=array))
    with pytest.raises(ModelError, match=r"forged@1 (cannot be loaded|needs more memory)"):
        load(store, "forged", "1", max_bytes=10_000_000)


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def test_a_pickle_in_the_store_is_not_read_whatever_format_its_manifest_names(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, form in enumerate(("joblib", "skops"), start=1):
        add_forged(store, pickle.dumps(RunsCode()), format=form)
        with pytest.raises(ModelError, match=f"forged@{number} "):
            load(store, "forged", str(number))
    assert not Path("ran").exists()


def test_an_archive_whose_parts_begin_before_it_is_refused() -> None:
    data = skops.io.dumps(LogisticRegression().fit(X, Y))
    position = data.rindex(b"PK\x05\x06") + 16  # where the list of its files begins
    forged = data[:position] + b"\xff\xff\x00\x00" + data[position + 4 :]
    assert artifact.find_older_sklearn(forged, "skops", 10**6) == ""
    with pytest.raises(ModelError, match="cannot be loaded"):
        artifact.load(forged, "skops", "model", max_bytes=10**6, trust_pickle=False)


def test_a_manifest_is_read_up_to_its_limit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "_MAX_MANIFEST_BYTES", 10_000)
    with (store.path / "churn/1/manifest.json").open("r+b") as file:
        file.truncate(1 << 40)  # a terabyte, none of it on disk
    with pytest.raises(ModelError, match="the manifest of churn@1 takes more than 10,000 bytes"):
        store.read_manifest("churn", "1")


def test_an_artifact_is_read_up_to_its_limit_whatever_its_manifest_says(store: Store) -> None:
    with (store.path / "churn/1/artifact.skops").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelError, match=r"churn@1 takes .* bytes, more than the 100,000"):
        store.read_artifact("churn", "1", max_bytes=100_000)


def test_symbolic_links_in_the_store_are_not_versions(store: Store, tmp_path: Path) -> None:
    (store.path / "churn/1x").symlink_to(tmp_path / "secret/churn/1")
    (store.path / "..x").symlink_to(tmp_path / "secret/churn")
    assert store.versions("churn") == ["1"]
    assert store.models() == ["churn"]
