"""What changes for producers from one contract of a model to another, and whether it breaks them.

A change breaks producers when an instance that passed may be refused from now on, when a method they may ask for
is gone, or when a prediction has another form than the one they were written for. Pure: no store, no Redis.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from headrace.catalog.contract import Array, Contract, Feature, Kind, Named, Output, Text

#: What a change is about.
Subject = Literal[
    "input",
    "feature added",
    "feature removed",
    "feature renamed",
    "kind",
    "missing values",
    "categories",
    "shape",
    "method added",
    "method removed",
    "default method",
    "output shape",
    "classes",
]
Value = str | int | float | bool


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between two contracts."""

    subject: Subject
    #: Whether a producer written for the first contract may fail with the second.
    breaking: bool
    #: The change in words.
    text: str
    #: The feature or the method it is about; None for the input as a whole.
    name: str | None = None


def compare_contracts(old: Contract, new: Contract) -> tuple[Change, ...]:
    """Everything that changes for producers from one contract to another, what breaks them first."""
    found = [*_input(old.input, new.input), *_methods(old, new)]
    return tuple(sorted(found, key=lambda change: not change.breaking))


def has_breaking(changes: Sequence[Change]) -> bool:
    """Whether any of them breaks producers."""
    return any(change.breaking for change in changes)


def _input(old: Named | Array | Text, new: Named | Array | Text) -> Iterator[Change]:
    match old, new:
        case Named(), Named():
            yield from _features(old.features, new.features)
        case Array(), Array():
            if old.shape != new.shape:
                says = f"instances are lists of {_size(new.shape)} values, no longer of {_size(old.shape)}"
                yield Change(subject="shape", breaking=True, text=says)
            yield from _values(_whole(old), _whole(new), None)
        case Text(), Text():
            pass
        case _:
            says = f"instances are {_kind_of_input(new)}, no longer {_kind_of_input(old)}"
            yield Change(subject="input", breaking=True, text=says)


def _features(old: Sequence[Feature], new: Sequence[Feature]) -> Iterator[Change]:
    before, after = {one.name: one for one in old}, {one.name: one for one in new}
    gone = [one for one in old if one.name not in after]
    come = [one for one in new if one.name not in before]
    for one, other in _renamed(gone, come, old, new):
        gone.remove(one)
        come.remove(other)
        says = f"feature {one.name!r} seems to be called {other.name!r} now"
        yield Change(subject="feature renamed", name=one.name, breaking=True, text=says)
    for one in gone:
        says = f"feature {one.name!r} is gone; an instance that has it is refused"
        yield Change(subject="feature removed", name=one.name, breaking=True, text=says)
    for one in come:
        says = f"feature {one.name!r} ({one.kind}) is new; an instance without it is refused"
        yield Change(subject="feature added", name=one.name, breaking=True, text=says)
    for one in old:
        if one.name in after:
            yield from _values(one, after[one.name], one.name)


def _renamed(
    gone: Sequence[Feature], come: Sequence[Feature], old: Sequence[Feature], new: Sequence[Feature]
) -> Iterator[tuple[Feature, Feature]]:
    """Pairs that differ in nothing but the name, and stand in the same place or are called nearly the same."""
    left = list(come)
    for one in gone:
        for other in left:
            alike = msgspec.structs.replace(other, name=one.name) == one
            near = difflib.SequenceMatcher(a=one.name.lower(), b=other.name.lower()).ratio() >= _NEAR
            if alike and (near or (len(old) == len(new) and old.index(one) == new.index(other))):
                left.remove(other)
                yield one, other
                break


#: How alike two names are that may be one: as difflib has it for close matches.
_NEAR = 0.6


def _values(old: Feature, new: Feature, name: str | None) -> Iterator[Change]:
    """What changes in the values of a feature, or of all of a list."""
    title = "values" if name is None else f"feature {name!r}"
    if old.nullable != new.nullable:
        now = "may be missing (null) now" if new.nullable else "must not be missing (null) any more"
        yield Change(subject="missing values", name=name, breaking=old.nullable, text=f"{title} {now}")
    if old.kind == new.kind == "category" and old.categories is not None and new.categories is not None:
        yield from _categories(old.categories, new.categories, name, title)
    elif (old.kind, old.categories is None) != (new.kind, new.categories is None):
        breaking = not _takes_all(new, old)
        wider = "refuses some of what it took" if breaking else "takes all it took"
        says = f"{title}: {_described(old)} becomes {_described(new)}, which {wider}"
        yield Change(subject="kind", name=name, breaking=breaking, text=says)


def _categories(old: Sequence[Value], new: Sequence[Value], name: str | None, title: str) -> Iterator[Change]:
    if gone := [value for value in old if not _holds(new, value)]:
        says = f"{title} no longer takes {_shown(gone)}"
        yield Change(subject="categories", name=name, breaking=True, text=says)
    if come := [value for value in new if not _holds(old, value)]:
        yield Change(subject="categories", name=name, breaking=False, text=f"{title} also takes {_shown(come)}")


def _methods(old: Contract, new: Contract) -> Iterator[Change]:
    if old.method != new.method:
        says = f"a job that names no method runs {new.method}, no longer {old.method}"
        yield Change(subject="default method", name=new.method, breaking=True, text=says)
    for name, output in old.methods.items():
        if name not in new.methods:
            yield Change(subject="method removed", name=name, breaking=True, text=f"method {name} is gone")
        else:
            yield from _outputs(output, new.methods[name], name)
    for name in new.methods:
        if name not in old.methods:
            yield Change(subject="method added", name=name, breaking=False, text=f"method {name} is new")


def _outputs(old: Output, new: Output, name: str) -> Iterator[Change]:
    if old.shape != new.shape:
        says = f"{name} gives {_form(new.shape)}, no longer {_form(old.shape)}"
        yield Change(subject="output shape", name=name, breaking=True, text=says)
    if old.classes is None or new.classes is None:
        if (old.classes is None) != (new.classes is None):
            says = f"{name} gives {_classes(new)}, no longer {_classes(old)}"
            yield Change(subject="classes", name=name, breaking=True, text=says)
        return
    gone = [value for value in old.classes if not _holds(new.classes, value)]
    come = [value for value in new.classes if not _holds(old.classes, value)]
    if come:
        says = f"{name} knows the classes {_shown(come)} too"
        yield Change(subject="classes", name=name, breaking=True, text=says)
    if gone:
        # Where each class is a column, those that are left move.
        says = f"{name} no longer knows the classes {_shown(gone)}"
        yield Change(subject="classes", name=name, breaking=new.shape != (), text=says)
    if not come and not gone and old.classes != new.classes and new.shape != ():
        says = f"{name} gives its classes in another order: {_shown(new.classes)}"
        yield Change(subject="classes", name=name, breaking=True, text=says)


#: The sorts of value that JSON has for each kind; 3.0 is an integer.
_TAKES: dict[Kind, frozenset[str]] = {
    "number": frozenset({"integer", "fraction"}),
    "integer": frozenset({"integer"}),
    "boolean": frozenset({"boolean"}),
    "string": frozenset({"string"}),
    "category": frozenset({"integer", "fraction", "boolean", "string"}),
}


def _takes_all(new: Feature, old: Feature) -> bool:
    """Whether every value that the old feature takes is one that the new one takes."""
    values = (True, False) if old.kind == "boolean" else old.categories
    if new.categories is not None:
        return values is not None and all(_holds(new.categories, value) for value in values)
    sorts = _TAKES[old.kind] if values is None else {_sort(value) for value in values}
    return sorts <= _TAKES[new.kind]


def _sort(value: Value) -> str:
    match value:
        case bool():
            return "boolean"
        case str():
            return "string"
        case _:
            return "integer" if float(value).is_integer() else "fraction"


def _holds(values: Sequence[Value], value: Value) -> bool:
    # 1 == True in Python, but a category 1 is not a category True.
    return any(one == value and isinstance(one, bool) == isinstance(value, bool) for one in values)


def _whole(array: Array) -> Feature:
    return Feature(name="", kind=array.kind, nullable=array.nullable)


def _described(feature: Feature) -> str:
    if feature.kind != "category":
        return feature.kind
    return "any category" if feature.categories is None else f"a category of {_shown(feature.categories)}"


def _kind_of_input(given: Named | Array | Text) -> str:
    match given:
        case Named():
            return "objects of named features"
        case Array():
            return "lists of values"
        case Text():
            return "texts"


def _classes(output: Output) -> str:
    return "numbers" if output.classes is None else f"the classes {_shown(output.classes)}"


def _form(shape: Sequence[int]) -> str:
    return f"a list of {_size(shape)}" if shape else "a value"


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "single"


def _shown(values: Sequence[Value]) -> str:
    few = ", ".join(str(value) for value in values[:_MOST])
    return f"{few} and {len(values) - _MOST} more" if len(values) > _MOST else few


#: Values a sentence names at the most.
_MOST = 12
