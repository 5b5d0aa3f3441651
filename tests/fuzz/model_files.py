"""Model files that nobody trusts: each is refused by a ModelError, or is a model. It does nothing else."""

from __future__ import annotations

import functools
import io
import os
import re
import zipfile
from datetime import UTC, datetime
from typing import Any

import joblib
import numpy as np
import skl2onnx
import skops.io
from lightgbm import LGBMRegressor
from scipy import sparse
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from headrace.catalog.contract import Array, Contract, Output
from headrace.errors import ModelError
from headrace_worker.boosters.formats import explain_unusable
from headrace_worker.manifest import Example, Limits, Manifest
from headrace_worker.runtimes import VerifiedVersion
from headrace_worker.runtimes.onnx import OnnxRuntime
from headrace_worker.runtimes.treelite import TreeliteRuntime
from headrace_worker.store import artifact
from tests.fuzz.child import in_child
from tests.fuzz.mutations import mutate
from tests.fuzz.packed import mutate_archive
from tests.fuzz.target import Target

_MAX_BYTES = 10_000_000


class _Harmful:
    """An object whose pickle runs a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def model_targets() -> list[Target]:
    """Return a target for each way in which a file becomes a model."""
    skops_files = _skops_files()
    return [
        Target(
            name="the checks of a model file",
            inputs=[*skops_files, *_pickles(), *_booster_files()],
            run=_check,
            count=4_000,
            mutate=mutate_archive,
            confined=True,
        ),
        *(
            Target(
                name=f"a {form} model",
                inputs=inputs,
                run=in_child(read),
                count=300,
                mutate=mutator,
                confined=True,
            )
            for form, inputs, read, mutator in (
                ("skops", skops_files, _load, mutate_archive),
                ("joblib", _pickles(), _load, mutate),
                ("booster", _booster_files(), _load, mutate),
                ("onnx", _onnx_files(), _load_onnx, mutate),
                ("treelite", _treelite_files(), _load_treelite, mutate),
            )
        ),
    ]


def _check(data: bytes) -> None:
    """Do what is done with a file before a library reads it."""
    explain_unusable(data)
    try:
        form = artifact.detect_format(data, "model")
    except ModelError as error:
        str(error).encode()
        return
    artifact.find_older_sklearn(data, form, _MAX_BYTES)
    try:
        if form == "joblib":
            artifact.load(data, form, "model", max_bytes=_MAX_BYTES, trust_pickle=False)
            raise AssertionError("a pickle was read that nobody trusts")
        if form == "skops":
            artifact._unpacked_size(data, "model")  # the limit of what skops reads
    except ModelError as error:
        str(error).encode()


def _load(data: bytes) -> None:
    form = artifact.detect_format(data, "model")
    artifact.load(data, form, "model", max_bytes=_MAX_BYTES, trust_pickle=False)


def _load_onnx(data: bytes) -> None:
    OnnxRuntime.load(VerifiedVersion(_manifest("onnx"), data, b"", _no_estimator))


def _load_treelite(data: bytes) -> None:
    TreeliteRuntime.load(VerifiedVersion(_manifest("treelite"), b"", data, _no_estimator))


def _no_estimator() -> Any:
    raise ModelError("there is no estimator")


# --- the valid files ----------------------------------------------------------------------------------------


@functools.cache
def _rows() -> tuple[Any, Any]:
    rows = np.arange(40.0).reshape(20, 2) % 7
    return rows, (rows[:, 0] > 3).astype(int)


@functools.cache
def _skops_files() -> list[bytes]:
    rows, target = _rows()
    models = (
        RandomForestClassifier(2, max_depth=2, random_state=0),
        make_pipeline(StandardScaler(), LogisticRegression()),
        make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()),
        GradientBoostingRegressor(n_estimators=2, max_depth=2, random_state=0),
        HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=2, random_state=0),
        KNeighborsClassifier(2, algorithm="kd_tree"),
        SVC(),
    )
    fitted = [model.fit(rows, target) for model in models]
    others = (SVC().fit(sparse.csr_matrix(rows), target), {"no": "model"})
    return [_with_fixed_names(skops.io.dumps(value)) for value in (*fitted, *others)]


def _with_fixed_names(data: bytes) -> bytes:
    """Replace what differs between two calls: the ids of objects, in the names of files too, and times."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(buffer, "w") as written:
        schema = archive.read("schema.json")
        ids = dict.fromkeys(re.findall(rb"\d{12,20}", schema))
        numbers = {value: b"%012d" % number for number, value in enumerate(ids)}
        for name in archive.namelist():
            fixed = re.sub(rb"\d{12,20}", lambda match: numbers.get(match[0], match[0]), name.encode()).decode()
            content = archive.read(name)
            if name == "schema.json":
                content = re.sub(rb"\d{12,20}", lambda match: numbers[match[0]], schema)
            written.writestr(zipfile.ZipInfo(fixed), content)
    return buffer.getvalue()


@functools.cache
def _pickles() -> list[bytes]:
    rows, target = _rows()
    files = []
    for value, level in ((LogisticRegression().fit(rows, target), 0), (_Harmful(), 0), (_Harmful(), 3)):
        buffer = io.BytesIO()
        joblib.dump(value, buffer, compress=level)
        files.append(buffer.getvalue())
    return files


@functools.cache
def _booster_files() -> list[bytes]:
    rows, target = _rows()
    options: dict[str, Any] = {"n_estimators": 2, "min_child_samples": 2, "verbose": -1, "n_jobs": 1}
    booster = LGBMRegressor(**options).fit(rows, target).booster_
    return [booster.model_to_string().encode(), b'{"learner": {}, "version": [3, 0, 0]}', b"CBM1", b"binf"]


@functools.cache
def _onnx_files() -> list[bytes]:
    rows, target = _rows()
    inputs = [("input", FloatTensorType([None, 2]))]
    models = (LogisticRegression(), RandomForestClassifier(2, max_depth=2, random_state=0))
    return [
        skl2onnx.to_onnx(model.fit(rows, target), initial_types=inputs).SerializeToString() for model in models
    ]


@functools.cache
def _treelite_files() -> list[bytes]:
    rows, target = _rows()
    return [
        TreeliteRuntime.compile(model.fit(rows, target), Array(shape=(2,)))
        for model in (
            RandomForestClassifier(2, max_depth=2, random_state=0),
            GradientBoostingRegressor(n_estimators=2, max_depth=2, random_state=0),
        )
    ]


def _manifest(runtime: str) -> Manifest:
    contract = Contract(
        model="fuzzed", version="1", input=Array(shape=(2,)), methods={"predict": Output(shape=())}
    )
    return Manifest(
        name="fuzzed",
        version="1",
        created=datetime(2030, 1, 1, tzinfo=UTC),
        estimator="Pipeline",
        format="onnx",
        sha256="0" * 64,
        size=1,
        libraries={"python": "3.11"},
        runtime=runtime,
        contract=contract,
        limits=Limits(),
        example=Example(instances=[[1.0, 2.0]], expected={"predict": [1]}),
    )
