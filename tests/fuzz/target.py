"""A function that reads bytes which others wrote, with its valid inputs."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from tests.fuzz.mutations import mutate

#: Returns a mutation of an input; the list are the inputs that may be spliced in.
Mutator = Callable[[bytes, list[bytes], random.Random], bytes]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A reader of bytes. It returns nothing if its promise holds; any exception is a finding."""

    name: str
    inputs: list[bytes]
    run: Callable[[bytes], None]
    #: The inputs of a full run without guidance.
    count: int
    mutate: Mutator = mutate
    #: Whether its process may write only below the folder for temporary files, and talk only to this machine.
    confined: bool = False

    @property
    def slug(self) -> str:
        """The name as a folder of the corpus."""
        return self.name.removeprefix("a ").removeprefix("an ").replace(" ", "-")
