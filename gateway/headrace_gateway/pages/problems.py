"""The pages of the types of problems, written on the server: they work without JavaScript, and in `curl`."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from headrace_gateway.problem_types import PROBLEM_TYPES, TYPES, ProblemType

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{up}page.css">
</head>
<body>
<header><h1>{title}</h1><nav aria-label="Pages"><a href="{up}../docs">Documentation</a>{listing}</nav></header>
<main>
{body}
</main>
</body>
</html>
"""
_ROW = '<tr><td><a href="problems/{kind}"><code>{kind}</code></a></td><td>{statuses}</td><td>{title}</td></tr>'
_LISTING = """<p>An error is <code>application/problem+json</code>. Its <code>type</code> is the path of one of \
these pages, the same for every gateway: compare it, and show people the <code>detail</code>.</p>
<div class="scroll"><table>
<thead><tr><th scope="col">Type</th><th scope="col">Status</th><th scope="col">Error</th></tr></thead>
<tbody>
{rows}
</tbody></table></div>"""
_PROBLEM = """<table><tbody>
<tr><th scope="row">Type</th><td><code>{type}</code></td></tr>
<tr><th scope="row">Status</th><td>{statuses}</td></tr>
<tr><th scope="row">Meaning</th><td>{meaning}</td></tr>
<tr><th scope="row">What to do</th><td>{action}</td></tr>
</tbody></table>"""


def render_problems() -> str:
    """Return the page that lists the types of problems, by status."""
    problems = sorted(PROBLEM_TYPES.values(), key=lambda problem: (problem.statuses, problem.kind))
    rows = "\n".join(_ROW.format_map(_escaped(problem)) for problem in problems)
    return _PAGE.format(title="Errors", up="", listing="", body=_LISTING.format(rows=rows))


def render_problem(kind: str) -> str | None:
    """Return the page of a type of problem; None if there is none of this name."""
    problem = PROBLEM_TYPES.get(kind)
    if problem is None:
        return None
    members = _escaped(problem)
    listing = ' <a href="../problems">Errors</a>'
    return _PAGE.format(title=members["title"], up="../", listing=listing, body=_PROBLEM.format_map(members))


def _escaped(problem: ProblemType) -> dict[str, str]:
    return {
        "kind": problem.kind,
        "type": TYPES + problem.kind,
        "statuses": _join(problem.statuses),
        "title": escape(problem.title),
        "meaning": _with_code(problem.meaning),
        "action": _with_code(problem.action),
    }


def _join(statuses: Iterable[int]) -> str:
    return " or ".join(map(str, statuses))


def _with_code(text: str) -> str:
    """Return HTML in which what stands between backquotes is code."""
    spans = escape(text).split("`")
    return "".join(f"<code>{span}</code>" if number % 2 else span for number, span in enumerate(spans))
