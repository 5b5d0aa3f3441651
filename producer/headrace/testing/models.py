"""The models of an `InMemoryClient`: a function, a contract, or a packaged version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import msgspec

from headrace.catalog.contract import Contract, Output
from headrace.errors import ModelError
from headrace.wire.message import Instance, encode_instances

#: A function of a list of instances that returns a prediction for each.
Answer = Callable[[list[Any]], Sequence[Any]]
#: A function of a method's name and a list of instances that returns a prediction for each.
Predict = Callable[[str, list[Instance]], Sequence[Any]]

#: The entry point by which the worker's distribution offers to load a version from a model store.
_LOADERS = "headrace.model_versions"


class ModelVersion(Protocol):
    """A version that is loaded in this process, as `headrace_worker.load_version` returns it."""

    @property
    def contract(self) -> Contract:
        """The input and output of the version."""

    def predict(self, method: str, instances: list[Instance], /) -> Sequence[Any]:
        """Return a prediction for each instance."""


#: The value for a model's name. A path is a model store, whose newest version of the model is loaded.
Model = Answer | Contract | ModelVersion | Path


def resolve_model(name: str, model: Model) -> tuple[Predict, Contract | None]:
    """Return the function that predicts for a model, and the model's contract if it has one.

    Raises ModelError if a version cannot be loaded.
    """
    if isinstance(model, Path):
        model = _load_version(model, name)
    if isinstance(model, Contract):
        return _constant(model), model
    if callable(model):
        answer = model
        return lambda _, instances: answer(instances), None
    return model.predict, model.contract


def _load_version(store: Path, name: str) -> ModelVersion:
    # The client never imports the worker: the worker says by its entry point how a version is loaded.
    loaders = entry_points(group=_LOADERS)
    if not loaders:
        raise ModelError(
            f"to load {name} from the model store {store}, install the worker beside your tests: "
            "pip install headrace-worker"
        )
    version: ModelVersion = next(iter(loaders)).load()(store, name)
    return version


def predict(function: Predict, method: str, sent: Sequence[Instance]) -> list[Any]:
    """Return the predictions of a function. Raises ValueError if their number is not that of the instances."""
    # As on the way to a worker and back, instances and predictions are JSON in between.
    instances = msgspec.json.decode(encode_instances(sent))
    predictions: list[Any] = msgspec.json.decode(encode_instances(list(function(method, instances))))
    if len(predictions) != len(instances):
        raise ValueError(f"{len(predictions)} predictions for {len(instances)} instances")
    return predictions


def _constant(contract: Contract) -> Predict:
    return lambda method, instances: [_value(contract.methods[method]) for _ in instances]


def _value(output: Output) -> Any:
    def nested(shape: tuple[int, ...]) -> Any:
        if shape:
            return [nested(shape[1:]) for _ in range(shape[0])]
        return output.classes[0] if output.classes and not output.shape else 0

    return nested(output.shape)
