"""The output of each command with `--json` fits its schema, on a real Redis with a real worker."""

from __future__ import annotations

from typing import Any

import pytest

from docs.cli_json import OBJECTS
from tests.support.cli_json_site import run_all_commands
from tests.support.strict_schemas import find_form, find_problems


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Return the objects that each command printed, by its name."""
    return run_all_commands(tmp_path_factory.mktemp("cli"))


@pytest.mark.parametrize("command", OBJECTS)
def test_the_schema_describes_all_that_a_command_prints(printed: dict[str, list[Any]], command: str) -> None:
    assert printed[command], f"add a run of `headrace {command} --json` to tests/support/cli_json_site.py"
    for value in printed[command]:
        assert find_problems(command, value) == []


@pytest.mark.parametrize("command", [command for command, types in OBJECTS.items() if len(types) > 1])
def test_each_form_of_a_command_was_printed(printed: dict[str, list[Any]], command: str) -> None:
    assert {find_form(command, value) for value in printed[command]} == set(range(len(OBJECTS[command])))
