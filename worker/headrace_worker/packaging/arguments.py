"""Check the constant arguments of a method, which a manifest holds as JSON."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.errors import ModelError


def check_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as a manifest gives them back: a tuple is a list. Raises ModelError."""
    checked: dict[str, Any] = {}
    for name, value in arguments.items():
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ModelError(f"{name[:64]!r} is no name of an argument")
        try:
            encoded = msgspec.json.encode(value)
            checked[name] = msgspec.json.decode(encoded)
        except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
            raise ModelError(
                f"the argument {name!r} must be a value of JSON: a number, a text, a boolean, null, or a list or "
                f"an object of these; got a {type(value).__name__}"
            ) from None
    return checked
