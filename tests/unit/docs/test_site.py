"""The site of docs/ builds without a warning, and can be read without a network; faults of pages end the build."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import headrace
from tests.support import ROOT


def build(folder: Path, config: Path) -> subprocess.CompletedProcess[str]:
    recipe = re.search(r"\$\(BIN\)/mkdocs (build .*)", (ROOT / "Makefile").read_text())
    assert recipe
    command = [sys.executable, "-m", "mkdocs", *recipe[1].split(), "--config-file", config, "--site-dir", folder]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    completed = build(folder, ROOT / "mkdocs.yml")
    assert completed.returncode == 0, completed.stderr
    return folder


def test_every_page_is_in_the_site(site: Path) -> None:
    pages = {page.relative_to(ROOT / "docs") for page in ROOT.glob("docs/**/*.md")}
    built = {site / page.with_name(page.name.replace("README", "index")).with_suffix(".html") for page in pages}
    assert [str(page) for page in built if not page.exists()] == []


def test_a_link_out_of_docs_leads_to_a_page_of_the_site(site: Path) -> None:
    monitoring = (site / "production" / "monitoring.html").read_text()
    assert 'href="../repository/deploy/prometheus/alerts.yml.html"' in monitoring
    assert "HeadraceNoWorker" in re.sub(
        r"<[^>]+>", "", (site / "repository/deploy/prometheus/alerts.yml.html").read_text()
    )
    assert (site / "repository" / "CHANGELOG.html").exists()


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loaded = re.compile(
        r"""<(?:script|img|iframe)\b[^>]*\bsrc="?(?:https?:)?//|<link\b[^>]*\bhref="?(?:https?:)?//"""
    )
    assert [str(page) for page in site.rglob("*.html") if loaded.search(page.read_text())] == []
    assert [str(sheet) for sheet in site.rglob("*.css") if re.search(r"url\(.?https?:", sheet.read_text())] == []


def test_the_search_index_holds_the_text_of_the_pages(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text()
    assert "reference/client.html" in index
    assert "how-to/handle-dead-letters.html" in index
    assert "repository/deploy/prometheus" not in index  # sources are readable, and not searched


def test_the_python_api_has_every_public_name_with_its_docstring(site: Path) -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text()
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == sorted(headrace.__all__)
    built = (site / "reference" / "python.html").read_text()
    anchors = set(re.findall(r'id="([\w.]+)"', built))
    assert [name for name in headrace.__all__ if not any(anchor.endswith(f".{name}") for anchor in anchors)] == []
    assert "There was no outcome within the timeout." in built


def test_a_broken_link_a_broken_anchor_and_a_page_that_is_not_in_the_navigation_end_the_build(
    tmp_path: Path,
) -> None:
    settings, _, _ = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")
    (tmp_path / "mkdocs.yml").write_text(f"{settings}\nnav:\n  - README.md\n")
    pages = tmp_path / "docs"
    pages.mkdir()
    shutil.copy(ROOT / "docs" / "hooks.py", pages)
    (pages / "README.md").write_text(
        "# Start\n\n[a](absent.md) [b](#absent) [c](../deploy/absent.yml) ![d](no.svg)\n"
    )
    (pages / "lonely.md").write_text("# Lonely\n")
    completed = build(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert completed.returncode == 1
    for fault in ("'absent.md'", "'#absent'", "'../deploy/absent.yml'", "'no.svg'", "lonely.md"):
        assert fault in completed.stderr
