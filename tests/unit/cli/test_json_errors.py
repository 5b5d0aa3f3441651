"""An error in JSON names line and column, and quotes nothing of the text."""

from __future__ import annotations

import msgspec
import pytest

from headrace.json_errors import describe_json_error


def describe(text: bytes | str) -> str:
    with pytest.raises((msgspec.DecodeError, RecursionError, UnicodeDecodeError)) as caught:
        msgspec.json.decode(text)
    return describe_json_error(text, caught.value)


@pytest.mark.parametrize(
    ("text", "described"),
    [
        ('{"age": 41,\n "plan" "gold"}', "line 2, column 9: expected ':'"),
        ('[{"age": tru}]', "line 1, column 10: invalid character"),
        ("[1, 2", "line 1, column 6: it ends too early"),
        ("[1,\n2\n", "line 3, column 1: it ends too early"),
        ('{"name": "Ann', "line 1, column 14: it ends too early"),
        ("[1] x", "line 1, column 5: trailing characters"),
        ("[1, NaN]", "line 1, column 5: invalid character"),
        ("['é', NaN]", "line 1, column 2: invalid character"),
        ('["é", NaN]', "line 1, column 7: invalid character"),
        (b'{"a": "\xff"}', "line 1, column 8: it is not UTF-8"),
        ("[" * 100_000, "it is nested too deeply"),
    ],
)
def test_the_position_is_that_of_the_error(text: bytes | str, described: str):
    assert describe(text) == described
    if isinstance(text, str):
        assert describe(text.encode()) == described
