"""From an estimator to bytes and back, without trusting the bytes more than they deserve.

skops stores data, and names of types that must be on a list (`headrace_worker.store.trusted_types`). A pickle,
which joblib's files are too, stores instructions: reading one runs them, so it is read only where a person
said that it may be.
"""

from __future__ import annotations

import io
import json
import os
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import joblib
import numpy as np
import skops.io
from sklearn.base import BaseEstimator
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.tree._tree import Tree
from skops.io.exceptions import UntrustedTypesFoundException

from headrace.errors import ModelError
from headrace_worker.manifest import Format
from headrace_worker.runtimes.estimator_tree import parts
from headrace_worker.store import chunks
from headrace_worker.store.chunks import ThrottledFile
from headrace_worker.store.trusted_types import TRUSTED

#: How a pickle begins (protocol 2 and later), as it is or compressed by joblib: zlib, gzip, bz2, xz, lzma, lz4.
_PICKLES = (b"\x80", b"\x78", b"\x1f\x8b", b"BZ", b"\xfd7zXZ", b"\x5d\x00", b"\x04\x22\x4d\x18")
_ZIP = b"PK\x03\x04"


def format_of(data: bytes, title: str) -> Format:
    """What a file is, by its first bytes. Raises ModelError for what is neither skops nor pickle."""
    if data.startswith(_ZIP):
        return "skops"
    if data.startswith(_PICKLES):
        return "joblib"
    raise ModelError(f"{title} is no model file: neither skops (`skops.io.dump`) nor joblib nor pickle")


def dump(estimator: Any, form: Format) -> bytes:
    """The bytes of an estimator. Raises ModelError for one that skops cannot store."""
    if form == "skops":
        try:
            data: bytes = skops.io.dumps(estimator)
        except Exception as error:
            raise ModelError(f"skops cannot store this model: {_short(error)}") from error
        return data
    buffer = io.BytesIO()
    joblib.dump(estimator, buffer)
    return buffer.getvalue()


def load(data: bytes, form: Format, title: str, *, max_bytes: int, trust_pickle: bool) -> Any:
    """The estimator in some bytes. Raises ModelError saying what is wrong with them, and what to do."""
    if form == "joblib" and not trust_pickle:
        raise ModelError(f"{title} is a pickle, and reading a pickle runs whatever code is in it")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", InconsistentVersionWarning)
        try:
            estimator = _load_skops(data, title, max_bytes) if form == "skops" else joblib.load(io.BytesIO(data))
        except ModelError:
            raise
        except MemoryError:
            raise ModelError(f"{title} needs more memory than there is") from None
        except Exception as error:
            raise ModelError(f"{title} cannot be loaded: {_cause(error)}{_newer(said)}") from error
    if newer := _newer(said):
        raise ModelError(f"{title} cannot be served{newer}")
    if not isinstance(estimator, BaseEstimator):
        raise ModelError(f"{title} holds a {type(estimator).__name__}, which is no scikit-learn estimator")
    if form == "skops":
        _check_trees(estimator, title)
    return estimator


def _load_skops(data: bytes, title: str, max_bytes: int) -> Any:
    unpacked = _unpacked_size(data, title)
    if unpacked > max_bytes:
        raise ModelError(
            f"{title} unpacks to {unpacked:,} bytes, more than the {max_bytes:,} of HEADRACE_MAX_MODEL_BYTES"
        )
    try:
        with _as_file(data) as file:
            return skops.io.load(file, trusted=TRUSTED)
    except UntrustedTypesFoundException:
        # The exception's own text advises to trust what the file asks for; we name it and advise better.
        names = sorted(set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED))
        raise ModelError(
            f"{title} needs {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}, which "
            f"{'are' if len(names) > 1 else 'is'} not on the list of types a skops file may hold; if the model is "
            "your own, save it with joblib and add it with --trust-pickle"
        ) from None


def _as_file(data: bytes) -> BinaryIO:
    """The bytes as a file in memory, of which a copy is read without Python's lock: a worker's loop needs it."""
    if not hasattr(os, "memfd_create"):
        return io.BytesIO(data)
    file = io.BufferedRandom(ThrottledFile(os.memfd_create("headrace-model", os.MFD_CLOEXEC), "r+b"))
    chunks.write(file, data)
    file.seek(0)
    return file


def _unpacked_size(data: bytes, title: str) -> int:
    """The bytes a skops file takes when unpacked, with the archives within it (sparse matrices are such)."""
    total = 0
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if "schema.json" not in archive.namelist():
                raise ModelError(f"{title} is no model file: a zip archive, but not one of skops")
            for member in archive.infolist():
                total += member.file_size
                if member.filename.endswith(".npz"):
                    if member.file_size > len(data):
                        raise ModelError(f"{title} holds an archive within an archive that is packed again")
                    with zipfile.ZipFile(io.BytesIO(archive.read(member))) as inner:
                        total += sum(array.file_size for array in inner.infolist())
                if member.filename.endswith((".npy", ".npz")):
                    continue
                if member.filename != "schema.json":
                    raise ModelError(f"{title} holds {member.filename[:64]!r}, which is nothing of a skops file")
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError) as error:
        raise ModelError(f"{title} is a damaged archive: {error}") from None
    return total


def _check_trees(estimator: Any, title: str) -> None:
    """Refuse trees whose nodes point outside of them: scikit-learn follows them without a look.

    A child's number is larger than its parent's in every tree scikit-learn grows, so a walk always ends.
    """
    for tree, features in _trees(estimator):
        if isinstance(tree, Tree):
            left, right, feature = tree.children_left, tree.children_right, tree.feature
            inner = left != -1
            good = (right[~inner] == -1).all()
        else:
            nodes = tree.nodes
            left, right, feature = (nodes[name].astype(np.int64) for name in ("left", "right", "feature_idx"))
            inner = nodes["is_leaf"] == 0
            categorical = nodes[inner & (nodes["is_categorical"] != 0)]
            good = (categorical["bitset_idx"] < len(tree.raw_left_cat_bitsets)).all()
        own = np.arange(len(left))[inner]
        for child in (left[inner], right[inner]):
            good = good and ((child > own) & (child < len(left))).all()
        if not (len(left) and good and ((feature[inner] >= 0) & (feature[inner] < features)).all()):
            raise ModelError(
                f"{title} holds a tree whose nodes point outside of it; the file is damaged or forged"
            )


def _trees(estimator: Any) -> Iterator[tuple[Any, int]]:
    """Every tree, with the number of features its estimator takes."""
    for part in parts(estimator):
        inside = vars(part)
        if isinstance(inside.get("tree_"), Tree):
            yield inside["tree_"], min(inside["tree_"].n_features, part.n_features_in_)
        for row in inside.get("_predictors", ()):
            yield from ((tree, part.n_features_in_) for tree in row if isinstance(tree, TreePredictor))


def _newer(said: list[warnings.WarningMessage]) -> str:
    """A clause that says which newer scikit-learn made the model; empty where none did."""
    for warning in said:
        message = warning.message
        if isinstance(message, InconsistentVersionWarning) and newer_than(
            message.original_sklearn_version, message.current_sklearn_version
        ):
            return (
                f": it was made by scikit-learn {message.original_sklearn_version}, newer than the "
                f"{message.current_sklearn_version} here; upgrade scikit-learn here, or train with this one"
            )
    return ""


def newer_than(one: str, other: str) -> bool:
    """Whether a version of a library is newer than another, by its first two numbers."""
    return _numbers(one) > _numbers(other)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split(".")[:2])


def _cause(error: Exception) -> str:
    match error:
        case ModuleNotFoundError():
            return f"it needs the module {error.name!r}, which is not installed here"
        case AttributeError() if "__main__" in str(error):
            return (
                "it needs something defined in the script or notebook that trained it "
                f"({_short(error)}); move that into a module and install it here"
            )
        case json.JSONDecodeError() | UnicodeDecodeError():
            return "its schema is no JSON"
        case _:
            return f"{type(error).__name__}: {_short(error)}"


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + " ..."
