"""A number that the project requires, beside the measured one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

Source = TypeVar("Source")


class Target(NamedTuple, Generic[Source]):
    """A required number. It is read from the results of a measurement, in whatever form these are."""

    title: str
    #: The requirement in words.
    required: str
    #: Returns the measured number; raises KeyError, ValueError or StopIteration where it was not measured.
    measure: Callable[[Source], float]
    is_met: Callable[[float], bool]
    format: str = "{:.1f} x"


def compare(targets: Iterable[Target[Source]], results: Source) -> list[dict[str, Any]]:
    """Return a row for each target; `measured` and `met` are None where its number was not measured."""
    rows = []
    for target in targets:
        try:
            value = target.measure(results)
        except (KeyError, ValueError, StopIteration):
            value = None
        rows.append(
            {
                "target": target.title,
                "required": target.required,
                "measured": value,
                "text": "not measured" if value is None else target.format.format(value),
                "met": None if value is None else target.is_met(value),
            }
        )
    return rows
