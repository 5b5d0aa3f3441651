"""Links between the pages of the documentation lead to a file, and to a heading in it."""

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
LINK = re.compile(r"(?:\]\(|^\[[^\]]+\]: )(?!https?:|mailto:)([^)\s]+)", re.MULTILINE)
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def links() -> Iterator[tuple[str, Path, str]]:
    """Yield each link between pages: the page with the link, the target file, and the heading or ''."""
    for page in PAGES:
        for target in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
            path, _, heading = target.partition("#")
            yield f"{page.relative_to(ROOT)}: {target}", (page.parent / path if path else page), heading


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, formed as GitHub forms them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-") for heading in headings}


def test_every_link_between_pages_leads_to_a_file():
    assert [link for link, target, _ in links() if not target.exists()] == []


def test_every_link_to_a_heading_leads_to_one():
    broken = [
        link
        for link, target, heading in links()
        if heading and target.suffix == ".md" and heading not in anchors(target)
    ]
    assert broken == []


def test_every_named_link_has_a_target():
    missing = []
    for page in PAGES:
        text = CODE.sub("", page.read_text(encoding="utf-8"))
        targets = set(re.findall(r"^\[([^\]]+)\]: \S+$", text, re.MULTILINE))
        names = re.findall(r"\]\[([^\]]+)\]", text)
        missing += [f"{page.relative_to(ROOT)}: {name}" for name in names if name not in targets]
        merged = re.findall(r"^\[[^\]]+\]: \S+ \S.*$", text, re.MULTILINE)
        missing += [f"{page.relative_to(ROOT)}: {line}" for line in merged]
    assert missing == []
