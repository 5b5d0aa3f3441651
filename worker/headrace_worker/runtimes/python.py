"""A Python callable: `module:factory` makes an object that loads and predicts. What is in it is its author's.

    class Churn:
        def load(self, data: bytes) -> None: ...
        def predict(self, method: str, instances: list) -> list: ...

The factory is called without arguments. An object may name the methods that jobs may ask for, `methods`, the
default one first; otherwise it has `predict` alone.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from headrace.catalog.contract import Array, Named, Text
from headrace.errors import ModelError
from headrace.wire.message import Instance
from headrace_worker.runtimes import VerifiedVersion
from headrace_worker.runtimes.predictions import to_json_value, to_predictions

_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class PythonRuntime:
    """Runs an object that a factory made."""

    libraries: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def explain_rejection(cls, estimator: Any, given: Named | Array | Text) -> str:  # noqa: ARG003  # a runtime's signature
        """It executes no estimator."""
        return "it executes what a factory makes, as module:factory"

    @classmethod
    def compile(cls, estimator: Any, given: Named | Array | Text) -> bytes:  # noqa: ARG003  # a runtime's signature
        """It compiles nothing."""
        return b""

    @classmethod
    def load(cls, version: VerifiedVersion) -> Self:
        """What the factory of a version makes, with its artifact loaded. Raises ModelError."""
        return cls(create_model(version.manifest.factory, version.artifact))

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods the object has for jobs, the default one first."""
        return tuple(getattr(self._model, "methods", ("predict",)))

    @property
    def title(self) -> str:
        """The object's class, for people."""
        return type(self._model).__name__

    def predict(self, method: str, instances: Sequence[Instance]) -> list[Any]:
        """One prediction for each instance. Raises what the object raises, and ModelError for too few or many."""
        output = self._model.predict(method, list(instances))
        if not isinstance(output, list | tuple):
            return to_predictions(output, len(instances))
        if len(output) != len(instances):
            got = f"{len(output)} predictions for {len(instances)} instances"
            raise ModelError(f"the model gave {got}; it must give one for each")
        return [to_json_value(value) for value in output]


def create_model(factory: str, data: bytes) -> Any:
    """Call a factory, and let what it makes load the artifact. Raises ModelError."""
    if not is_factory(factory):
        raise ModelError(f"{factory[:64]!r} is no module:factory")
    module, _, path = factory.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
        model = found()
        model.load(data)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{factory} cannot be imported: there is no module {error.name} here; install it, or set PYTHONPATH"
        ) from None
    except Exception as error:
        raise ModelError(f"{factory} cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(getattr(model, "predict", None)):
        raise ModelError(f"what {factory} makes has no `predict`")
    return model


def is_factory(text: str) -> bool:
    """Whether a text has the form `module:factory`."""
    return _FACTORY.fullmatch(text) is not None


def is_trusted(factory: str, modules: str) -> bool:
    """Whether a factory is of one of some modules, named with commas between, or of a module within one."""
    module = factory.partition(":")[0]
    trusted = [name.strip() for name in modules.split(",") if name.strip()]
    return any(module == name or module.startswith(f"{name}.") for name in trusted)
