"""Names and docstrings of the code: no pronoun or bare participle as a name, no relative clause as a docstring."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support import ROOT

#: Words that do not say which object they name.
VAGUE = frozenset(
    [
        *(
            "one",
            "found",
            "given",
            "asked",
            "told",
            "said",
            "seen",
            "known",
            "some",
            "kept",
            "got",
            "place",
            "part",
        ),
        *("most", "much", "at", "of", "what", "who", "wanted", "taken", "ended", "looked", "heard"),
    ]
)
RELATIVE_CLAUSE = re.compile(r"(What|Whether|Whose|Who|That|How|When)\b")
#: Permitted share of docstrings that begin with a relative clause.
LIMIT = 0.02

#: The folders that are checked.
FOLDERS = ("producer", "worker", "gateway", "tests", "benchmarks", "examples", "deploy")


def modules(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    for folder in folders or FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text())


def defined_name(node: ast.AST) -> str | None:
    """Return the name of a variable, parameter, function, class, attribute or import alias that a node defines."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
            return name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.alias(asname=name) | ast.ExceptHandler(name=name) | ast.MatchAs(name=name):
            return name
        case ast.MatchStar(name=name) | ast.MatchMapping(rest=name):
            return name
        case _:
            return None


def docstrings(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring is not None:
                yield docstring


def test_every_name_says_which_object_it_names():
    vague = [
        f"{path}:{getattr(node, 'lineno', 1)}: {name}"
        for path, module in modules()
        for node in ast.walk(module)
        if (name := defined_name(node)) is not None and name.strip("_").lower() in VAGUE
    ]
    assert vague == []


def test_docstrings_begin_with_a_verb_or_a_noun_and_rarely_with_a_relative_clause():
    texts = [(path, text) for path, module in modules() for text in docstrings(module)]
    clauses = [f"{path}: {text.splitlines()[0]}" for path, text in texts if RELATIVE_CLAUSE.match(text)]
    assert len(clauses) <= LIMIT * len(texts), clauses


def test_no_docstring_of_the_gateway_begins_with_a_relative_clause():
    texts = [(path, text) for path, module in modules("gateway") for text in docstrings(module)]
    assert [f"{path}: {text.splitlines()[0]}" for path, text in texts if RELATIVE_CLAUSE.match(text)] == []
