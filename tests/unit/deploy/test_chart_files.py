"""The chart has copies of the alerts and the dashboard, as Helm reads no file outside of a chart."""

from __future__ import annotations

import pytest

from tests.support import ROOT

DEPLOY = ROOT / "deploy"
ORIGINALS = {
    "alerts.yml": DEPLOY / "prometheus" / "alerts.yml",
    "headrace.json": DEPLOY / "grafana" / "headrace.json",
}


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_file_of_the_chart_equals_its_original(name: str) -> None:
    copy = DEPLOY / "helm" / "headrace" / "files" / name
    command = f"cp {ORIGINALS[name].relative_to(ROOT)} {copy.relative_to(ROOT)}"
    assert copy.read_bytes() == ORIGINALS[name].read_bytes(), f"copy the file to the chart again: {command}"


def test_the_chart_has_no_other_file_to_copy() -> None:
    assert {path.name for path in (DEPLOY / "helm" / "headrace" / "files").iterdir()} == set(ORIGINALS)
