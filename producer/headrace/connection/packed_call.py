"""The bytes of a script's call, of which all but those of its item are packed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from hiredis import pack_command

from headrace.connection.commands import Argument, Script
from headrace.connection.script_calls import Form

_BULK_STRING = b"$%d\r\n%b\r\n"


class PackedCall:
    """The calls of a script about one item. They share `keys` and `values`, ahead of those of the item.

    An item has one key and two values.
    """

    def __init__(self, script: Script, keys: Sequence[str], values: Sequence[Argument]) -> None:
        self._script, self._keys, self._values = script, keys, values
        #: The whole call by its form, with places for the lengths and the bytes of the key and the two values.
        self._templates: dict[Form, bytes] = {}

    def pack(self, form: Form, key: str, first: bytes, second: bytes) -> bytes:
        """Return the call about an item, in a form."""
        template = self._templates.get(form)
        if template is None:
            template = self._templates[form] = self._make_template(form)
        name = key.encode()
        return template % (len(name), name, len(first), first, len(second), second)

    def _make_template(self, form: Form) -> bytes:
        call = self._script([*self._keys, ""], [*self._values, b"", b""]).in_form(form)
        behind_keys = len(call) - 2 - len(self._values)
        count, head, shared = len(call), _pack(call[: behind_keys - 1]), _pack(call[behind_keys:-2])
        return b"*%d\r\n" % count + head + _BULK_STRING + shared + 2 * _BULK_STRING


def _pack(arguments: Sequence[Argument]) -> bytes:
    """Pack arguments without their number, as a part of a template."""
    args: Any = tuple(arguments)
    packed = cast("bytes", pack_command(args))
    return packed.partition(b"\r\n")[2].replace(b"%", b"%%")
