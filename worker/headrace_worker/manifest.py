"""The manifest of a version: its artifact, its contract, and an example with the expected predictions."""

from __future__ import annotations

import platform
from datetime import datetime
from importlib import metadata
from typing import Annotated, Any, Literal

import msgspec

from headrace.catalog.contract import Contract
from headrace.errors import ModelError
from headrace.wire.message import Instance
from headrace.wire.outcome import ClassLabel
from headrace.wire.stored import DECODE_ERRORS
from headrace_worker.profile import Profile

#: The format of an artifact. A joblib artifact is a pickle: loading it runs whatever code is in it. A `data`
#: artifact is read by the factory of its version only.
Format = Literal["skops", "joblib", "onnx", "data", "lightgbm", "xgboost", "catboost"]
#: The formats that are files of a library of gradient boosters. Each has the name of its library.
BoosterFormat = Literal["lightgbm", "xgboost", "catboost"]

#: The name of a runtime. It is also used in file names.
RuntimeName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]{0,31}\Z")]

#: The distributions whose versions a manifest records.
LIBRARIES = ("scikit-learn", "numpy", "pandas", "skops")

#: The name of the file with the modules that a version brings along.
CODE_FILE = "code.zip"

#: The name of an exception class, with or without its module.
ExceptionName = Annotated[str, msgspec.Meta(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*$")]
#: Seconds in a year, the longest time limit: JSON has no infinity.
_YEAR = 365 * 86_400
Seconds = Annotated[float, msgspec.Meta(gt=0, le=_YEAR)]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a model's batches, of the time its jobs may take, and of the attempts of a job."""

    #: The largest number of instances in a batch.
    max_batch_instances: Annotated[int, msgspec.Meta(gt=0)] = 1024
    #: The largest size of a batch's instances, in bytes of JSON.
    max_batch_bytes: Annotated[int, msgspec.Meta(gt=0)] = 8 * 1024 * 1024
    #: Seconds that the first job may wait for a fuller batch.
    max_batch_wait: Annotated[float, msgspec.Meta(ge=0, le=_YEAR)] = 0.0
    #: True if each job is predicted in a call of its own, as a row's answer depends on the other rows of the call.
    alone: bool = False
    #: True if each process that predicts loads the model itself, as what it loads does not survive a fork.
    load_after_fork: bool = False
    #: The largest number of the model's claims that run at once in one worker; None for one in each pool process.
    max_claims: Annotated[int, msgspec.Meta(gt=0)] | None = None
    #: Attempts of a job that may end in a crash, an expired lease or a transient error before the job fails.
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=100)] = 3
    #: The longest delay of the first retry, in seconds, doubled for each further one; and its upper bound.
    retry_delay: Annotated[float, msgspec.Meta(ge=0, le=_YEAR)] = 1.0
    retry_delay_max: Annotated[float, msgspec.Meta(ge=0, le=_YEAR)] = 60.0
    #: Further exceptions to retry on besides those of `execution.retry`: `Name` or `module.Name`.
    retry_on: tuple[ExceptionName, ...] = ()
    #: Seconds after which a run is interrupted by SoftTimeLimitExceeded, raised in the model; None for no limit.
    soft_time_limit: Seconds | None = None
    #: Seconds after which the process that runs the jobs is killed; None for the worker's `time_limit`.
    time_limit: Seconds | None = None

    def __post_init__(self) -> None:
        if self.soft_time_limit and self.time_limit and self.soft_time_limit >= self.time_limit:
            raise ValueError(
                f"soft_time_limit ({self.soft_time_limit:g}) must be below time_limit ({self.time_limit:g})"
            )


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """Instances, and each method's predictions for them when the version was packaged."""

    instances: list[Instance]
    expected: dict[str, list[Any]]


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """The file that a runtime compiled from the artifact."""

    #: The file's digest and its size in bytes.
    sha256: str
    size: int


class OwnCode(msgspec.Struct, frozen=True, kw_only=True):
    """The archive of the Python modules that a version brings along. They run when the version is loaded."""

    #: The archive's digest and its size in bytes.
    sha256: str
    size: int
    #: The names of the modules at its top.
    modules: tuple[str, ...]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """The result of trying a runtime when the version was packaged."""

    runtime: str
    #: The reason why it cannot run the model; empty if it can.
    refused: str = ""
    #: The largest difference of a number to scikit-learn's prediction, and the number of predictions compared.
    difference: float = 0.0
    compared: int = 0
    #: Milliseconds of one call, by its number of instances.
    milliseconds: dict[int, float] = {}


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of a version with predictions that the original model gave, when the version was packaged."""

    #: The source of these predictions, for people.
    source: str
    #: The number of rows compared, and the largest difference of two numbers.
    compared: int
    difference: float = 0.0


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a version, stored beside its artifact as `manifest.json`."""

    name: str
    #: The version's number as text: "1", "2", ...
    version: str
    created: datetime
    #: The estimator's classes, for people: `Pipeline(StandardScaler, LogisticRegression)`.
    estimator: str
    format: Format
    #: The artifact's digest and its size in bytes.
    sha256: str
    size: int
    #: Versions of Python and of the libraries the version was packaged with.
    libraries: dict[str, str]
    #: The version of scikit-learn that the estimator was made with, if that is older; else empty.
    made_with: str = ""
    #: The labels of the classes of a booster whose file does not have them, in the order of its probabilities.
    classes: tuple[ClassLabel, ...] = ()
    contract: Contract
    #: Constant arguments of the default method, such as `return_std`.
    arguments: dict[str, Any] = {}
    limits: Limits = Limits()
    #: The runtime that executes the version: its name among the entry points `headrace.runtimes`.
    runtime: RuntimeName = "sklearn"
    #: `module:factory` of the Python runtime.
    factory: str = ""
    #: None if the runtime executes the artifact itself.
    compiled: Compiled | None = None
    #: None if the version brings no modules.
    code: OwnCode | None = None
    #: The runtimes tried when the version was packaged, this one among them.
    trials: tuple[Trial, ...] = ()
    example: Example
    #: The comparison with the original model; None if there was nothing to compare with.
    proof: Proof | None = None
    #: The profile that drift is measured against; None if the version was packaged with too few rows.
    profile: Profile | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that a job may ask for, the default one first."""
        return tuple(self.contract.methods)

    @property
    def title(self) -> str:
        """The version as people write it: `churn@3`."""
        return f"{self.name}@{self.version}"

    @property
    def artifact(self) -> str:
        """The name of the artifact's file."""
        return f"artifact.{self.format}"

    @property
    def compiled_artifact(self) -> str:
        """The name of the compiled artifact's file, for a runtime that compiles."""
        return f"compiled.{self.runtime}"

    def with_version(self, version: str) -> Manifest:
        """Return a copy of the manifest with another version number."""
        contract = msgspec.structs.replace(self.contract, version=version)
        return msgspec.structs.replace(self, version=version, contract=contract)


def installed_libraries() -> dict[str, str]:
    """Return the versions of Python and of the libraries in this process."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES}


def encode(manifest: Manifest) -> bytes:
    """Encode a manifest for storage, as JSON indented for people."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(data: bytes, title: str) -> Manifest:
    """Decode a stored manifest. Raises ModelError, which names the version by its `title`."""
    try:
        return msgspec.json.decode(data, type=Manifest)
    except DECODE_ERRORS as error:
        raise ModelError(
            f"the manifest of {title} cannot be read: {error}; it was changed or damaged, or a newer Headrace "
            "wrote it: upgrade this one, or add the model again"
        ) from None
