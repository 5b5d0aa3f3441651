"""Links between the pages of the documentation."""

from __future__ import annotations

import re

from tests.support import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")]
LINK = re.compile(r"(?:\]\(|^\[[^\]]+\]: )(?!https?:|#|mailto:)([^)#\s]+)", re.MULTILINE)


def test_every_link_between_pages_leads_to_a_file():
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in LINK.findall(page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []
