"""The arguments of a Celery task, read as a job: `headrace.predict`, and the task of bulk jobs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from headrace.errors import InvalidInput
from headrace.wire.bulk_checks import read_step
from headrace.wire.columns import read_columns
from headrace.wire.message import Job, TaskOptions
from headrace.wire.names import check_model_name, split_version

_NO_OPTIONS = TaskOptions()
#: The arguments that may be named.
_NAMED = frozenset({"model", "instances"})
#: The fields of the result of a job, as Celery passes it on, and the fields that only some results have.
_RESULT_FIELDS, _OPTIONAL_FIELDS = frozenset({"model", "version", "predictions"}), frozenset({"classes", "errors"})


def build_job(
    job: str,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    *,
    eta: Any = None,
    expires: Any = None,
    priority: int = 0,
    trace: dict[str, str] | None = None,
) -> Job:
    """Return the job that the arguments of a Celery task describe. Raises InvalidInput for invalid arguments.

    `eta` and `expires` are the headers of the message: ISO 8601 texts, or None.
    """
    instances: Any
    match args:
        case [str() as model, list() as instances] if not kwargs or kwargs.keys().isdisjoint(_NAMED):
            pass
        case [str() as model, dict() as columns] if not kwargs or kwargs.keys().isdisjoint(_NAMED):
            instances = read_columns(columns)
        case _:
            model, instances, kwargs = _name_arguments(args, kwargs)
            if isinstance(instances, dict):
                instances = read_columns(instances)
    try:
        options = msgspec.convert(kwargs, TaskOptions) if kwargs else _NO_OPTIONS
    except msgspec.ValidationError as error:
        raise InvalidInput(f"a job's options are version, method and metadata: {error}") from None
    name, version = split_version(model, options.version)
    return Job(
        id=job,
        model=name,
        instances=instances,
        version=version,
        method=options.method,
        metadata=options.metadata,
        priority=priority,
        expires=_parse_moment(expires),
        eta=_parse_moment(eta),
        trace=trace,
    )


def build_bulk_job(
    job: str,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    *,
    eta: Any = None,
    expires: Any = None,
    priority: int = 0,
    trace: dict[str, str] | None = None,
) -> Job:
    """Return the job that the arguments of the task of bulk jobs describe, as `build_job`."""
    match args:
        case [str() as model, dict() as step] if not kwargs:
            pass
        case _:
            raise InvalidInput(
                "a bulk job's arguments are [model, step]: a model's name, and an object; "
                f"got [{_describe_types(args)}]{' and named arguments' if kwargs else ''}"
            )
    check_model_name(model)
    read = read_step(model, step)
    return Job(
        id=job,
        model=model,
        instances=[],
        version=getattr(read, "version", None),
        method=getattr(read, "method", None),
        priority=priority,
        expires=_parse_moment(expires),
        eta=_parse_moment(eta),
        trace=trace,
        step=read,
    )


def _name_arguments(
    args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[str, list[Any] | dict[str, Any], dict[str, Any]]:
    """Return model and instances of a job that names one of them or both, and its other options.

    A later link of a chain, and the body of a chord, have the result of what was before as their only positional
    argument. With `model=` it is the instances; where `instances=` is named as well, it is not used.
    """
    model, instances = kwargs.get("model"), kwargs.get("instances")
    match args:
        case [] | [_] if isinstance(model, str) and isinstance(instances, list | dict):
            pass
        case [previous] if isinstance(model, str) and "instances" not in kwargs:
            instances = _read_result(previous)
        case [str()] if "model" not in kwargs:
            model = args[0]
    if not isinstance(model, str) or not isinstance(instances, list | dict) or len(args) > 1:
        named = "".join(f", {name}={type(kwargs[name]).__name__}" for name in sorted(_NAMED & kwargs.keys()))
        raise InvalidInput(
            "a job's arguments are [model, instances]: a model's name, and a list of instances; a later link of a "
            "chain names its model, model=..., and the result before it is the list of instances; "
            f"got [{_describe_types(args)}]{named}"
        )
    return model, instances, {name: value for name, value in kwargs.items() if name not in _NAMED}


def _read_result(previous: Any) -> Any:
    """Return the instances in the result of the task before: a list, or the predictions of another job."""
    if isinstance(previous, dict) and previous.keys() - _OPTIONAL_FIELDS == _RESULT_FIELDS:
        return previous["predictions"]
    return previous


def _describe_types(args: Sequence[Any]) -> str:
    names = ", ".join(type(arg).__name__ for arg in args[:3])
    return names if len(args) <= 3 else f"{names}, and {len(args) - 3:,} more"


def _parse_moment(text: Any) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        raise InvalidInput(
            "a job's eta and expires are ISO 8601 moments, such as 2030-01-31T12:00:00+00:00"
        ) from None
    # Celery writes no time zone for UTC.
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
