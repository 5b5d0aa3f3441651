"""The arguments of a submit: their types, their checks, and the job they describe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypedDict, cast

import msgspec

from headrace.errors import InvalidInput
from headrace.text import plural
from headrace.wire.columns import Columns
from headrace.wire.message import Job
from headrace.wire.names import check_model_name, check_short_name, split_version

#: Bytes of a job's metadata as JSON: a few words about the job, not a second payload.
_MAX_METADATA_BYTES = 4096
#: A year; a longer time is a mistake of units.
_MAX_DURATION = timedelta(days=366)
#: The time of a call that has no option with a time.
_NO_MOMENT = datetime.fromtimestamp(0, UTC)


class JobOptions(TypedDict, total=False):
    """The options of a job, besides its input."""

    #: Version of the model, a number as text, or an alias; by default the served one (`headrace.catalog.aliases`).
    version: str | None
    #: Method of the estimator, such as `predict_proba`; the version's own default by default.
    method: str | None
    #: 0 (first, the default) to 9 (last).
    priority: int
    #: The job is not started later than this: seconds from now, a timedelta, or a moment with a time zone.
    expires: float | timedelta | datetime | None
    #: The job is not started before this: seconds from now, or a timedelta.
    delay: float | timedelta | None
    #: Your own notes about the job, text to text; they travel with it. Not for secrets.
    metadata: Mapping[str, str] | None
    #: Return only when neither a restart of Redis nor a failover can lose the job (`headrace.submit.durability`).
    durable: bool
    #: The caller of the HTTP gateway that the job belongs to. Others there do not see it.
    owner: str | None
    #: The endpoint that is notified of the outcome, by its name.
    notify: str | None
    #: The name under which listeners receive the outcome (`Client.listen`).
    listen: str | None


class SubmitOptions(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """The checked options of a call; they hold for all its jobs."""

    model: str
    version: str | None
    method: str | None
    priority: int
    expires: datetime | None
    eta: datetime | None
    metadata: dict[str, str] | None
    durable: bool
    owner: str | None = None
    notify: str | None = None
    listen: str | None = None

    @property
    def is_timeless(self) -> bool:
        """True if other calls may have the same options: no moment, and no metadata."""
        return self.expires is None and self.eta is None and self.metadata is None

    def make_job(
        self,
        job: str,
        version: str | None,
        instances: Sequence[Any],
        reply_to: str | None = None,
        trace: dict[str, str] | None = None,
    ) -> Job:
        """Return the job with this id for these instances.

        `version` is a version's number, or None for the newest. `reply_to` is the reply channel where its outcome
        is announced too, and `trace` the headers of the trace it belongs to.
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
            owner=self.owner,
            notify=self.notify,
            listen=self.listen,
            trace=trace,
        )


def parse_options(model: str, options: JobOptions, now: datetime) -> SubmitOptions:
    """Check the options of a call made at `now`. Raises InvalidInput, and TypeError for an unknown option."""
    if options.get("expires") is None and options.get("delay") is None and options.get("metadata") is None:
        if not options and isinstance(model, str):
            return _parse_timeless(model, (), ())
        values = tuple(options.items())
        # True equals 1, and 0.0 equals 0: the types are a part of the key.
        with suppress(TypeError):  # a value that cannot be hashed, or an unknown option
            return _parse_timeless(model, values, tuple(type(value) for _, value in values))
    return _parse(model, options, now)


@lru_cache(maxsize=1024)
def _parse_timeless(model: str, options: tuple[tuple[str, Any], ...], _: tuple[type, ...]) -> SubmitOptions:
    return _parse(model, cast("JobOptions", dict(options)), _NO_MOMENT)


def _parse(model: str, options: JobOptions, now: datetime) -> SubmitOptions:
    for name in options:
        if name not in JobOptions.__annotations__:
            raise TypeError(f"a job has no option {name!r}; it has {', '.join(JobOptions.__annotations__)}")
    name, version = split_version(model, options.get("version"))
    expires, eta = _parse_expires(options.get("expires"), now), _parse_delay(options.get("delay"), now)
    if expires and eta and expires <= eta:
        raise InvalidInput("the job would expire before its delay is over; let `expires` be later than `delay`")
    return SubmitOptions(
        model=check_model_name(name),
        version=_parse_text("version", version, "a number as text or an alias, such as '3' or 'canary'"),
        method=_parse_text("method", options.get("method"), "a name, such as 'predict_proba'"),
        priority=_parse_priority(options.get("priority", 0)),
        expires=expires,
        eta=eta,
        metadata=_parse_metadata(options.get("metadata")),
        durable=_parse_bool("durable", options.get("durable", False)),
        owner=_parse_short_name("owner", options.get("owner")),
        notify=_parse_short_name("notify", options.get("notify")),
        listen=_parse_short_name("listen", options.get("listen")),
    )


def _parse_short_name(name: str, value: object) -> str | None:
    return None if value is None else check_short_name(name, value)


def _parse_bool(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(f"`{name}` is True or False, got {_describe(value)}")
    return value


def _parse_text(name: str, value: object, expected: str) -> str | None:
    if value is not None and not (isinstance(value, str) and 0 < len(value) <= 64):
        raise InvalidInput(f"`{name}` is {expected}, got {_describe(value)}")
    return value


def _parse_priority(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 9:
        raise InvalidInput(f"`priority` is an integer from 0 (first) to 9 (last), got {_describe(value)}")
    return value


def _parse_expires(value: object, now: datetime) -> datetime | None:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidInput("`expires` needs a time zone, such as datetime.now(UTC) + timedelta(minutes=5)")
        if value <= now:
            raise InvalidInput("`expires` is in the past")
        return value.astimezone(UTC)
    duration = parse_duration("expires", value)
    if duration is None:
        return None
    if not duration:
        raise InvalidInput("`expires` is in the past; it needs more than 0 seconds")
    return now + duration


def _parse_delay(value: object, now: datetime) -> datetime | None:
    duration = parse_duration("delay", value)
    return now + duration if duration else None


def parse_duration(name: str, value: object) -> timedelta | None:
    """Return a duration, a number of seconds or a timedelta, as a timedelta. Raises InvalidInput with its name."""
    if value is None:
        return None
    if isinstance(value, timedelta):
        duration = value
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        if abs(value) > _MAX_DURATION.total_seconds():
            raise InvalidInput(f"`{name}` is over a year; its unit is seconds")
        duration = timedelta(seconds=value)
    else:
        raise InvalidInput(f"`{name}` is a number of seconds or a timedelta, got {_describe(value)}")
    if duration < timedelta(0):
        raise InvalidInput(f"`{name}` is negative")
    if duration > _MAX_DURATION:
        raise InvalidInput(f"`{name}` is over a year")
    return duration


def _parse_metadata(value: object) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for item in value.items() for text in item):
        raise InvalidInput("`metadata` is an object of text to text")
    size = len(msgspec.json.encode(dict(value)))
    if size > _MAX_METADATA_BYTES:
        raise InvalidInput(
            f"`metadata` takes {size:,} bytes as JSON, more than the limit of {_MAX_METADATA_BYTES:,}"
        )
    return dict(value)


def _describe(value: object) -> str:
    return repr(value) if isinstance(value, int | float) else f"a {type(value).__name__}"


def instances_from(instance: Any, instances: Any) -> Sequence[Any]:
    """Return the instances of one job: `[instance]`, or `instances`, of which exactly one is not None.

    Instances in columns stay as they are.
    """
    if (instance is None) == (instances is None):
        raise InvalidInput("give a job either one instance, or `instances=[...]`")
    if isinstance(instances, Columns):
        return instances
    if _holds_rows(instance):
        raise InvalidInput(
            f"the instance is {_describe_rows(instance)}; for a job of several instances, use `instances=[...]`"
        )
    return [instance] if instances is None else list(iterate_instances(instances))


def _holds_rows(instance: Any) -> bool:
    """Decide whether an instance is a table or a list of objects, which no contract describes."""
    if isinstance(instance, dict):
        return False
    if isinstance(instance, list | tuple):
        if instance and isinstance(instance[0], float | int | str):  # quicker than to ask for a Mapping
            return False
        # An object with a `__type__` is a value as kombu's JSON writes it, such as a decimal.
        return bool(instance) and all(isinstance(row, Mapping) and "__type__" not in row for row in instance)
    return _is_table(instance)


def _describe_rows(rows: Any) -> str:
    return (
        f"a table of {plural(len(rows), 'row')}" if _is_table(rows) else f"a list of {plural(len(rows), 'object')}"
    )


def _is_table(value: Any) -> bool:
    return type(value).__module__.startswith("pandas") and hasattr(value, "columns")


def iterate_instances(instances: Any) -> Iterable[Any]:
    """Return a series of instances: a list for a list or a pandas DataFrame, whose rows are instances.

    Raises InvalidInput for other types that are no series of instances.
    """
    if _is_table(instances):
        rows: list[Any] = instances.to_dict("records")
        return rows
    if isinstance(instances, list):
        return instances
    if isinstance(instances, str | bytes | Mapping) or not isinstance(instances, Iterable):
        raise InvalidInput(
            f"`instances` is a list of instances, got {_describe(instances)}; for one use `instance`"
        )
    return instances
