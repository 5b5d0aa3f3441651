"""The problems of an instance: as a sentence for a message, and as a JSON pointer with a text for a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from headrace.errors import InvalidInput


class InstanceProblem(NamedTuple):
    """A value of an instance that does not fit, or is missing."""

    #: The sentence about the value alone.
    text: str
    #: The keys and indexes that lead from the instance to the value; empty for the instance as a whole.
    path: tuple[str | int, ...] = ()
    #: What the sentence of a message says before the text: where the value is.
    prefix: str = ""

    @property
    def message(self) -> str:
        """The sentence about the instance."""
        return self.prefix + self.text

    def within(self, index: int) -> InstanceProblem:
        """Return a problem of an element as one of its list."""
        return InstanceProblem(self.text, (index, *self.path), f"at [{index}]: {self.prefix}")


def about_feature(name: str, text: str) -> InstanceProblem:
    """Return a problem of a feature of the contract."""
    return InstanceProblem(text, (name,), f"feature {name!r} ")


def make_error(title: str, problems: Sequence[tuple[int, InstanceProblem]], *, limit: int) -> InvalidInput:
    """Return the error about instances by number. It names the `limit` first problems."""
    reported = problems[:limit]
    listing = "; ".join(f"instance {number}: {problem.message}" for number, problem in reported)
    return InvalidInput(
        f"{title}: {listing}{'; ...' if len(problems) > limit else ''}",
        problems=[(to_pointer("instances", number, *problem.path), problem.text) for number, problem in reported],
    )


def no_instances() -> InvalidInput:
    """Return the error about a job without instances."""
    text = "a job needs at least one instance; the list is empty"
    return InvalidInput(text, problems=[(to_pointer("instances"), text)])


def to_pointer(*path: str | int) -> str:
    """Return a path of keys and indexes as a JSON pointer (RFC 6901)."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)
