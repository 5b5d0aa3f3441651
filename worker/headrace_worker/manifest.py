"""What is known of a version of a model: its artifact, its contract, and an example that proves it."""

from __future__ import annotations

import platform
from datetime import datetime
from importlib import metadata
from typing import Annotated, Any, Literal

import msgspec

from headrace.catalog.contract import Contract
from headrace.errors import ModelError
from headrace.wire.message import Instance
from headrace_worker.profile import Profile

#: How an artifact is stored. A joblib artifact is a pickle: loading it runs whatever code is in it. What is
#: in a `data` artifact only the factory of its version knows.
Format = Literal["skops", "joblib", "onnx", "data"]

#: The name of a runtime; a part of a file's name too.
RuntimeName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]{0,31}\Z")]

#: The libraries whose versions a manifest records, as their distributions are called.
LIBRARIES = ("scikit-learn", "numpy", "pandas", "skops")

#: The name of an exception class, with or without its module.
ExceptionName = Annotated[str, msgspec.Meta(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*$")]
#: Seconds in a year: JSON has no infinity, and no timer waits for one.
_YEAR = 365 * 86_400
Seconds = Annotated[float, msgspec.Meta(gt=0, le=_YEAR)]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a model's work one call of it may be, how long it may take, and how often a job is tried."""

    #: Instances in a batch.
    max_batch_instances: Annotated[int, msgspec.Meta(gt=0)] = 1024
    #: Bytes of JSON the instances of a batch may take.
    max_batch_bytes: Annotated[int, msgspec.Meta(gt=0)] = 8 * 1024 * 1024
    #: Seconds the first job may wait for others; for models where a fuller batch is worth it.
    max_batch_wait: Annotated[float, msgspec.Meta(ge=0, le=_YEAR)] = 0.0
    #: Claims of the model that run at once in one worker, at the most; None is one in each pool process.
    max_claims: Annotated[int, msgspec.Meta(gt=0)] | None = None
    #: Runs of a job that may end in a crash, a lapse or a transient error before it is given up.
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=100)] = 3
    #: Seconds that the first retry waits at the most, doubled for each further one; and the most it comes to.
    retry_delay: Annotated[float, msgspec.Meta(ge=0, le=_YEAR)] = 1.0
    retry_delay_max: Annotated[float, msgspec.Meta(ge=0, le=_YEAR)] = 60.0
    #: Exceptions to retry on besides those of `headrace_worker.execution.retry`, by name: `Name` or `module.Name`.
    retry_on: tuple[ExceptionName, ...] = ()
    #: Seconds after which a run of its jobs is interrupted (SoftTimeLimitExceeded is raised in the model);
    #: None is never.
    soft_time_limit: Seconds | None = None
    #: Seconds after which the process that runs its jobs is killed; None is the worker's `time_limit`.
    time_limit: Seconds | None = None

    def __post_init__(self) -> None:
        if self.soft_time_limit and self.time_limit and self.soft_time_limit >= self.time_limit:
            raise ValueError(
                f"soft_time_limit ({self.soft_time_limit:g}) must be below time_limit ({self.time_limit:g})"
            )


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """Instances, and for each method the predictions the estimator gave for them when it was packaged."""

    instances: list[Instance]
    expected: dict[str, list[Any]]


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime has made of the artifact, in a file of its own."""

    #: Digest and size in bytes of that file.
    sha256: str
    size: int


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a runtime that was tried when the version was packaged."""

    runtime: str
    #: Why it cannot run the model; empty where it can.
    refused: str = ""
    #: The largest difference to scikit-learn of any number in a prediction, and the predictions compared.
    difference: float = 0.0
    compared: int = 0
    #: Milliseconds that one call takes, by its rows.
    milliseconds: dict[int, float] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a model. Lies beside its artifact as `manifest.json`."""

    name: str
    #: A number as text: "1", "2", ...
    version: str
    created: datetime
    #: The estimator's class, for people: `Pipeline(StandardScaler, LogisticRegression)`.
    estimator: str
    format: Format
    #: Digest and size in bytes of the artifact.
    sha256: str
    size: int
    #: Versions of Python and of the libraries the version was packaged with.
    libraries: dict[str, str]
    contract: Contract
    limits: Limits = Limits()
    #: What executes the version, by its name among the entry points `headrace.runtimes`.
    runtime: RuntimeName = "sklearn"
    #: `module:factory` of the Python runtime.
    factory: str = ""
    #: None where the runtime executes the artifact itself.
    compiled: Compiled | None = None
    #: The runtimes tried when the version was packaged, this one among them.
    trials: tuple[Trial, ...] = ()
    example: Example
    #: What drift is told by; None where too few rows were given.
    profile: Profile | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods a job may ask for, the default one first."""
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
        """The name of the file with what the runtime made of the artifact, where it made something."""
        return f"compiled.{self.runtime}"

    def with_version(self, version: str) -> Manifest:
        """The same manifest for another number."""
        contract = msgspec.structs.replace(self.contract, version=version)
        return msgspec.structs.replace(self, version=version, contract=contract)


def installed_libraries() -> dict[str, str]:
    """Versions of Python and of the libraries, as this process has them."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES}


def encode(manifest: Manifest) -> bytes:
    """A manifest as it lies on disk: JSON, indented for people."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(data: bytes, title: str) -> Manifest:
    """A manifest from disk. Raises ModelError naming the version (`title`) it was read for."""
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ModelError(
            f"the manifest of {title} cannot be read: {error}; it was changed or damaged, or a newer Headrace "
            "wrote it: upgrade this one, or add the model again"
        ) from None
