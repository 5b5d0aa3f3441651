"""The JSON of the command line: a schema for each command, an example of each, and no broken promise."""

from __future__ import annotations

import copy
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from docs import cli_json
from docs.cli_json import FOLDER, OBJECTS, file_name, find_commands, make_schema
from docs.cli_json_examples import PAGES
from docs.schema_breaks import find_breaks
from headrace.cli import main
from tests.support.strict_schemas import close_schema, find_form, find_problems

TEXT = "".join(page.read_text(encoding="utf-8") for page in PAGES)


def examples() -> list[tuple[str, Any]]:
    """Return the examples of the pages, each with its command."""
    sections = re.split(r"(?m)^## ", TEXT)[1:]
    return [
        (section.partition("\n")[0], json.loads(block))
        for section in sections
        for block in re.findall(r"```json\n(.*?)```", section, re.DOTALL)
    ]


def test_every_command_with_json_has_a_schema() -> None:
    assert sorted(find_commands(main)) == sorted(OBJECTS), "list its type in docs/cli_json.py"


def test_the_pages_link_each_schema_and_has_an_example_of_each_form() -> None:
    text = " ".join(TEXT.split())
    for command in OBJECTS:
        assert f"[`{command}`](cli-json/{file_name(command)})" in text
    forms = {OBJECTS[command][find_form(command, value) or 0] for command, value in examples()}
    assert forms == {kind for types in OBJECTS.values() for kind in types}


def test_the_schema_of_a_command_describes_its_examples() -> None:
    assert [(command, problem) for command, value in examples() for problem in find_problems(command, value)] == []


def test_schemas_permit_fields_that_a_later_release_adds() -> None:
    assert "additionalProperties" not in make_schema("status")["$defs"]["JobStatus"]
    assert close_schema(make_schema("status"))["$defs"]["JobStatus"]["additionalProperties"] is False


def test_the_committed_schemas_are_current(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cli_json", "--check"])
    assert cli_json.main() == 0, capsys.readouterr().err


OLD: dict[str, Any] = {
    "$ref": "#/$defs/Job",
    "$defs": {
        "Job": {
            "type": "object",
            "required": ["id", "state"],
            "properties": {
                "id": {"type": "string"},
                "state": {"enum": ["waiting", "running"]},
                "version": {"type": ["string", "null"]},
                "step": {"anyOf": [{"$ref": "#/$defs/Step"}, {"type": "null"}]},
                "steps": {"type": "array", "items": {"$ref": "#/$defs/Step"}},
                "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
                "cause": {"$ref": "#/$defs/Job"},
            },
        },
        "Step": {"type": "object", "required": ["at_ms"], "properties": {"at_ms": {"type": "integer"}}},
    },
}
FIELDS = ("$defs", "Job", "properties")


def changed(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return OLD with another value at a path; None removes what is there."""
    schema = copy.deepcopy(OLD)
    target: Any = schema
    for name in path[:-1]:
        target = target[name]
    if value is None:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return schema


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ((*FIELDS, "version"), None, "version is missing"),
        ((*FIELDS, "id"), {"type": "integer"}, "id was string, is integer"),
        ((*FIELDS, "version"), {"type": "string"}, "version was ['string', 'null'], is string"),
        ((*FIELDS, "state"), {"enum": ["running"]}, "state has no longer the value 'waiting'"),
        (("$defs", "Job", "required"), ["id"], "state is no longer always there"),
        (("$defs", "Step", "properties"), {}, "step.at_ms is missing"),
        (("$defs", "Step", "properties"), {}, "steps[].at_ms is missing"),
        ((*FIELDS, "counts", "additionalProperties"), {"type": "number"}, "counts[] was integer, is number"),
        ((*FIELDS, "counts", "additionalProperties"), None, "counts is no longer described"),
        ((*FIELDS, "step"), {"anyOf": [{"$ref": "#/$defs/Step"}]}, "step had 2 types, has 1"),
    ],
)
def test_a_field_that_is_removed_or_has_another_type_breaks_the_promise(
    path: tuple[str, ...], value: Any, problem: str
) -> None:
    assert problem in list(find_breaks(OLD, changed(path, value)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*FIELDS, "method"), {"type": "string"}),
        ((*FIELDS, "state"), {"enum": ["delayed", "running", "waiting"]}),
        (("$defs", "Job", "required"), ["id", "state", "version"]),
        ((*FIELDS, "id"), {"type": "string", "description": "The id."}),
    ],
)
def test_a_new_field_or_value_breaks_nothing(path: tuple[str, ...], value: Any) -> None:
    assert list(find_breaks(OLD, changed(path, value))) == []


def test_a_broken_promise_is_refused_until_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_json, "FOLDER", tmp_path)
    for file in FOLDER.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    former = make_schema("status")
    former["$defs"]["JobStatus"]["properties"]["place"] = {"type": "string"}
    (tmp_path / "status.json").write_text(json.dumps(former))
    monkeypatch.setattr(sys, "argv", ["cli_json"])
    assert cli_json.main() == 1
    assert capsys.readouterr().err == "`headrace status --json` breaks its promise: place is missing\n"
    assert json.loads((tmp_path / "status.json").read_text()) == former
    monkeypatch.setattr(sys, "argv", ["cli_json", "--breaking", "status"])
    assert cli_json.main() == 0
    assert json.loads((tmp_path / "status.json").read_text()) == make_schema("status")


def test_a_command_that_loses_its_json_is_refused_until_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_json, "FOLDER", tmp_path)
    (tmp_path / "queues-drop.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["cli_json"])
    assert cli_json.main() == 1
    assert capsys.readouterr().err == f"{tmp_path / 'queues-drop.json'}: the command has no --json any more\n"
    monkeypatch.setattr(sys, "argv", ["cli_json", "--breaking", "queues drop"])
    assert cli_json.main() == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(map(file_name, OBJECTS))
