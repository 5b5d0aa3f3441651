"""The decisions of `make release`: the version and the notes. tests/acceptance/test_release.py builds one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deploy.release import FOLDERS, ReleaseError, common_version, release_notes
from tests.support import ROOT

CHANGELOG = """# Changelog

All notable changes.

## Unreleased

- New.

## 0.2.0 (2026-12-01)

### Added

- Old.

## 0.1.0

- First.
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Copy the files that name a version."""
    for name in [*(f"{folder}/pyproject.toml" for folder in FOLDERS), "deploy/helm/headrace/Chart.yaml"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_all_distributions_and_the_chart_have_one_version(copy: Path) -> None:
    assert common_version() == common_version(copy) == "0.1.0"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("worker/pyproject.toml", 'version = "0.1.0"', 'version = "0.1.1"'),
        ("gateway/pyproject.toml", "headrace==0.1.0", "headrace==0.1.1"),
        ("deploy/helm/headrace/Chart.yaml", "\nversion: 0.1.0", "\nversion: 0.1.1"),
        ("deploy/helm/headrace/Chart.yaml", 'appVersion: "0.1.0"', 'appVersion: "0.1.1"'),
    ],
)
def test_a_version_that_differs_is_no_release(copy: Path, file: str, old: str, new: str) -> None:
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new))
    with pytest.raises(ReleaseError, match=r"versions differ: .* 0\.1\.1"):
        common_version(copy)


def test_the_notes_are_the_section_of_the_version_and_nothing_else() -> None:
    assert release_notes(CHANGELOG, "0.2.0") == "# Headrace 0.2.0\n\n### Added\n\n- Old.\n"
    assert release_notes(CHANGELOG, "0.1.0") == "# Headrace 0.1.0\n\n- First.\n"


def test_the_notes_of_a_version_without_a_section_are_what_is_unreleased() -> None:
    assert release_notes(CHANGELOG, "0.3.0") == "# Headrace 0.3.0\n\n- New.\n"


def test_a_release_without_notes_is_refused() -> None:
    with pytest.raises(ReleaseError, match="no section for"):
        release_notes("# Changelog\n\n## Unreleased\n", "0.1.0")
