"""The arguments of `submit` as a job: what each may be, and what is wrong with it otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

import msgspec

from headrace.errors import InvalidInput
from headrace.wire.keys import check_model_name, split_version
from headrace.wire.message import Job

#: Bytes a job's metadata may take as JSON: a few words about it, not a second payload.
_MOST_METADATA = 4096
#: A year; longer is a mistake of units.
_LONGEST = timedelta(days=366)


class JobOptions(TypedDict, total=False):
    """What may be asked of a job besides its input."""

    #: Version of the model, a number as text, or an alias; what serves (`headrace.catalog.aliases`) by default.
    version: str | None
    #: Method of the estimator, such as `predict_proba`; the version's own default by default.
    method: str | None
    #: 0 (first, the default) to 9 (last).
    priority: int
    #: Not started later than this: seconds from now, a timedelta, or a moment with a time zone.
    expires: float | timedelta | datetime | None
    #: Not started before this: seconds from now, or a timedelta.
    delay: float | timedelta | None
    #: Your own words about the job, text to text; they travel with it. Not for secrets.
    metadata: Mapping[str, str] | None
    #: Return only when neither a restart of Redis nor a failover can lose the job (`headrace.submit.durability`).
    durable: bool


class SubmitOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of every job of a call."""

    model: str
    version: str | None
    method: str | None
    priority: int
    expires: datetime | None
    eta: datetime | None
    metadata: dict[str, str] | None
    durable: bool

    def job(
        self,
        job: str,
        version: str | None,
        instances: list[Any],
        reply_to: str | None = None,
        trace: dict[str, str] | None = None,
    ) -> Job:
        """A job of these instances, for the version that was asked for by its number or otherwise.

        Its outcome is told to an inbox too.
        """
        return Job(
            id=job,
            model=self.model,
            instances=instances,
            version=version,
            method=self.method,
            priority=self.priority,
            expires=self.expires,
            eta=self.eta,
            reply_to=reply_to,
            metadata=self.metadata,
            trace=trace,
        )


def parse_options(model: str, options: JobOptions, now: datetime) -> SubmitOptions:
    """The options of a call at the moment `now`. Raises InvalidInput, and TypeError for an option there is not."""
    for name in options:
        if name not in JobOptions.__annotations__:
            raise TypeError(f"a job has no option {name!r}; it has {', '.join(JobOptions.__annotations__)}")
    name, version = split_version(model, options.get("version"))
    expires, eta = _expires(options.get("expires"), now), _start(options.get("delay"), now)
    if expires and eta and expires <= eta:
        raise InvalidInput("the job would expire before its delay is over; let `expires` be later than `delay`")
    return SubmitOptions(
        model=check_model_name(name),
        version=_word("version", version, "a number as text or an alias, such as '3' or 'canary'"),
        method=_word("method", options.get("method"), "a name, such as 'predict_proba'"),
        priority=_priority(options.get("priority", 0)),
        expires=expires,
        eta=eta,
        metadata=_metadata(options.get("metadata")),
        durable=_yes_or_no("durable", options.get("durable", False)),
    )


def _yes_or_no(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(f"`{name}` is True or False, got {_a(value)}")
    return value


def _word(name: str, value: object, wanted: str) -> str | None:
    if value is not None and not (isinstance(value, str) and 0 < len(value) <= 64):
        raise InvalidInput(f"`{name}` is {wanted}, got {_a(value)}")
    return value


def _priority(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 9:
        raise InvalidInput(f"`priority` is an integer from 0 (first) to 9 (last), got {_a(value)}")
    return value


def _expires(value: object, now: datetime) -> datetime | None:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidInput("`expires` needs a time zone, such as datetime.now(UTC) + timedelta(minutes=5)")
        if value <= now:
            raise InvalidInput("`expires` is in the past")
        return value.astimezone(UTC)
    ahead = length("expires", value)
    if ahead is None:
        return None
    if not ahead:
        raise InvalidInput("`expires` is in the past; it needs more than 0 seconds")
    return now + ahead


def _start(value: object, now: datetime) -> datetime | None:
    ahead = length("delay", value)
    return now + ahead if ahead else None


def length(name: str, value: object) -> timedelta | None:
    """A length of time, given in seconds or as it is. Raises InvalidInput naming the option."""
    if value is None:
        return None
    if isinstance(value, timedelta):
        given = value
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        if abs(value) > _LONGEST.total_seconds():
            raise InvalidInput(f"`{name}` is over a year; it is given in seconds")
        given = timedelta(seconds=value)
    else:
        raise InvalidInput(f"`{name}` is a number of seconds or a timedelta, got {_a(value)}")
    if given < timedelta(0):
        raise InvalidInput(f"`{name}` is negative")
    if given > _LONGEST:
        raise InvalidInput(f"`{name}` is over a year")
    return given


def _metadata(value: object) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or not all(isinstance(part, str) for item in value.items() for part in item):
        raise InvalidInput("`metadata` is an object of text to text")
    size = len(msgspec.json.encode(dict(value)))
    if size > _MOST_METADATA:
        raise InvalidInput(f"`metadata` takes {size:,} bytes as JSON, more than the {_MOST_METADATA:,} it may")
    return dict(value)


def _a(value: object) -> str:
    return repr(value) if isinstance(value, int | float) else f"a {type(value).__name__}"


def instances_from(instance: Any, instances: Any) -> list[Any]:
    """The instances of one job, given one way or the other. A pandas DataFrame is its rows."""
    if (instance is None) == (instances is None):
        raise InvalidInput("give a job either one instance, or `instances=[...]`")
    return [instance] if instances is None else list(iterate_instances(instances))


def iterate_instances(instances: Any) -> Iterable[Any]:
    """Instances one by one, a list where they are one. Raises InvalidInput for what is no series of instances."""
    if type(instances).__module__.startswith("pandas") and hasattr(instances, "columns"):
        rows: list[Any] = instances.to_dict("records")
        return rows
    if isinstance(instances, list):
        return instances
    if isinstance(instances, str | bytes | Mapping) or not isinstance(instances, Iterable):
        raise InvalidInput(f"`instances` is a list of instances, got {_a(instances)}; for one use `instance`")
    return instances
