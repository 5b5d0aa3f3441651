"""The types of answers that are the same for all models. They describe; the faces write the answers themselves."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from headrace.catalog.aliases import Alias
from headrace.inspection.timeline import Timeline
from headrace.wire.outcome import ClassLabel, Reason, Status

JobId = Annotated[
    str, Meta(description="The job's id. Keep it: it finds the job for as long as its outcome is stored.")
]


class InputProblem(msgspec.Struct, kw_only=True):
    """One thing that is wrong with a request."""

    pointer: Annotated[str, Meta(description="The JSON pointer of the value.", examples=["/instances/0/age"])]
    detail: Annotated[str, Meta(description="The fault, without the value.")]


class Problem(msgspec.Struct, kw_only=True):
    """An error (RFC 9457). Compare `type`; `detail` is for people."""

    type: Annotated[str, Meta(description="The kind of the error: a path of this gateway that explains it.")]
    title: Annotated[str, Meta(description="The kind of the error in words.")]
    status: Annotated[int, Meta(description="The HTTP status.", ge=400, le=599)]
    detail: Annotated[str, Meta(description="What is wrong, and what to do. It repeats no value of the request.")]
    error: Annotated[str, Meta(description="The same as `detail`, for clients that look here.")]
    instance: Annotated[str, Meta(description="The path of the request.")] | UnsetType = UNSET
    errors: Annotated[list[InputProblem], Meta(description="Each thing that is wrong.")] | UnsetType = UNSET
    id: JobId | UnsetType = UNSET
    reason: Annotated[Reason, Meta(description="The class of a job's failure.")] | UnsetType = UNSET
    exception: Annotated[str, Meta(description="The class of the exception of a failed job.")] | UnsetType = UNSET
    outcome: Annotated[Status, Meta(description="The outcome that the job has.")] | UnsetType = UNSET


class Job(msgspec.Struct, kw_only=True):
    """A job: its status, and its predictions or its failure once it has ended."""

    id: JobId
    status: Status
    model: str | UnsetType = UNSET
    version: Annotated[str, Meta(description="The version that predicted.")] | UnsetType = UNSET
    predictions: list[Any] | UnsetType = UNSET
    classes: (
        Annotated[list[ClassLabel], Meta(description="The classes whose values each prediction has, in order.")]
        | UnsetType
    ) = UNSET
    reason: Annotated[Reason, Meta(description="The class of the failure.")] | UnsetType = UNSET
    error: Annotated[str, Meta(description="The exception's class.")] | UnsetType = UNSET
    message: Annotated[str, Meta(description="What failed, without a value of the instances.")] | UnsetType = UNSET


class Models(msgspec.Struct, kw_only=True):
    """The models that a caller may use."""

    models: list[str]


class Queue(msgspec.Struct, kw_only=True):
    """The depth of a model's queue, in jobs."""

    waiting: int
    delayed: int
    running: int


class ModelContract(msgspec.Struct, kw_only=True):
    """The form of a version's instances and predictions, as its package has it."""

    input: dict[str, Any]
    methods: dict[str, dict[str, Any]]


class Model(msgspec.Struct, kw_only=True):
    """A version of a model, and the state of its queue."""

    name: str
    ready: Annotated[bool, Meta(description="True if a worker has this version in memory, or nobody may know.")]
    version: str
    versions: Annotated[list[str], Meta(description="The versions that are published, the oldest first.")]
    aliases: Annotated[dict[str, Alias], Meta(description="The names of versions, such as `production`.")]
    methods: Annotated[list[str], Meta(description="The methods of the version, its default first.")]
    contract: ModelContract
    queue: Queue | UnsetType = UNSET
    paused: Annotated[bool, Meta(description="True if no worker takes jobs of this model.")] | UnsetType = UNSET


#: The types that the document has as components.
ANSWERS = (Problem, Job, Timeline, Models, Model)
