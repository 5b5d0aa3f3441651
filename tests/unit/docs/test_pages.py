"""The form of the documentation: narrow lines, and at most a sentence in a table cell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.support import ROOT

PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("*/README.md"),
    *ROOT.glob("deploy/*/README.md"),
]
#: Columns of a line, without code blocks and the parts that a command generates.
WIDTH = 120


def prose_lines(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a page outside of code blocks and generated parts."""
    in_code = generated = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif line.startswith("<!--"):
            generated = not generated
        elif not in_code and not generated:
            yield number, line


def test_no_line_of_a_page_is_longer_than_120_columns() -> None:
    wide = [
        f"{page.relative_to(ROOT)}:{number}"
        for page in PAGES
        for number, line in prose_lines(page)
        if len(line) > WIDTH
    ]
    assert wide == []


def test_no_table_cell_holds_two_sentences() -> None:
    long = [
        f"{page.relative_to(ROOT)}:{number}: {cell.strip()}"
        for page in PAGES
        for number, line in prose_lines(page)
        if line.startswith("|")
        for cell in line.strip("|").split("|")
        if re.search(r"[.!?] [A-Z]", re.sub(r"`[^`]*`", "code", cell))
    ]
    assert long == []


def test_every_page_of_the_documentation_is_on_its_map() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    production = (ROOT / "docs" / "production" / "README.md").read_text(encoding="utf-8")
    missing = [
        str(page.relative_to(ROOT))
        for page in ROOT.glob("docs/**/*.md")
        if page.name != "README.md"
        and f"({page.relative_to(ROOT / 'docs')})" not in index
        and f"({page.name})" not in production
    ]
    assert missing == []
