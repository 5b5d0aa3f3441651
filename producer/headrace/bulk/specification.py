"""From a caller's arguments to a `Run`, checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.errors import InvalidInput
from headrace.wire.bulk import Run
from headrace.wire.bulk_checks import check_reference, check_run, check_run_name
from headrace.wire.message import new_id
from headrace.wire.names import check_model_name, split_version

#: The form of each argument, for errors.
_FORMS = {
    "version": "a number as text, or an alias",
    "method": "the name of a method, such as predict_proba",
    "key": "the name of a column",
    "keep": "a list of columns, empty for none",
    "owner": "the name of a caller, 1 to 32 characters",
}


def make_run(
    model: str,
    input_: str,
    output: str,
    *,
    name: str | None = None,
    version: str | None = None,
    method: str | None = None,
    key: str | None = None,
    keep: Sequence[str] | None = None,
    max_failed: float | str | None = None,
    owner: str | None = None,
) -> Run:
    """Return the run that these arguments ask for. Raises InvalidInput.

    `input_` and `output` are references, `location:path`. None for `name` makes a new one. `keep` are the columns
    of the input that the output has too: None for all. `max_failed` is a number of rows, or a share of all rows
    below 1, or text such as `1%`. `owner` is the caller of the gateway whose run it is.
    """
    model_name, version = split_version(model, version)
    name = new_id() if name is None else check_run_name(name)
    values: dict[str, Any] = {
        "name": name,
        "model": check_model_name(model_name),
        "input": input_,
        "output": output.removesuffix("/") if isinstance(output, str) else output,
        "version": version,
        "method": method,
        "key": key,
        "keep": keep if keep is None or isinstance(keep, str) else list(keep),
        "max_failed": parse_max_failed(max_failed),
        "owner": owner,
    }
    check_reference(input_, "input")
    check_reference(output, "output")
    try:
        run = msgspec.convert(values, Run)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$.")
        field = re.split(r"\W", path)[0]
        raise InvalidInput(f"`{field}` is {_FORMS.get(field, 'wrong')}: {problem}") from None
    check_run(run)
    return run


def parse_max_failed(value: object) -> float | None:
    """Return the failed rows that end a run: a count, or a share below 1. Raises InvalidInput.

    `value` is a number, or text: a number, or a percentage such as `1%`.
    """
    if value is None:
        return None
    number: object = value
    if isinstance(value, str):
        text = value.strip()
        try:
            number = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
        except ValueError:
            number = None
        if text.endswith("%") and isinstance(number, float) and not 0 <= number < 1:
            number = None
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 2**53:
        shown = repr(value)[:80] if isinstance(value, str | int | float) else f"a {type(value).__name__}"
        raise InvalidInput(f"`max_failed` is a number of rows, or a share of them such as 0.01 or 1%; got {shown}")
    return float(number)
