"""Compares two forms of a JSON Schema: what a program that reads the old form would miss in the new one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]


def find_breaks(old: Schema, new: Schema) -> Iterator[str]:
    """Yield what a reader of the old form would miss in the new one: a field, a type, or a value."""
    yield from _compare(old, new, (old, new), "", frozenset())


def _compare(
    old: Schema, new: Schema, roots: tuple[Schema, Schema], path: str, above: frozenset[str]
) -> Iterator[str]:
    if "$ref" in old and old["$ref"] in above:
        return
    above |= {old["$ref"]} if "$ref" in old else set()
    old, new = _resolve(old, roots[0]), _resolve(new, roots[1])
    place = path or "the object"
    if (before := old.get("type")) != (after := new.get("type")):
        yield f"{place} was {before}, is {after}"
        return
    if gone := set(old.get("enum", ())) - set(new.get("enum", ())):
        yield f"{place} has no longer the value {', '.join(map(repr, sorted(gone, key=str)))}"
    if "anyOf" in old:
        yield from _compare_choices(old["anyOf"], new.get("anyOf", ()), roots, place, above)
    for name, field in old.get("properties", {}).items():
        inner = f"{path}.{name}" if path else name
        if name not in new.get("properties", {}):
            yield f"{inner} is missing"
            continue
        if name in old.get("required", ()) and name not in new.get("required", ()):
            yield f"{inner} is no longer always there"
        yield from _compare(field, new["properties"][name], roots, inner, above)
    for key in ("items", "additionalProperties"):
        if isinstance(old.get(key), dict):
            if not isinstance(new.get(key), dict):
                yield f"{place} is no longer described"
            else:
                yield from _compare(old[key], new[key], roots, f"{place}[]", above)


def _compare_choices(
    old: list[Schema], new: list[Schema], roots: tuple[Schema, Schema], place: str, above: frozenset[str]
) -> Iterator[str]:
    """Compare the choices of an `anyOf`: by their place, as the code lists them. None may be added to a field."""
    if len(old) != len(new):
        yield f"{place} had {len(old)} types, has {len(new)}"
        return
    for before, after in zip(old, new, strict=True):
        yield from _compare(before, after, roots, place, above)


def _resolve(schema: Schema, root: Schema) -> Schema:
    """Return the definition that a schema refers to; itself if it refers to none."""
    return root["$defs"][schema["$ref"].removeprefix("#/$defs/")] if "$ref" in schema else schema
