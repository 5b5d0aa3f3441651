"""The runtime for a Python object: `module:factory` creates an object that loads the artifact and predicts.

    class Churn:
        def load(self, data: bytes) -> None: ...
        def predict(self, method: str, instances: list) -> list: ...

The factory is called without arguments. The object may have an attribute `methods`: the names of the methods that
jobs may ask for, the default one first. Without it, jobs may ask for `predict` only. It may have a method
`predict_table(method, batch)`, which takes the instances of a table as a RecordBatch of pyarrow, a column for each
feature in the types of `headrace_worker.tables.schema`, and returns the same predictions. With the attribute
`load_after_fork = True`, it is loaded in each pool process, and never in a process that forks.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from headrace.errors import ModelError
from headrace.wire.message import Instance
from headrace_worker.runtimes import InputSchema, VerifiedVersion
from headrace_worker.runtimes.predictions import check_count, to_json_value, to_predictions

_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class PythonRuntime:
    """A runtime around an object that a factory created."""

    libraries: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def explain_rejection(cls, estimator: Any, input_schema: InputSchema) -> str:  # noqa: ARG003  # see Runtime
        """Return the reason: it executes no estimator."""
        return "it executes objects that a module:factory creates"

    @classmethod
    def compile(cls, estimator: Any, input_schema: InputSchema) -> bytes:  # noqa: ARG003  # see Runtime
        """Return no bytes: it compiles nothing."""
        return b""

    @classmethod
    def load(cls, version: VerifiedVersion) -> Self:
        """Create the object of a version and let it load the artifact. Raises ModelError."""
        return cls(create_model(version.manifest.factory, version.artifact))

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that jobs may ask for, the default one first."""
        return tuple(getattr(self._model, "methods", ("predict",)))

    @property
    def load_after_fork(self) -> bool:
        """True if the object must not be loaded in a process that forks."""
        return getattr(self._model, "load_after_fork", False) is True

    @property
    def title(self) -> str:
        """The name of the object's class, for people."""
        return type(self._model).__name__

    def predict_table(self, method: str, batch: Any) -> Any:
        """Return an array of predictions for checked columns; None if the object takes instances only."""
        predict_table = getattr(self._model, "predict_table", None)
        if predict_table is None:
            return None
        from headrace_worker.runtimes.prediction_column import from_values, to_prediction_column

        output = predict_table(method, batch)
        if type(output).__module__.partition(".")[0] == "pyarrow":
            output = output.to_pylist()
        if isinstance(output, list | tuple):
            check_count(len(output), batch.num_rows)
            return from_values([to_json_value(value) for value in output])
        return to_prediction_column(output, batch.num_rows)

    def predict(self, method: str, instances: Sequence[Instance]) -> list[Any]:
        """Return a prediction for each instance. Raises the object's errors, and ModelError for a wrong number."""
        output = self._model.predict(method, list(instances))
        if not isinstance(output, list | tuple):
            return to_predictions(output, len(instances))
        check_count(len(output), len(instances))
        return [to_json_value(value) for value in output]


def create_model(factory: str, data: bytes) -> Any:
    """Call a factory, and let the object it returns load the artifact. Raises ModelError."""
    if not is_factory(factory):
        raise ModelError(f"{factory[:64]!r} is no module:factory")
    module, _, path = factory.partition(":")
    try:
        function: Any = importlib.import_module(module)
        for name in path.split("."):
            function = getattr(function, name)
        model = function()
        model.load(data)
    except ModelError:
        raise
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{factory} cannot be imported: there is no module {error.name} here; install it, or set PYTHONPATH"
        ) from None
    except (Exception, SystemExit) as error:
        raise ModelError(f"{factory} cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(getattr(model, "predict", None)):
        raise ModelError(f"the object that {factory} returns has no method `predict`")
    return model


def is_factory(text: str) -> bool:
    """Decide whether a text has the form `module:factory`."""
    return _FACTORY.fullmatch(text) is not None


def is_trusted(factory: str, modules: str) -> bool:
    """Decide whether a factory belongs to one of these modules or their submodules. Commas separate modules."""
    module = factory.partition(":")[0]
    trusted = [name.strip() for name in modules.split(",") if name.strip()]
    return any(module == name or module.startswith(f"{name}.") for name in trusted)
