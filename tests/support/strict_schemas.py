"""The schemas of `--json` as the tests read them: an unknown field is an error, where users ignore it."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator

from docs.cli_json import make_schema


def find_problems(command: str, value: Any) -> list[str]:
    """Return what is wrong with an object that a command printed; nothing if its schema describes all of it."""
    validator = Draft202012Validator(close_schema(make_schema(command)))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def find_form(command: str, value: Any) -> int | None:
    """Return which of the forms of a command an object has, from 0; None if it has none of them."""
    schema = close_schema(make_schema(command))
    for number, form in enumerate(schema.get("anyOf", [{"$ref": schema.get("$ref")}])):
        if Draft202012Validator({**form, "$defs": schema["$defs"]}).is_valid(value):
            return number
    return None


def close_schema(schema: Any) -> Any:
    """Return a schema that permits no field without a description."""
    if isinstance(schema, list):
        return [close_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: close_schema(value) for name, value in schema.items()}
    if isinstance(closed.get("properties"), dict) and "type" in closed:
        closed["additionalProperties"] = False
    return closed
