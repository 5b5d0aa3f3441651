"""Convert an estimator to bytes and back; the bytes may come from an attacker.

skops stores data, and the names of types, which must be on a list (`headrace_worker.store.trusted_types`). A
pickle stores instructions, and reading it runs them; joblib files are pickles too. A pickle is therefore read only
if a person has allowed it.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import platform
import re
import warnings
import zipfile
import zlib
from typing import Any, BinaryIO, cast, get_args

import cloudpickle
import joblib
import numpy as np
import sklearn
import skops.io
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.tree._tree import Tree
from skops.io.exceptions import UntrustedTypesFoundException

from headrace.errors import ModelError
from headrace.wire.outcome import ClassLabel
from headrace_worker import boosters
from headrace_worker.boosters.formats import detect_format as detect_booster_format
from headrace_worker.boosters.formats import explain_unusable, is_booster_format
from headrace_worker.manifest import BoosterFormat, Format
from headrace_worker.runtimes.estimator_tree import METHODS, bind_threads, is_model, iter_estimators
from headrace_worker.store import chunks
from headrace_worker.store.chunks import ThrottledFile
from headrace_worker.store.native_arrays import check_native_arrays
from headrace_worker.store.trusted_types import TRUSTED

#: The first bytes of a pickle (protocol 2 and later), plain or compressed: zlib, gzip, bz2, xz, lzma, lz4.
_PICKLE_PREFIXES = (b"\x80", b"\x78", b"\x1f\x8b", b"BZ", b"\xfd7zXZ", b"\x5d\x00", b"\x04\x22\x4d\x18")
#: The version of scikit-learn in a pickle or in the schema of a skops file.
_SKLEARN_VERSION = re.compile(rb"_sklearn_version.{1,200}?([0-9]+\.[0-9]+(?:\.[0-9a-z]+)*)", re.DOTALL)
#: The errors of a damaged archive or compressed file.
_DAMAGED = (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError, RuntimeError, ValueError)
_ZIP_PREFIX = b"PK\x03\x04"
#: How a person saves a booster as a file of its library, by the library's name.
_SAVE_BOOSTER = {
    "lightgbm": "model.booster_.save_model('model.txt')",
    "xgboost": "model.save_model('model.json')",
    "catboost": "model.save_model('model.cbm')",
}
#: Advice for a model that skops cannot store.
_STORE_AS_PICKLE = (
    "if the model is your own, store it as a pickle: package(..., trust_pickle=True), or save it with joblib or "
    "cloudpickle and add it with --trust-pickle"
)


def detect_format(data: bytes, title: str) -> Format:
    """Detect a file's format by its first bytes. Raises ModelError if no library loads it."""
    if reason := explain_unusable(data):
        raise ModelError(f"{title} {reason}")
    if data.startswith(_ZIP_PREFIX):
        return "skops"
    if data.startswith(_PICKLE_PREFIXES):
        return "joblib"
    if form := detect_booster_format(data):
        return form
    raise ModelError(
        f"{title} is no model file: neither skops (`skops.io.dump`) nor joblib nor pickle, nor a file of "
        "LightGBM, XGBoost or CatBoost"
    )


def dump(estimator: Any, form: Format) -> bytes:
    """Convert an estimator to bytes. Raises ModelError if it holds something that cannot be stored."""
    try:
        data: bytes = skops.io.dumps(estimator) if form == "skops" else _dump_pickle(estimator)
    except Exception as error:
        problem = f"cannot store this model ({type(error).__name__}: {_shorten(error)})"
        if form == "skops":
            raise ModelError(f"skops {problem}; {_STORE_AS_PICKLE}") from error
        raise ModelError(
            f"a pickle {problem}; fit it without objects that only this process can have, such as open files, "
            "locks and connections"
        ) from error
    return data


def find_cloudpickle(data: bytes) -> dict[str, str]:
    """Return the version of cloudpickle, by its name, if a pickle holds functions or classes that it wrote."""
    return {"cloudpickle": cloudpickle.__version__} if b"cloudpickle" in data else {}


def _dump_pickle(estimator: Any) -> bytes:
    """Pickle an estimator, by cloudpickle if it holds a lambda, or something of a script or a notebook.

    A pickle names functions and classes and does not hold them. cloudpickle holds those that no module has.
    """
    buffer = io.BytesIO()
    try:
        joblib.dump(estimator, buffer)
    except (pickle.PicklingError, AttributeError, TypeError):
        return cast("bytes", cloudpickle.dumps(estimator))
    data = buffer.getvalue()
    return cast("bytes", cloudpickle.dumps(estimator)) if b"__main__" in data else data


def load(
    data: bytes,
    form: Format,
    title: str,
    *,
    max_bytes: int,
    trust_pickle: bool,
    classes: tuple[ClassLabel, ...] = (),
) -> Any:
    """Read an estimator from bytes. Raises ModelError, whose message says what is wrong and what to do.

    `classes` are the labels that the file of a booster does not have. With `trust_pickle`, a skops file may hold
    any types: it can then do what a pickle can.
    """
    if is_booster_format(form):
        return boosters.load(data, form, title, classes)
    if form == "joblib" and not trust_pickle:
        raise ModelError(f"{title} is a pickle, and reading a pickle runs whatever code is in it")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", InconsistentVersionWarning)
        try:
            estimator = (
                _load_skops(data, title, max_bytes, trust_pickle)
                if form == "skops"
                else joblib.load(io.BytesIO(data))
            )
        except ModelError:
            raise
        except MemoryError:
            raise ModelError(f"{title} needs more memory than there is") from None
        except Exception as error:
            if reason := _describe_older_library(error, data, form, max_bytes):
                raise ModelError(f"{title} cannot be loaded: {reason}") from error
            newer = _describe_newer_library(caught)
            python = _describe_other_python(error, data)
            raise ModelError(f"{title} cannot be loaded: {_describe_cause(error)}{newer}{python}") from error
    if newer := _describe_newer_library(caught):
        raise ModelError(f"{title} cannot be served{newer}")
    if not is_model(estimator):
        raise ModelError(
            f"{title} holds a {type(estimator).__name__}, which is no model: it has none of the methods "
            f"{', '.join(METHODS)}"
        )
    if form == "skops":
        check_native_arrays(estimator, title)
    if _has_counts(estimator):
        made_with = find_older_sklearn(data, form, max_bytes) or "1.3"
        raise ModelError(
            f"{title} cannot be served: its trees count samples, as those of scikit-learn {made_with} do, and "
            f"{sklearn.__version__} would read that without an error and predict otherwise; "
            f"{describe_remedy(made_with)}"
        )
    bind_threads(estimator)
    return estimator


def _load_skops(data: bytes, title: str, max_bytes: int, trust_pickle: bool) -> Any:
    unpacked = _unpacked_size(data, title)
    if unpacked > max_bytes:
        raise ModelError(
            f"{title} unpacks to {unpacked:,} bytes, more than the {max_bytes:,} of HEADRACE_MAX_MODEL_BYTES"
        )
    trusted = (*TRUSTED, *skops.io.get_untrusted_types(data=data)) if trust_pickle else TRUSTED
    try:
        with _as_file(data) as file:
            return skops.io.load(file, trusted=trusted)
    except UntrustedTypesFoundException:
        # The exception's own text advises to trust all types in the file. This message names them instead.
        names = sorted(set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED))
        raise ModelError(
            f"{title} needs {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}, which "
            f"{'are' if len(names) > 1 else 'is'} not on the list of types a skops file may hold; "
            f"{_advise(data)}"
        ) from None


def _advise(data: bytes) -> str:
    """Return the advice for a skops file of other types: a booster itself has a file format of its own."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = json.loads(archive.read("schema.json"))
    library = str(schema.get("__module__", "")).partition(".")[0]
    if library not in get_args(BoosterFormat):
        return _STORE_AS_PICKLE
    return (
        f"give the model itself to `package`, which stores it as {library}'s own file and needs no trust, or save "
        f"that file (`{_SAVE_BOOSTER[library]}`) and add it"
    )


def _as_file(data: bytes) -> BinaryIO:
    """Return a file in memory with the data. Reading it releases Python's lock, unlike reading a BytesIO."""
    if not hasattr(os, "memfd_create"):
        return io.BytesIO(data)
    file = io.BufferedRandom(ThrottledFile(os.memfd_create("headrace-model", os.MFD_CLOEXEC), "r+b"))
    chunks.write(file, data)
    file.seek(0)
    return file


def _unpacked_size(data: bytes, title: str) -> int:
    """Return a skops file's unpacked size in bytes, including nested archives, which hold sparse matrices."""
    total = 0
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if "schema.json" not in archive.namelist():
                raise ModelError(f"{title} is no model file: it is a zip archive, but not one of skops")
            for member in archive.infolist():
                total += member.file_size
                if member.filename.endswith(".npz"):
                    if member.file_size > len(data):
                        raise ModelError(f"{title} holds a nested archive that is compressed twice")
                    with zipfile.ZipFile(io.BytesIO(archive.read(member))) as inner:
                        total += sum(array.file_size for array in inner.infolist())
                if member.filename.endswith((".npy", ".npz")):
                    continue
                if member.filename != "schema.json":
                    raise ModelError(f"{title} holds {member.filename[:64]!r}, which is not part of a skops file")
    except _DAMAGED as error:
        raise ModelError(f"{title} is a damaged archive: {error}") from None
    return total


def _has_counts(estimator: Any) -> bool:
    """Decide whether a tree holds the number of samples of each class, as in scikit-learn 1.3, and not shares."""
    trees = (vars(inner).get("tree_") for inner in iter_estimators(estimator) if hasattr(inner, "classes_"))
    return any(
        isinstance(tree, Tree)
        and not np.allclose(tree.value[tree.weighted_n_node_samples > 0].sum(axis=-1), 1, atol=1e-6)
        for tree in trees
    )


def _describe_newer_library(caught: list[warnings.WarningMessage]) -> str:
    """Return a clause that names the newer scikit-learn a model was made with; empty if it was not newer."""
    for warning in caught:
        message = warning.message
        if isinstance(message, InconsistentVersionWarning) and is_newer(
            message.original_sklearn_version, message.current_sklearn_version
        ):
            return (
                f": it was made by scikit-learn {message.original_sklearn_version}, newer than the "
                f"{message.current_sklearn_version} here; upgrade scikit-learn here, or train with this one"
            )
    return ""


def _describe_older_library(error: Exception, data: bytes, form: Format, max_bytes: int) -> str:
    """Return the reason and the remedy if a model's scikit-learn is too old to be read here, else no text."""
    module = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
    is_internal = module == "_loss" or module.split(".")[0] == "sklearn"
    if module and not is_internal:
        return ""
    made_with = find_older_sklearn(data, form, max_bytes)
    if made_with:
        return (
            f"it was made by scikit-learn {made_with}, and {sklearn.__version__} here cannot read it "
            f"({type(error).__name__}: {_shorten(error)}); {describe_remedy(made_with)}"
        )
    if is_internal and _find_sklearn_version(data, form, max_bytes) is None:
        return (
            f"it was made by another scikit-learn than the {sklearn.__version__} here, which has no module "
            f"{module!r}; fit the model again with {sklearn.__version__}"
        )
    return ""


def find_older_sklearn(data: bytes, form: Format, max_bytes: int) -> str:
    """Return the version of scikit-learn that an estimator was made with, if it is older than here; else empty."""
    made_with = None if form not in {"skops", "joblib"} else _find_sklearn_version(data, form, max_bytes)
    return made_with if made_with and is_newer(sklearn.__version__, made_with) else ""


def describe_remedy(made_with: str) -> str:
    """Return what to do with a model of an older scikit-learn."""
    series = ".".join(made_with.split(".")[:2])
    return (
        f"fit the model again with {sklearn.__version__}, or serve it with an image that has scikit-learn "
        f"{series}: pip install 'scikit-learn=={series}.*'"
    )


def _find_sklearn_version(data: bytes, form: Format, max_bytes: int) -> str | None:
    """Find the version of scikit-learn that an estimator was made with, without reading the estimator."""
    try:
        if form == "skops":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                data = archive.read("schema.json")
        elif data.startswith((b"\x78", b"\x1f\x8b")):
            data = zlib.decompressobj(wbits=47).decompress(data, max_bytes)
    except (*_DAMAGED, KeyError):
        return None
    match = _SKLEARN_VERSION.search(data)
    return match[1].decode() if match else None


def is_newer(version: str, other: str) -> bool:
    """Decide whether a library version is newer than another, by their first two numbers."""
    return _first_numbers(version) > _first_numbers(other)


def _first_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(text) if text.isdigit() else 0 for text in version.split(".")[:2])


def _describe_cause(error: Exception) -> str:
    match error:
        case ModuleNotFoundError():
            return (
                f"it needs the module {error.name!r}, which is not installed here; install its package, or add "
                "the model with the module: --code, or code= of package(...)"
            )
        case AttributeError() if "__main__" in str(error):
            return (
                "it needs something defined in the script or notebook that trained it "
                f"({_shorten(error)}); save it with cloudpickle.dump, or move that into a module and install it "
                "here"
            )
        case json.JSONDecodeError() | UnicodeDecodeError():
            return "its schema is not JSON"
        case _:
            return f"{type(error).__name__}: {_shorten(error)}"


def _describe_other_python(error: Exception, data: bytes) -> str:
    """Return a clause on the Python of a cloudpickle, whose functions another Python cannot read."""
    if b"cloudpickle" not in data or not isinstance(error, TypeError | SystemError | ValueError):
        return ""
    return (
        f"; it holds functions as code of the Python that made it, which may be another than the "
        f"{platform.python_version()} here: make and load it with one Python"
    )


def _shorten(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + " ..."
