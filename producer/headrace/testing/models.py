"""The models of an `InMemoryClient`: functions, contracts, and packaged versions; and how they run a job."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import msgspec

from headrace.catalog.contract import Contract, Output
from headrace.catalog.published import version_order
from headrace.catalog.validation import check_instances, check_method
from headrace.clock import utc_now
from headrace.errors import InvalidInput, ModelError, UnknownModel
from headrace.submit.options import SubmitOptions
from headrace.wire.message import Instance, Job, encode_instances
from headrace.wire.names import check_model_name
from headrace.wire.outcome import Expired, Failure, Outcome, Prediction, Success

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


class InMemoryModels:
    """The models of one client by name, and their contracts. The newest version serves.

    `contracts` are those of models that are functions, and of further versions.

    Raises ModelError if a version cannot be loaded, and InvalidInput for a name that no model can have.
    """

    def __init__(self, models: Mapping[str, Model], contracts: Iterable[Contract]) -> None:
        self._predict: dict[str, Predict] = {}
        #: By model and version.
        self._contracts: dict[str, dict[str, Contract]] = {}
        for contract in contracts:
            self._contracts.setdefault(contract.model, {})[contract.version] = contract
        for name, model in models.items():
            check_model_name(name)
            self._predict[name], own_contract = _resolve_model(name, model)
            if own_contract is not None:
                self._contracts.setdefault(name, {})[own_contract.version] = own_contract

    @property
    def names(self) -> list[str]:
        """The names of the models, sorted."""
        return sorted(self._predict)

    def require(self, model: str) -> None:
        """Raise UnknownModel unless there is a model of this name."""
        if model not in self._predict:
            raise self._unknown_model(model)

    def find_contract(self, model: str, version: str | None = None) -> Contract:
        """Return the contract of a version, of the newest for None. Raises UnknownModel."""
        contracts = self._contracts.get(check_model_name(model))
        if contracts is None:
            raise self._unknown_model(model)
        if version is None:
            return contracts[max(contracts, key=version_order)]
        if version not in contracts:
            versions = ", ".join(sorted(contracts, key=version_order))
            raise UnknownModel(f"model {model!r} has no version {version!r}; it has {versions}")
        return contracts[version]

    def check_method(self, model: str, version: str | None, method: str | None) -> str:
        """Return the method that runs. Raises UnknownModel, and InvalidInput for a method that the model lacks."""
        self.require(model)
        if model not in self._contracts:
            return method or "predict"
        return check_method(self.find_contract(model, version), method)

    def check_instances(self, options: SubmitOptions, instances: Sequence[Any]) -> list[Instance]:
        """Check the instances of a job against the contract of its model, if there is one. Raises InvalidInput."""
        instances = list(instances)  # also those in columns
        if not instances:
            raise InvalidInput("a job needs at least one instance; the list is empty")
        self.check_method(options.model, options.version, options.method)
        if options.model not in self._contracts:
            return instances
        return check_instances(self.find_contract(options.model, options.version), instances)

    def find_version(self, job: Job) -> str:
        """Return the version that runs a job."""
        if job.version is None and job.model in self._contracts:
            return self.find_contract(job.model).version
        return job.version or "1"

    def run(self, job: Job) -> Outcome:
        """Return the outcome of a job. An exception of its model is a failure."""
        if job.expires is not None and job.expires <= utc_now():
            return Expired(job=job.id)
        try:
            method = self.check_method(job.model, job.version, job.method)
            predictions = _predict(self._predict[job.model], method, job.instances)
        except Exception as error:  # noqa: BLE001  # every exception of a model is the failure of its job
            return Failure(
                job=job.id,
                reason="bad input" if isinstance(error, InvalidInput) else "permanent",
                error=type(error).__name__,
                module=type(error).__module__,
                message=str(error),
            )
        classes = None
        if job.model in self._contracts:
            classes = self.find_contract(job.model, job.version).methods[method].column_classes
        return Success(
            job=job.id,
            prediction=Prediction(
                model=job.model, version=self.find_version(job), predictions=predictions, classes=classes
            ),
        )

    def _unknown_model(self, model: str) -> UnknownModel:
        return UnknownModel(f"no model {model!r} is published. Known: {', '.join(self.names) or 'none'}")


def _predict(function: Predict, method: str, sent: Sequence[Instance]) -> list[Any]:
    """Return the predictions of a function. Raises ValueError if their number is not that of the instances."""
    # As on the way to a worker and back, instances and predictions are JSON in between.
    instances = msgspec.json.decode(encode_instances(sent))
    predictions: list[Any] = msgspec.json.decode(encode_instances(list(function(method, instances))))
    if len(predictions) != len(instances):
        raise ValueError(f"{len(predictions)} predictions for {len(instances)} instances")
    return predictions


def _resolve_model(name: str, model: Model) -> tuple[Predict, Contract | None]:
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
        raise ModelError(f"to load {name} from the model store {store}, install headrace-worker beside your tests")
    version: ModelVersion = next(iter(loaders)).load()(store, name)
    return version


def _constant(contract: Contract) -> Predict:
    return lambda method, instances: [_value(contract.methods[method]) for _ in instances]


def _value(output: Output) -> Any:
    def nested(shape: tuple[int, ...]) -> Any:
        if shape:
            return [nested(shape[1:]) for _ in range(shape[0])]
        return output.classes[0] if output.classes and not output.shape else 0

    return nested(output.shape)
