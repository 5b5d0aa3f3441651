"""The libraries that a model needs: the distributions that the types and functions within it come from."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

#: The most objects that are searched: a large model has more of the same types.
_MAX_OBJECTS = 20_000


def find_libraries(model: Any) -> dict[str, str]:
    """Return the versions of the distributions that a model's types and functions come from, by name."""
    distributions = metadata.packages_distributions()
    names = {
        name
        for module in find_modules(model)
        # Several distributions may share a namespace, such as `google`. They are not told apart.
        for name in distributions.get(module, ())[:1]
    }
    return {name: metadata.version(name) for name in sorted(names)}


def find_modules(model: Any) -> set[str]:
    """Return the top-level modules, outside the standard library, that define what a model is made of."""
    modules = {module.partition(".")[0] for value in _iter_parts(model) for module in _defining_modules(value)}
    return modules - sys.stdlib_module_names - {"__main__", "builtins"}


def _defining_modules(value: Any) -> Iterator[str]:
    if isinstance(value, ModuleType):
        yield value.__name__
        return
    kinds = value.__mro__ if isinstance(value, type) else type(value).__mro__
    yield from (kind.__module__ for kind in kinds)
    module = getattr(value, "__module__", None)
    if isinstance(module, str):  # a function, or a class
        yield module


def _iter_parts(model: Any) -> Iterator[Any]:
    """Yield the model and the objects it refers to, each once."""
    visited: set[int] = set()
    pending = [model]
    while pending and len(visited) < _MAX_OBJECTS:
        value = pending.pop()
        if value is None or isinstance(value, str | bytes | int | float | bool | complex) or id(value) in visited:
            continue
        visited.add(id(value))
        yield value
        pending.extend(_parts_of(value))


def _parts_of(value: Any) -> Iterator[Any]:
    match value:
        case Mapping():
            yield from list(value.keys())
            yield from list(value.values())
        case list() | tuple() | set() | frozenset():
            yield from value
        case np.ndarray():
            if value.dtype == object:
                yield from value.ravel()
        case functools.partial():
            yield from (value.func, *value.args, *value.keywords.values())
        case FunctionType() if value.__module__ == "__main__":
            # What a function of a notebook uses: modules such as numpy, and other functions.
            yield from (value.__globals__.get(name) for name in value.__code__.co_names)
            yield from (cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell))
        case MethodType():
            yield value.__self__
            yield value.__func__
        case type() if value.__module__ == "__main__":
            yield from list(vars(value).values())
        case type() | FunctionType() | BuiltinFunctionType() | ModuleType():
            return
        case _:
            if type(value).__module__ == "__main__":
                yield type(value)
            yield from list(vars(value).values()) if hasattr(value, "__dict__") else ()


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  # an empty cell raises
    except ValueError:
        return False
    return True
