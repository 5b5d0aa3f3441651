"""What executes a version of a model: scikit-learn, treelite, ONNX Runtime, a Python callable, or another's.

A runtime is a class, found by its name among the entry points of the group `headrace.runtimes`; that is how
other distributions add theirs. A distribution that needs more for a runtime than it brings has an extra of
the runtime's name: `headrace-worker[treelite]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from headrace.catalog.contract import Array, Named, Text
from headrace.errors import ModelError
from headrace.wire.message import Instance
from headrace_worker.manifest import Manifest

GROUP = "headrace.runtimes"

Input = Named | Array | Text


class VerifiedVersion(NamedTuple):
    """A version as a runtime gets it: its bytes have the digests that its manifest names."""

    manifest: Manifest
    #: The model as it was added.
    artifact: bytes
    #: What `Runtime.compile` made of it; empty where the runtime compiles nothing.
    compiled: bytes
    #: Makes the estimator of the artifact, anew each time. Raises ModelError.
    estimator: Callable[[], Any]


class Runtime(Protocol):
    """Executes one version. Nothing calls it from two threads at once.

    It is loaded in a worker's main process and used in processes that were forked from it. So it takes one
    thread, and keeps nothing that a fork breaks: no pool of threads, no connection.
    """

    #: The distributions whose versions a manifest records.
    libraries: ClassVar[tuple[str, ...]]

    @classmethod
    def explain_rejection(cls, estimator: Any, given: Input) -> str:
        """Why it cannot execute an estimator that takes such instances; empty where it may be able to."""
        ...

    @classmethod
    def compile(cls, estimator: Any, given: Input) -> bytes:
        """What `load` needs besides the artifact; may be empty. Whatever error it raises is shown as a reason."""
        ...

    @classmethod
    def load(cls, version: VerifiedVersion) -> Self:
        """A version, ready to predict. Raises ModelError."""
        ...

    def predict(self, method: str, instances: Sequence[Instance]) -> list[Any]:
        """One JSON-able prediction for each of a batch of instances that fit the contract, in their order."""
        ...


def runtime_names() -> list[str]:
    """The names of the runtimes there are, whether or not what they need is installed; sorted."""
    return sorted({found.name for found in metadata.entry_points(group=GROUP)})


def find_runtime(name: str) -> type[Runtime]:
    """A runtime by its name. Raises ModelError where there is none, or what it needs is not installed."""
    for found in metadata.entry_points(group=GROUP, name=name):
        try:
            runtime: type[Runtime] = found.load()
        except ModuleNotFoundError as error:
            extra = f"{found.dist.name}[{name}]" if found.dist else name
            raise ModelError(
                f"the runtime {name} needs {error.name}, which is not installed here; pip install '{extra}'"
            ) from None
        except Exception as error:
            raise ModelError(f"the runtime {name} cannot be imported: {type(error).__name__}: {error}") from error
        return runtime
    raise ModelError(f"there is no runtime {name!r} here; there are {', '.join(runtime_names())}")
