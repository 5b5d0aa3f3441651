"""Runtimes, which execute versions of models: scikit-learn, treelite, ONNX Runtime, or a Python object.

A runtime is a class, found by its name among the entry points of the group `headrace.runtimes`, so other
distributions can add theirs. If a runtime needs more packages than its distribution installs, the distribution has
an extra with the runtime's name: `headrace-worker[treelite]`.

sklearn          a fitted estimator's methods
treelite         an ensemble of trees, compiled
onnx             an ONNX file, or an estimator converted to ONNX
onnx_inputs      instances to the inputs of an ONNX file, and its input schema
onnx_table       the columns of a table to the inputs of an ONNX file
onnx_conversion  an estimator to an ONNX file
python           an object made by `module:factory`
pyfunc           such an object for MLflow folders, loaded by MLflow
forest           faster methods for forests within scikit-learn
input_arrays     instances to frames, arrays and lists
columns          one column, of the type the model was fitted on
datetimes        one column of datetimes or dates
predictions      a model's output to JSON-able predictions
table_input        the columns of a table to frames, arrays and lists
arrow_columns      one column of a table, of the type the model was fitted on
prediction_column  a model's output to an array of predictions
estimator_tree   the estimators within an estimator
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from headrace.catalog.contract import Array, Named, Text, Tokens
from headrace.errors import ModelError
from headrace.wire.message import Instance
from headrace_worker.manifest import Manifest

#: The group of the runtimes' entry points.
ENTRY_POINT_GROUP = "headrace.runtimes"

#: The input of a contract, which says what an instance looks like.
InputSchema = Named | Array | Text | Tokens


class VerifiedVersion(NamedTuple):
    """A version for a runtime to load. Its bytes match the digests in its manifest."""

    manifest: Manifest
    #: The model as it was added.
    artifact: bytes
    #: The result of `Runtime.compile`; empty if the runtime compiles nothing.
    compiled: bytes
    #: Returns a new estimator, read from the artifact. Raises ModelError.
    estimator: Callable[[], Any]


class Runtime(Protocol):
    """The execution of one version. It is never called from two threads at once.

    It is loaded in a worker's main process and used in processes forked from that one. So it must use one thread,
    and hold nothing that does not survive a fork, such as a thread pool or a connection. One that cannot has the
    attribute `load_after_fork = True`, which the manifest of a version records: each pool process then loads it.
    """

    #: The distributions whose versions are recorded in a manifest.
    libraries: ClassVar[tuple[str, ...]]

    @classmethod
    def explain_rejection(cls, estimator: Any, input_schema: InputSchema) -> str:
        """Return the reason why it cannot execute an estimator with such instances; empty if it may be able to."""
        ...

    @classmethod
    def compile(cls, estimator: Any, input_schema: InputSchema) -> bytes:
        """Return the bytes that `load` needs besides the artifact; empty if it needs none.

        Any error it raises is shown to the user as the reason why the runtime cannot be used.
        """
        ...

    @classmethod
    def load(cls, version: VerifiedVersion) -> Self:
        """Return a runtime that is ready to predict with a version. Raises ModelError."""
        ...

    def predict(self, method: str, instances: Sequence[Instance]) -> list[Any]:
        """Return a JSON-able prediction for each instance, in their order. The instances fit the contract."""
        ...

    # A runtime may have a further method, for tables:
    #
    #     def predict_table(self, method: str, batch: pyarrow.RecordBatch) -> pyarrow.Array | None
    #
    # It returns an array of predictions (`prediction_column`) for columns that fit the contract (`table_input`
    # says which those are), or None if it takes the rows of this version as instances only.


def runtime_names() -> list[str]:
    """Return the names of all registered runtimes, sorted; the packages they need may be missing."""
    return sorted({entry_point.name for entry_point in metadata.entry_points(group=ENTRY_POINT_GROUP)})


def must_load_after_fork(runtime: type[Runtime] | Runtime) -> bool:
    """Decide whether a runtime says that it must not be loaded in a process that forks."""
    return getattr(runtime, "load_after_fork", False) is True


def find_runtime(name: str) -> type[Runtime]:
    """Return a runtime by its name. Raises ModelError if it does not exist, or a package it needs is missing."""
    for entry_point in metadata.entry_points(group=ENTRY_POINT_GROUP, name=name):
        try:
            runtime: type[Runtime] = entry_point.load()
        except ModuleNotFoundError as error:
            extra = f"{entry_point.dist.name}[{name}]" if entry_point.dist else name
            raise ModelError(
                f"the runtime {name} needs {error.name}, which is not installed here; pip install '{extra}'"
            ) from None
        except Exception as error:
            raise ModelError(f"the runtime {name} cannot be imported: {type(error).__name__}: {error}") from error
        return runtime
    raise ModelError(f"there is no runtime {name!r} here; there are {', '.join(runtime_names())}")
