"""`make release` builds all files of a release, and uploads nothing."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support import ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "dist"
    completed = subprocess.run(
        ["make", "release", f"ARGS=--out {folder}"], cwd=ROOT, capture_output=True, text=True, timeout=550
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert completed.stdout.count("PASSED") == 6  # twine's verdict on each wheel and sdist
    return folder


def test_a_release_has_wheels_sdists_the_chart_a_list_of_packages_and_notes(release: Path) -> None:
    names = {file.name for file in release.iterdir()}
    assert names == {
        *(f"{name}-0.1.0-py3-none-any.whl" for name in ("headrace", "headrace_worker", "headrace_gateway")),
        *(f"{name}-0.1.0.tar.gz" for name in ("headrace", "headrace_worker", "headrace_gateway")),
        *("headrace-chart-0.1.0.tgz", "headrace-0.1.0.cdx.json", "RELEASE_NOTES.md", "SHA256SUMS"),
    }
    with zipfile.ZipFile(release / "headrace-0.1.0-py3-none-any.whl") as wheel:
        assert "headrace/py.typed" in wheel.namelist()
    with tarfile.open(release / "headrace-chart-0.1.0.tgz") as chart:
        assert "headrace/Chart.yaml" in chart.getnames()
    assert (release / "RELEASE_NOTES.md").read_text().startswith("# Headrace 0.1.0\n")


def test_the_list_of_packages_has_the_locked_versions_and_nothing_of_the_machine(release: Path) -> None:
    listed = json.loads((release / "headrace-0.1.0.cdx.json").read_text())["components"]
    components = {component["name"].lower(): component["version"] for component in listed}
    assert {"headrace", "headrace-worker", "headrace-gateway", "celery", "scikit-learn", "uvicorn"} <= set(
        components
    )
    assert f"celery=={components['celery']}\n" in (ROOT / "requirements.lock").read_text()
    assert not {"pip", "pytest", "libc6"} & set(components)


def test_the_digests_are_those_of_the_files(release: Path) -> None:
    lines = (release / "SHA256SUMS").read_text().splitlines()
    assert len(lines) == 9
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((release / name).read_bytes()).hexdigest() == digest
