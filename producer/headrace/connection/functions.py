"""Functions of Redis: the scripts that an administrator loads, so that nobody else has to run EVAL.

Each script is a library of its own with one function, both named after the script and a digest of it. So several
releases have their functions loaded at once, for old and new workers side by side. Redis writes functions to its
files and to its replicas, as it does with data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from headrace.connection.commands import Command, Operation, Script

#: The name of a function of any release of Headrace.
_FUNCTION_NAME = re.compile(r"headrace_[a-z_]+_[0-9a-f]{12}")


class InstalledFunctions(msgspec.Struct, frozen=True, kw_only=True):
    """The changes that an installation made to the functions of a server. All are names, sorted."""

    #: Loaded now.
    added: list[str]
    #: Loaded before, with code of somebody else under their name, and loaded again.
    replaced: list[str]
    #: Loaded before, as they are.
    present: list[str]
    #: Functions of other releases, which were removed.
    removed: list[str]


def merge_changes(changes: Sequence[InstalledFunctions]) -> InstalledFunctions:
    """Return the changes to several servers as one: a function is present if it was present on all."""
    names = {
        change: sorted({name for server in changes for name in getattr(server, change)})
        for change in ("added", "replaced", "removed")
    }
    present = set[str].intersection(*(set(server.present) for server in changes))
    return InstalledFunctions(**names, present=sorted(present))


def read_functions() -> Operation[dict[str, str]]:
    """Read the loaded functions of any release, by name, with their code.

    Raises ResponseError in the operation where the server has no functions, or this user may not list them.
    """
    reply = yield Command(("FUNCTION", "LIST", "LIBRARYNAME", "headrace_*", "WITHCODE"))
    libraries = [_to_mapping(library) for library in reply]
    code = {
        library["library_name"].decode(): library["library_code"].decode(errors="replace") for library in libraries
    }
    return {name: text for name, text in code.items() if _FUNCTION_NAME.fullmatch(name)}


def install_functions(scripts: Iterable[Script], *, prune: bool) -> Operation[InstalledFunctions]:
    """Load the functions of scripts that a server lacks. `prune` removes those of other releases.

    Raises ResponseError in the operation as `read_functions`.
    """
    loaded = yield from read_functions()
    changes = InstalledFunctions(added=[], replaced=[], present=[], removed=[])
    required = {script.function: script.library for script in scripts}
    for function, library in sorted(required.items()):
        if loaded.get(function) == library:
            changes.present.append(function)
            continue
        yield Command(("FUNCTION", "LOAD", "REPLACE", library))
        (changes.replaced if function in loaded else changes.added).append(function)
    for function in sorted(loaded.keys() - required.keys()) if prune else ():
        yield Command(("FUNCTION", "DELETE", function))
        changes.removed.append(function)
    return changes


def _to_mapping(library: Any) -> Mapping[str, Any]:
    pairs = library.items() if isinstance(library, Mapping) else zip(library[::2], library[1::2], strict=True)
    return {name.decode() if isinstance(name, bytes) else name: value for name, value in pairs}
