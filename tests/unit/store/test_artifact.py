"""Bytes that are not a valid model: each is refused with a clear error, and none runs code."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import pytest
import skops.io
from scipy import sparse
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import fbeta_score, make_scorer
from sklearn.model_selection import TunedThresholdClassifierCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from headrace.errors import ModelError
from headrace_worker.packaging.package import package
from headrace_worker.packaging.table import read_table
from headrace_worker.store import artifact
from headrace_worker.store.artifact import is_newer
from headrace_worker.store.store import Store
from headrace_worker.store.trusted_types import TRUSTED

X, Y = make_classification(50, 5, random_state=0)
CAP = 10_000_000


def _load(data: bytes, *, trust_pickle: bool = False, max_bytes: int = CAP) -> Any:
    form = artifact.detect_format(data, "m")
    return artifact.load(data, form, "m", max_bytes=max_bytes, trust_pickle=trust_pickle)


def _edit_schema(data: bytes, edit: Callable[[str], str]) -> bytes:
    """Return a copy of a skops file with an edited schema."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w") as target:
        for member in source.infolist():
            content = source.read(member)
            target.writestr(member, edit(content.decode()) if member.filename == "schema.json" else content)
    return buffer.getvalue()


def _zip(*, packed: bool = True, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"\x00" * 100, b'{"a": 1}', b"a,b\n1,2\n", bytes(range(255, 0, -1))],
    ids=["empty", "text", "zeros", "json", "csv", "noise"],
)
def test_a_file_that_is_not_a_model_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match="m is no model file: neither skops"):
        _load(data)


@pytest.mark.parametrize(
    "data",
    [
        _zip(readme_txt=b"hello"),
        _zip(schema_json=b"hello"),
        _zip(schema_json=b"{}"),
        _zip(schema_json=b"[]"),
        _zip(schema_json=b'{"protocol": 99}'),
        _zip(schema_json=b'{"a":' * 50_000),
        _zip(schema_json=b'{"protocol": 2, "__loader__": "NoNode", "__class__": "x", "__module__": "y"}'),
        _zip(schema_json=b"{}", evil_py=b"print()"),
        b"PK\x03\x04 and nothing more",
        skops.io.dumps(LogisticRegression().fit(X, Y))[:-200],
    ],
)
def test_a_zip_that_is_not_a_skops_file_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match=r"^m "):
        _load(data)


@pytest.mark.parametrize(
    ("value", "kind"),
    [({"a": 1}, "dict"), ([1, 2], "list"), (np.arange(3), "ndarray"), ("text", "str"), (len, "builtin")],
)
def test_a_file_that_holds_no_estimator_is_refused(value: Any, kind: str) -> None:
    with pytest.raises(ModelError, match=f"m holds a {kind}"):
        _load(pickle.dumps(value), trust_pickle=True)
    if kind not in {"builtin"}:
        with pytest.raises(ModelError, match=f"m holds a {kind}"):
            _load(skops.io.dumps(value))


class _Bomb:
    """An object that runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_runs_nothing_unless_it_is_trusted(tmp_path: Path) -> None:
    for data in (pickle.dumps(_Bomb(tmp_path / "ran")), pickle.dumps(_Bomb(tmp_path / "ran"), protocol=2)):
        with pytest.raises(ModelError, match="m is a pickle, and reading a pickle runs whatever code is in it"):
            _load(data)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("compress", [0, "zlib", "gzip", "bz2", "xz", "lzma"])
def test_joblib_files_are_detected_with_any_compression(compress: Any) -> None:
    buffer = io.BytesIO()
    joblib.dump(LogisticRegression().fit(X, Y), buffer, compress=compress)
    assert isinstance(_load(buffer.getvalue(), trust_pickle=True), LogisticRegression)


def test_a_damaged_pickle_is_reported() -> None:
    with pytest.raises(ModelError, match="m cannot be loaded"):
        _load(pickle.dumps(LogisticRegression().fit(X, Y))[:-30], trust_pickle=True)


def test_a_pickle_of_a_class_that_is_not_installed_is_reported() -> None:
    data = b"\x80\x04c__main__\nMyTransformer\n."
    with pytest.raises(ModelError, match="needs something defined in the script or notebook"):
        _load(data, trust_pickle=True)
    with pytest.raises(ModelError, match="needs the module 'no_such_module', which is not installed here"):
        _load(b"\x80\x04cno_such_module\nModel\n.", trust_pickle=True)


def test_the_error_names_an_untrusted_type_and_the_remedy() -> None:
    model = make_pipeline(FunctionTransformer(np.gradient, kw_args={"axis": 1}), LogisticRegression()).fit(X, Y)
    with pytest.raises(ModelError, match=r"m needs numpy.gradient, which is not on the list.*--trust-pickle"):
        _load(skops.io.dumps(model))


@pytest.mark.parametrize(
    "function", ["posix.system", "os.system", "builtins.eval", "builtins.exec", "subprocess.Popen", "numpy.load"]
)
def test_a_forged_function_is_never_called_or_imported(function: str) -> None:
    module, name = function.split(".")
    honest = skops.io.dumps(FunctionTransformer(np.reshape).fit(X))
    forged = _edit_schema(
        honest,
        lambda schema: schema.replace('"__class__": "reshape"', f'"__class__": "{name}"').replace(
            '"__module__": "numpy",\n      "__loader__": "FunctionNode"',
            f'"__module__": "{module}",\n      "__loader__": "FunctionNode"',
        ),
    )
    assert forged != honest
    with pytest.raises(ModelError, match=r"m needs \w+\.\w+, which is not on the list"):
        _load(forged)


def test_no_trusted_type_runs_code_or_reads_files() -> None:
    assert len(set(TRUSTED)) == len(TRUSTED)
    for name in TRUSTED:
        assert name.split(".")[0] in {"functools", "numpy", "scipy", "sklearn"}
        assert not {"load", "save", "fromfile", "eval", "exec", "PyFuncDistance64"} & set(name.split("."))


def test_a_file_that_unpacks_beyond_the_cap_is_not_unpacked() -> None:
    bomb = _zip(schema_json=b" " * 50_000_000)
    assert len(bomb) < 100_000
    with pytest.raises(
        ModelError, match="m unpacks to 50,000,000 bytes, more than the 10,000,000 of HEADRACE_MAX"
    ):
        _load(bomb)


def test_a_nested_archive_counts_towards_the_unpacked_size() -> None:
    inner = io.BytesIO()
    sparse.save_npz(inner, sparse.csr_matrix(np.zeros((1, 1_000_000)) + 1), compressed=True)
    with pytest.raises(ModelError, match=r"m unpacks to \d\d,\d{3},\d{3} bytes"):
        _load(_zip(packed=False, schema_json=b"{}", a_npz=inner.getvalue()))
    packed_twice = _zip(schema_json=b"{}", a_npz=_zip(packed=False, x_npy=b"0" * 5_000_000))
    with pytest.raises(ModelError, match="compressed twice"):
        _load(packed_twice)


def test_an_array_that_claims_more_than_it_holds_is_refused() -> None:
    honest = skops.io.dumps(LogisticRegression().fit(X, Y))
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(honest)) as source, zipfile.ZipFile(buffer, "w") as target:
        for member in source.infolist():
            content = source.read(member)
            if member.filename.endswith(".npy"):
                header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999,), }"
                padded = header + b" " * (117 - len(header)) + b"\n"
                content = b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded
            target.writestr(member.filename, content)
    with pytest.raises(ModelError, match=r"^m "):
        _load(buffer.getvalue())


def test_a_model_of_a_newer_scikit_learn_is_refused_in_both_formats() -> None:
    import sklearn

    model = LogisticRegression().fit(X, Y)
    newer = _edit_schema(skops.io.dumps(model), lambda schema: schema.replace(sklearn.__version__, "99.1.0"))
    with pytest.raises(ModelError, match=r"made by scikit-learn 99.1.0, newer than the \d+\.\d+\.\d+ here"):
        _load(newer)
    old, new = sklearn.__version__.encode(), b"99.1." + b"0" * (len(sklearn.__version__) - 5)
    with pytest.raises(ModelError, match=r"made by scikit-learn 99.1"):
        _load(pickle.dumps(model).replace(old, new), trust_pickle=True)


def test_a_model_of_an_older_scikit_learn_is_loaded() -> None:
    import sklearn

    older = _edit_schema(
        skops.io.dumps(LogisticRegression().fit(X, Y)), lambda schema: schema.replace(sklearn.__version__, "1.2.0")
    )
    assert isinstance(_load(older), LogisticRegression)


class _NeedsModule:
    """An object whose pickle names a module that this scikit-learn does not have."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __reduce__(self) -> Any:
        return __import__, (self._module,)


@pytest.mark.parametrize("compress", [0, "zlib", "gzip"])
@pytest.mark.parametrize("module", ["_loss", "sklearn.ensemble._gb_losses"])
def test_an_older_model_that_does_not_load_is_refused_with_both_versions_and_the_remedy(
    module: str, compress: Any
) -> None:
    import sklearn

    model = LogisticRegression().fit(X, Y)
    model.loss = _NeedsModule(module)
    buffer = io.BytesIO()
    joblib.dump({"_sklearn_version": "1.2.2", "model": model}, buffer, compress=compress)
    with pytest.raises(ModelError) as caught:
        _load(buffer.getvalue(), trust_pickle=True)
    text = str(caught.value)
    assert f"made by scikit-learn 1.2.2, and {sklearn.__version__} here cannot read it" in text
    assert f"fit the model again with {sklearn.__version__}" in text
    assert "pip install 'scikit-learn==1.2.*'" in text


def test_an_older_model_of_unknown_version_and_a_missing_module_of_others_differ() -> None:
    with pytest.raises(ModelError, match=r"made by another scikit-learn than the .* fit the model again"):
        _load(pickle.dumps(_NeedsModule("_loss")), trust_pickle=True)
    with pytest.raises(ModelError, match="needs the module 'no_such_module', which is not installed here"):
        _load(pickle.dumps({"_sklearn_version": "1.2.2", "x": _NeedsModule("no_such_module")}), trust_pickle=True)


def test_library_versions_are_compared_as_numbers() -> None:
    assert is_newer("1.10.0", "1.9.1")
    assert not is_newer("1.9.9", "1.9.1")
    assert not is_newer("1.9.dev0", "1.9.1")
    assert not is_newer("unknown", "1.9.1")


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(3, random_state=0).fit(X, Y),
        HistGradientBoostingClassifier(max_iter=2).fit(X, Y),
        KNeighborsClassifier().fit(X, Y),
    ],
    ids=lambda model: type(model).__name__,
)
def test_forests_boosting_and_neighbours_load_from_skops(model: Any) -> None:
    loaded = _load(artifact.dump(model, "skops"))
    assert (loaded.predict_proba(X) == model.predict_proba(X)).all()


def _damaged_forest(**changed: int) -> bytes:
    model = RandomForestClassifier(2, random_state=0).fit(X, Y)
    tree = model.estimators_[0].tree_
    state = tree.__getstate__()
    for field, value in changed.items():
        state["nodes"][field][0] = value
    tree.__setstate__(state)
    return artifact.dump(model, "skops")


@pytest.mark.parametrize("changed", [{"feature": 9999}, {"left_child": 10**6}, {"right_child": 0}])
def test_a_tree_that_points_outside_of_itself_is_refused(changed: dict[str, int]) -> None:
    with pytest.raises(ModelError, match=r"holds a tree whose nodes point outside of it|cannot be loaded"):
        _load(_damaged_forest(**changed))


@pytest.mark.parametrize("changed", [{"feature_idx": 9999}, {"left": 10**6}, {"right": 0}])
def test_a_boosted_tree_that_points_outside_of_itself_is_refused(changed: dict[str, int]) -> None:
    model = HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=5).fit(X, Y)
    nodes = model._predictors[0][0].nodes
    for field, value in changed.items():
        nodes[field][0] = value
    with pytest.raises(ModelError, match="holds a tree whose nodes point outside of it"):
        _load(artifact.dump(model, "skops"))


def test_random_damage_is_reported_and_never_a_crash() -> None:
    data = skops.io.dumps(RandomForestClassifier(2, random_state=0).fit(X, Y))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = json.loads(archive.read("schema.json"))
    random = np.random.default_rng(0)
    for _ in range(60):
        broken = json.loads(json.dumps(schema))
        _break(broken, random)
        with contextlib.suppress(ModelError):
            _load(_edit_schema(data, lambda _, broken=broken: json.dumps(broken)))


def _break(value: Any, random: np.random.Generator) -> None:
    """Replace one value somewhere in nested JSON."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = keys[random.integers(len(keys))]
        if isinstance(value[key], dict | list) and value[key] and random.random() < 0.8:
            value = value[key]
        else:
            value[key] = [None, "x", -1, {}, [], 1e300][random.integers(6)]
            return


def test_other_threads_run_while_a_large_model_is_loaded() -> None:
    model = LogisticRegression().fit(X, Y)
    model.ballast_ = np.random.default_rng(0).random(6 * 1024**2)
    data = skops.io.dumps(model)

    def longest_wait() -> float:
        """Return the longest wait of another thread during a load, as a fraction of the load's duration."""
        is_loaded, waits = threading.Event(), []

        def measure_waits() -> None:
            last = time.monotonic()
            while not is_loaded.wait(0.0005):
                waits.append(time.monotonic() - last)
                last = time.monotonic()

        thread = threading.Thread(target=measure_waits)
        thread.start()
        started = time.monotonic()
        _load(data, max_bytes=10 * CAP)
        duration = time.monotonic() - started
        is_loaded.set()
        thread.join()
        return max(waits) / duration

    # A copy without pauses would take a third of the load or more. The best of several loads counts, because the
    # machine may be busy.
    assert min(longest_wait() for _ in range(8)) < 0.12


@pytest.mark.parametrize(
    "model",
    [
        TunedThresholdClassifierCV(LogisticRegression()),
        TunedThresholdClassifierCV(LogisticRegression(), scoring=make_scorer(fbeta_score, beta=2), cv=3),
        CalibratedClassifierCV(LogisticRegression(), method="temperature"),
        CalibratedClassifierCV(RandomForestClassifier(3), method="temperature", ensemble=False),
    ],
    ids=repr,
)
def test_tuned_thresholds_and_temperatures_load_from_skops(model: Any) -> None:
    fitted = model.fit(X, Y)
    assert (_load(artifact.dump(fitted, "skops")).predict_proba(X) == fitted.predict_proba(X)).all()


def test_the_advice_for_a_skops_file_of_a_booster_is_true(tmp_path: Path) -> None:
    model = lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(X, Y)
    data = skops.io.dumps(model)
    with pytest.raises(
        ModelError, match=r"lightgbm\.\S+.* and needs no trust, or save that file \(`(.*)`\)"
    ) as caught:
        _load(data)
    eval(str(caught.value).split("`")[3].replace("model.txt", str(tmp_path / "model.txt")), {"model": model})
    saved = (tmp_path / "model.txt").read_bytes()
    assert _load(saved).predict(X).tolist() == model.predict_proba(X)[:, 1].tolist()
    package(Store(tmp_path / "store"), model, name="m", example=read_table(X))
    piped = skops.io.dumps(make_pipeline(FunctionTransformer(), model))
    with pytest.raises(ModelError, match="store it as a pickle"):
        _load(piped)
