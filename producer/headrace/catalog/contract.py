"""A model's contract: what its instances and predictions look like, and the check of instances against it.

The check runs in the producer before anything is enqueued, and again in the worker, whose jobs may come
from any Celery client. What passes is decided by msgspec in about a microsecond an instance; only what it
refuses is looked at in Python, to mend what has an obvious meaning (NaN for a missing value, 3.0 for 3)
and to say precisely what is wrong with the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import count
from typing import Annotated, Any, Literal, NamedTuple, Union

import msgspec

from headrace.catalog.validation import coerce_array, coerce_named, coerce_text
from headrace.errors import InvalidInput
from headrace.wire.message import Instance

#: What a named feature holds. A `category` is a string or number out of a list, where the list is known.
Kind = Literal["number", "integer", "boolean", "string", "category"]


class Feature(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One named feature."""

    name: str
    kind: Kind
    #: Whether null (NaN, None) is a value the model can take.
    nullable: bool = False
    #: The values of a category; None where the model takes any.
    categories: tuple[str | int | float | bool, ...] | None = None
    #: Whether its values are kept out of the prediction log.
    redact: bool = False


class Named(msgspec.Struct, frozen=True, kw_only=True, tag="named"):
    """Instances are objects; the features stand in the order the estimator was fitted with."""

    features: tuple[Feature, ...]


class Array(msgspec.Struct, frozen=True, kw_only=True, tag="array", omit_defaults=True):
    """Instances are lists of values, nested as `shape` says: (30,) is a list of 30, (28, 28) an image."""

    shape: tuple[int, ...]
    kind: Kind = "number"
    nullable: bool = False
    #: Whether instances are kept out of the prediction log.
    redact: bool = False


class Text(msgspec.Struct, frozen=True, kw_only=True, tag="text", omit_defaults=True):
    """Instances are strings: text pipelines."""

    #: Whether instances are kept out of the prediction log.
    redact: bool = False


class Output(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one instance's prediction looks like: () is a single value, (3,) a list of three."""

    shape: tuple[int, ...]
    #: The classes, in the order of the columns of `predict_proba`.
    classes: tuple[str | int | float | bool, ...] | None = None


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """What a version of a model takes and gives, published so that producers check before they enqueue."""

    model: str
    version: str
    input: Named | Array | Text
    #: The methods a job may ask for, the default one first.
    methods: dict[str, Output]

    @property
    def method(self) -> str:
        """The default method."""
        return next(iter(self.methods))


def check_method(contract: Contract, method: str | None) -> str:
    """The method to run. Raises InvalidInput for one the version does not offer."""
    if method is None:
        return contract.method
    if method not in contract.methods:
        raise InvalidInput(
            f"{_title(contract)} has no method {method[:64]!r}; it has {', '.join(contract.methods)}"
        )
    return method


def check(contract: Contract, instances: Sequence[Any], *, numbers: Iterable[int] | None = None) -> list[Instance]:
    """The instances as they are sent: of the contract's types, missing values as None.

    Raises InvalidInput naming the first instances and features that do not fit, and what would. `numbers` are
    those of the instances in the caller's count, from 0 by default.
    """
    if not instances:
        raise InvalidInput("a job needs at least one instance; the list is empty")
    accepts = _accepts(contract.input)
    try:
        msgspec.convert((instances,), accepts.list_type)
    except (msgspec.ValidationError, RecursionError):
        return _mend(contract, accepts, instances, count() if numbers is None else numbers)
    return list(instances)


def _mend(
    contract: Contract, accepts: _Accepts, instances: Sequence[Any], numbers: Iterable[int]
) -> list[Instance]:
    checked: list[Instance] = []
    problems: list[str] = []
    for number, instance in zip(numbers, instances, strict=False):
        try:
            msgspec.convert(instance, accepts.instance_type)
        except (msgspec.ValidationError, RecursionError):
            mended, found = _explain(contract.input, instance)
            problems += [f"instance {number}: {problem}" for problem in found]
            checked.append(mended)
            if len(problems) > _MOST_PROBLEMS:
                break
        else:
            checked.append(instance)
    if problems:
        more = "; ..." if len(problems) > _MOST_PROBLEMS else ""
        raise InvalidInput(f"{_title(contract)}: {'; '.join(problems[:_MOST_PROBLEMS])}{more}")
    return checked


#: An error names this many problems at the most.
_MOST_PROBLEMS = 5


def _title(contract: Contract) -> str:
    return f"{contract.model}@{contract.version}"


def _explain(given: Named | Array | Text, instance: Any) -> tuple[Any, list[str]]:
    match given:
        case Named():
            return coerce_named(given.features, instance)
        case Array():
            return coerce_array(given.shape, given.kind, given.nullable, instance)
        case Text():
            return coerce_text(instance)


# A type that accepts nothing: `explain` looks at every instance instead.
_THE_SLOW_WAY = Literal["\0no instance is this"]
# A bounded float is how NaN and infinity are told from numbers at msgspec's speed.
_LARGEST = 1.7976931348623157e308
_NUMBER = Annotated[float, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]
_TYPES: dict[Kind, Any] = {
    "number": _NUMBER,
    "integer": int,
    "boolean": bool,
    "string": str,
    "category": str,
}


class _Accepts(NamedTuple):
    """Types of what needs no mending."""

    instance_type: Any
    #: A list of instances, as the only field of a struct: msgspec keeps what it knows of a struct, and a call
    #: costs half.
    list_type: Any


def _accepts(given: Named | Array | Text) -> _Accepts:
    # Not cached by the contract itself: 1 == True, but a category 1 is not a category True.
    return _built(msgspec.json.encode(given))


@lru_cache(maxsize=256)
def _built(contract: bytes) -> _Accepts:
    one = _type_of_one(msgspec.json.decode(contract, type=Named | Array | Text))
    instances: Any = list[one]  # type: ignore[valid-type]  # built while running
    every = msgspec.defstruct("Every", [("instances", instances)], array_like=True, gc=False)
    return _Accepts(one, every)


def _type_of_one(given: Named | Array | Text) -> Any:
    match given:
        case Named():
            # The attributes are numbered: a feature may have any name, `mean radius (cm)` or `class`.
            fields: list[tuple[str, Any, Any]] = [
                (f"f{number}", _type_of(feature), msgspec.field(name=feature.name))
                for number, feature in enumerate(given.features)
            ]
            try:
                return msgspec.defstruct("Accepted", fields, forbid_unknown_fields=True, gc=False)
            except ValueError:
                # msgspec has no fields with quotes or line breaks in their names.
                return _THE_SLOW_WAY
        case Array():
            accepted: Any = _TYPES[given.kind]
            if given.nullable:
                accepted = accepted | None
            for length in reversed(given.shape):
                accepted = Annotated[list[accepted], msgspec.Meta(min_length=length, max_length=length)]
            return accepted
        case Text():
            return str


def _type_of(feature: Feature) -> Any:
    accepted = _TYPES[feature.kind]
    if feature.kind == "category":
        accepted = _one_of(feature.categories)
    return Union[accepted, None] if feature.nullable else accepted  # noqa: UP007  # built while running


def _one_of(categories: tuple[str | int | float | bool, ...] | None) -> Any:
    if categories is None:
        return str | int | bool | _NUMBER
    # A Literal holds strings or integers; lists of other values go the slow way, which compares them.
    if categories and all(type(value) in {str, int} for value in categories):
        return Literal[categories]
    return _THE_SLOW_WAY
