"""The changes for producers from one contract of a model to another, and which of them break producers.

A change breaks producers if an instance that was accepted may be refused, if a method is removed, or if a
prediction has another form. No I/O.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from headrace.catalog.contract import Array, Contract, Feature, InputSchema, Kind, Named, Output, Text, Tokens

#: The subject of a change.
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
    """A difference between two contracts."""

    subject: Subject
    #: True if a producer written for the first contract may fail with the second.
    breaking: bool
    #: A sentence that describes the change.
    text: str
    #: The feature or the method that changes; None for the input as a whole.
    name: str | None = None


def compare_contracts(old: Contract, new: Contract) -> tuple[Change, ...]:
    """Return the changes for producers from one contract to another, breaking changes first."""
    changes = [*_compare_inputs(old.input, new.input), *_compare_methods(old, new)]
    return tuple(sorted(changes, key=lambda change: not change.breaking))


def has_breaking(changes: Sequence[Change]) -> bool:
    """Decide whether any of the changes breaks producers."""
    return any(change.breaking for change in changes)


def _compare_inputs(old: InputSchema, new: InputSchema) -> Iterator[Change]:
    match old, new:
        case Named(), Named():
            yield from _compare_features(old.features, new.features)
        case Array(), Array():
            if old.shape != new.shape:
                text = f"instances are lists of {_size(new.shape)} values, no longer of {_size(old.shape)}"
                yield Change(subject="shape", breaking=True, text=text)
            yield from _compare_values(_values_of(old), _values_of(new), None)
        case (Text(), Text()) | (Tokens(), Tokens()):
            pass
        case _:
            text = f"instances are {_describe_input(new)}, no longer {_describe_input(old)}"
            yield Change(subject="input", breaking=True, text=text)


def _compare_features(old: Sequence[Feature], new: Sequence[Feature]) -> Iterator[Change]:
    old_names, new_by_name = {feature.name for feature in old}, {feature.name: feature for feature in new}
    removed = [feature for feature in old if feature.name not in new_by_name]
    added = [feature for feature in new if feature.name not in old_names]
    for before, after in _find_renamed(removed, added, old, new):
        removed.remove(before)
        added.remove(after)
        text = f"feature {before.name!r} seems to be called {after.name!r} now"
        yield Change(subject="feature renamed", name=before.name, breaking=True, text=text)
    for feature in removed:
        text = f"feature {feature.name!r} is removed; an instance that has it is refused"
        yield Change(subject="feature removed", name=feature.name, breaking=True, text=text)
    for feature in added:
        consequence = "an instance may leave it out" if feature.optional else "an instance without it is refused"
        text = f"feature {feature.name!r} ({feature.kind}) is new; {consequence}"
        yield Change(subject="feature added", name=feature.name, breaking=not feature.optional, text=text)
    for feature in old:
        if feature.name in new_by_name:
            yield from _compare_values(feature, new_by_name[feature.name], feature.name)


def _find_renamed(
    removed: Sequence[Feature], added: Sequence[Feature], old: Sequence[Feature], new: Sequence[Feature]
) -> Iterator[tuple[Feature, Feature]]:
    """Find pairs that differ only in their names, if these are similar or the features have the same position."""
    candidates = list(added)
    old_positions = {feature.name: position for position, feature in enumerate(old)}
    new_positions = {feature.name: position for position, feature in enumerate(new)}
    compares_names = len(removed) * len(added) <= _MAX_COMPARED
    for before in list(removed):  # the caller removes from it
        for after in candidates:
            if msgspec.structs.replace(after, name=before.name) != before:
                continue
            same_position = len(old) == len(new) and old_positions[before.name] == new_positions[after.name]
            if same_position or (compares_names and _similarity(before, after) >= _MIN_SIMILARITY):
                candidates.remove(after)
                yield before, after
                break


def _similarity(before: Feature, after: Feature) -> float:
    return difflib.SequenceMatcher(a=before.name.lower(), b=after.name.lower()).ratio()


#: Most pairs of names that are compared; with more, a name must have kept its position.
_MAX_COMPARED = 2_500
#: Similarity of two names that may be the old and the new name of a feature: a ratio of difflib's.
_MIN_SIMILARITY = 0.6


def _compare_values(old: Feature, new: Feature, name: str | None) -> Iterator[Change]:
    """Compare the values of a feature, or those of a list if `name` is None."""
    title = "values" if name is None else f"feature {name!r}"
    if old.nullable != new.nullable:
        now = "may be missing (null) now" if new.nullable else "must not be missing (null) any more"
        yield Change(subject="missing values", name=name, breaking=old.nullable, text=f"{title} {now}")
    if old.optional != new.optional:
        now = "may be left out now" if new.optional else "must not be left out any more"
        yield Change(subject="missing values", name=name, breaking=old.optional, text=f"{title} {now}")
    if old.kind == new.kind == "category" and old.categories is not None and new.categories is not None:
        yield from _compare_categories(old.categories, new.categories, name, title)
    elif (old.kind, old.categories is None, old.has_zone) != (new.kind, new.categories is None, new.has_zone):
        breaking = not _accepts_all(new, old)
        consequence = "refuses values that were accepted" if breaking else "accepts every former value"
        text = f"{title}: {_describe_kind(old)} becomes {_describe_kind(new)}, which {consequence}"
        yield Change(subject="kind", name=name, breaking=breaking, text=text)


def _compare_categories(
    old: Sequence[Value], new: Sequence[Value], name: str | None, title: str
) -> Iterator[Change]:
    if removed := [value for value in old if not _contains(new, value)]:
        text = f"{title} no longer accepts {_list(removed)}"
        yield Change(subject="categories", name=name, breaking=True, text=text)
    if added := [value for value in new if not _contains(old, value)]:
        yield Change(subject="categories", name=name, breaking=False, text=f"{title} also accepts {_list(added)}")


def _compare_methods(old: Contract, new: Contract) -> Iterator[Change]:
    if old.method != new.method:
        text = f"a job that names no method runs {new.method}, no longer {old.method}"
        yield Change(subject="default method", name=new.method, breaking=True, text=text)
    for name, output in old.methods.items():
        if name not in new.methods:
            yield Change(subject="method removed", name=name, breaking=True, text=f"method {name} is removed")
        else:
            yield from _compare_outputs(output, new.methods[name], name)
    for name in new.methods:
        if name not in old.methods:
            yield Change(subject="method added", name=name, breaking=False, text=f"method {name} is new")


def _compare_outputs(old: Output, new: Output, name: str) -> Iterator[Change]:
    if old.shape != new.shape:
        text = f"{name} returns {_describe_shape(new.shape)}, no longer {_describe_shape(old.shape)}"
        yield Change(subject="output shape", name=name, breaking=True, text=text)
    if old.classes is None or new.classes is None:
        if (old.classes is None) != (new.classes is None):
            text = f"{name} returns {_describe_classes(new)}, no longer {_describe_classes(old)}"
            yield Change(subject="classes", name=name, breaking=True, text=text)
        return
    removed = [value for value in old.classes if not _contains(new.classes, value)]
    added = [value for value in new.classes if not _contains(old.classes, value)]
    if added:
        text = f"{name} also predicts the classes {_list(added)}"
        yield Change(subject="classes", name=name, breaking=True, text=text)
    if removed:
        # If each class is a column, the columns of the other classes move.
        text = f"{name} no longer predicts the classes {_list(removed)}"
        yield Change(subject="classes", name=name, breaking=new.shape != (), text=text)
    if not added and not removed and old.classes != new.classes and new.shape != ():
        text = f"{name} returns its classes in another order: {_list(new.classes)}"
        yield Change(subject="classes", name=name, breaking=True, text=text)


_TEXTS = frozenset({"string", "date", "datetime", "instant"})
#: The types of values that each kind accepts; 3.0 is an integer, an instant a datetime with a zone.
_ACCEPTED_TYPES: dict[Kind, frozenset[str]] = {
    "number": frozenset({"integer", "fraction"}),
    "integer": frozenset({"integer"}),
    "boolean": frozenset({"boolean"}),
    "string": _TEXTS,
    "category": _TEXTS | {"integer", "fraction", "boolean"},
    "datetime": frozenset({"date", "datetime"}),
    "date": frozenset({"date"}),
}


def _accepts_all(new: Feature, old: Feature) -> bool:
    """Decide whether the new feature accepts every value that the old one accepts."""
    values = (True, False) if old.kind == "boolean" else old.categories
    if new.categories is not None:
        return values is not None and all(_contains(new.categories, value) for value in values)
    types = _accepted_types(old) if values is None else {_json_type(value) for value in values}
    return types <= _accepted_types(new)


def _accepted_types(feature: Feature) -> frozenset[str]:
    return frozenset({"instant"}) if feature.has_zone else _ACCEPTED_TYPES[feature.kind]


def _json_type(value: Value) -> str:
    match value:
        case bool():
            return "boolean"
        case str():
            return "string"
        case _:
            return "integer" if float(value).is_integer() else "fraction"


def _contains(values: Sequence[Value], value: Value) -> bool:
    # 1 == True in Python, but a category 1 is not a category True.
    return any(other == value and isinstance(other, bool) == isinstance(value, bool) for other in values)


def _values_of(array: Array) -> Feature:
    return Feature(name="", kind=array.kind, nullable=array.nullable)


def _describe_kind(feature: Feature) -> str:
    if feature.kind == "datetime":
        return f"datetime {'with' if feature.has_zone else 'without'} a zone"
    if feature.kind != "category":
        return feature.kind
    return "any category" if feature.categories is None else f"a category of {_list(feature.categories)}"


def _describe_input(schema: InputSchema) -> str:
    match schema:
        case Named():
            return "objects of named features"
        case Array():
            return "lists of values"
        case Text():
            return "texts"
        case Tokens():
            return "lists of strings of any length"


def _describe_classes(output: Output) -> str:
    return "numbers" if output.classes is None else f"the classes {_list(output.classes)}"


def _describe_shape(shape: Sequence[int]) -> str:
    return f"a list of {_size(shape)}" if shape else "a value"


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "single"


def _list(values: Sequence[Value]) -> str:
    listing = ", ".join(str(value) for value in values[:_MAX_VALUES])
    return f"{listing} and {len(values) - _MAX_VALUES} more" if len(values) > _MAX_VALUES else listing


#: Most values that a text names.
_MAX_VALUES = 12
