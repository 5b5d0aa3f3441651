"""Strict reading of a Kubernetes object: a field that nobody reads is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

#: Factors of the suffixes of a quantity.
_FACTORS = dict(
    zip(
        ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"],
        [1.0, 1e-3, 1e3, 1e6, 1e9, 1e12, 2.0**10, 2.0**20, 2.0**30, 2.0**40],
        strict=True,
    )
)
_REQUIRED = object()


class Refused(AssertionError):
    """An object that a cluster would refuse, or that the runner cannot play."""


class Fields:
    """The fields of an object. As a context manager it refuses, at its end, those that nobody has read."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, Mapping):
            raise Refused(f"{path} is {value!r}, should be an object")
        self.path = path
        self._unread = dict(value)

    def take(self, name: str, default: Any = _REQUIRED) -> Any:
        """Read a field. Without a default it must be there."""
        value = self._unread.pop(name, None)
        if value is not None:
            return value
        if default is _REQUIRED:
            raise Refused(f"{self.path}.{name} is missing")
        return default

    def child(self, name: str, default: Any = _REQUIRED) -> Fields:
        return Fields(self.take(name, default), f"{self.path}.{name}")

    def children(self, name: str) -> Iterator[Fields]:
        for index, item in enumerate(self.take(name, [])):
            with Fields(item, f"{self.path}.{name}[{index}]") as fields:
                yield fields

    def expect(self, name: str, *permitted: Any) -> None:
        """Refuse a value other than these; the first is the value of a field that is missing."""
        value = self.take(name, permitted[0])
        if value not in permitted:
            raise Refused(f"{self.path}.{name} is {value!r}; the runner plays only {permitted}")

    def ignore(self, *names: str) -> None:
        """Drop fields that change nothing on a machine with one engine."""
        for name in names:
            self._unread.pop(name, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None and self._unread:
            raise Refused(f"{self.path}: the runner does not know {', '.join(sorted(self._unread))}")


def quantity(text: object, path: str) -> float:
    """Return the value of a quantity such as 500m, 2 or 1Gi."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]{0,2})", str(text))
    if match is None or match[2] not in _FACTORS:
        raise Refused(f"{path} is {text!r}, should be a quantity such as 500m, 2 or 1Gi")
    return float(match[1]) * _FACTORS[match[2]]


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether a selector's labels are all among an object's labels."""
    return all(labels.get(name) == value for name, value in selector.items())
