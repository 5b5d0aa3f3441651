"""Every problem that the gateway answers has a type with a page that explains it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace_gateway.pages.problems import render_problem, render_problems
from headrace_gateway.problem_types import PROBLEM_TYPES, TYPES
from headrace_gateway.problems import Problem
from tests.support import ROOT

PAGE = ROOT / "docs" / "reference" / "http.md"


def problem_calls() -> Iterator[tuple[Path, int, str]]:
    """Yield the calls of Problem whose status and kind are literals: the file, the status and the kind."""
    for path in sorted((ROOT / "gateway" / "headrace_gateway").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Name(id="Problem"),
                    args=[ast.Constant(value=int(status)), ast.Constant(value=str(kind)), *_],
                ):
                    yield path.relative_to(ROOT), status, kind


def test_every_problem_of_the_code_has_a_type_with_its_status():
    calls = list(problem_calls())
    unknown = [
        f"{path}: {status} {kind}"
        for path, status, kind in calls
        if kind not in PROBLEM_TYPES or status not in PROBLEM_TYPES[kind].statuses
    ]
    assert unknown == []
    assert len(calls) > 10


def test_a_problem_leads_to_the_page_of_its_type():
    body = Problem(503, "queue-full", "full").response("/v1").body
    assert f'"type":"{TYPES}queue-full"'.encode() in body
    assert f'"title":"{PROBLEM_TYPES["queue-full"].title}"'.encode() in body


def test_the_list_of_types_leads_to_each_page_once():
    assert sorted(re.findall(r'href="problems/([a-z-]+)"', render_problems())) == sorted(PROBLEM_TYPES)


@pytest.mark.parametrize("kind", sorted(PROBLEM_TYPES))
def test_a_page_has_the_type_its_status_its_meaning_and_what_to_do(kind: str):
    page = render_problem(kind)
    assert page is not None
    assert f"<code>{TYPES}{kind}</code>" in page
    assert all(str(status) in page for status in PROBLEM_TYPES[kind].statuses)
    assert "`" not in page


def test_a_type_that_does_not_exist_has_no_page():
    assert render_problem("no-such-type") is None


def test_the_reference_lists_every_type_with_its_status():
    rows = re.findall(r"^\| `([a-z-]+)` \| ([\d, ]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    expected = {
        problem.kind: ", ".join(str(status) for status in problem.statuses) for problem in PROBLEM_TYPES.values()
    }
    assert dict(rows) == expected
